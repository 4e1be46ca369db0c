//! A server that is there and says nothing: how long a caller is held.

use std::sync::Arc;
use std::time::Duration;

use keyward_store::{
    Conn, Context, Engine, Statement, Store, StoreConfig, StoreError, StoreLimits, Value,
};
use keyward_testkit::{Fault, FaultProxy, ManualClock, TestDatabase};
use tokio_postgres::Client;

use crate::isolation::raw;
use crate::{ADA, COUNT, INSERT, add_note, count, probed};

/// Every limit of these tests; a caller may meet several of them one after the other.
const LIMIT: Duration = Duration::from_secs(1);

/// Within which every call has ended: above what its limits add up to, below the defaults.
const PATIENCE: Duration = Duration::from_secs(8);

struct Line {
    database: TestDatabase,
    proxy: FaultProxy,
    config: StoreConfig,
    engine: Engine,
}

impl Line {
    /// A store whose connections all go through a proxy.
    async fn new(limits: impl FnOnce(&mut StoreLimits)) -> Option<Self> {
        let database = TestDatabase::postgres_with(probed()).await?;
        let address = database.url();
        let (_, place) = address.rsplit_once('@').unwrap();
        let (server, name) = place.split_once('/').unwrap();
        let server = tokio::net::lookup_host(server).await.unwrap().next().unwrap();
        let proxy = FaultProxy::before(server).await;
        let url = format!("postgres://keyward_app:test@{}/{name}", proxy.address());
        let mut config = StoreConfig { url: url.into(), ..database.config() };
        config.migrate_url = None;
        config.limits.connections = 3;
        for limit in [
            &mut config.limits.wait,
            &mut config.limits.begin,
            &mut config.limits.statement,
            &mut config.limits.grace,
            &mut config.limits.commit,
        ] {
            *limit = LIMIT;
        }
        limits(&mut config.limits);
        let engine = Engine::open(&config).await.unwrap();
        Some(Self { database, proxy, config, engine })
    }

    async fn superuser(&self) -> Client {
        raw(&self.database.superuser_url().unwrap()).await
    }
}

/// Fails when the caller is held beyond the limits.
async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

async fn begin(engine: &Engine) -> Conn {
    engine.begin_write(Context::Tenant(ADA)).await.unwrap()
}

async fn insert(conn: &mut Conn, note: &str) -> Result<u64, StoreError> {
    conn.execute(&INSERT, &[ADA.into(), note.into(), Value::Null]).await
}

#[tokio::test]
async fn a_statement_without_an_answer_is_given_up_and_nothing_is_written() {
    for fault in [Fault::Stall, Fault::StallAnswers, Fault::StallRequests, Fault::Drop] {
        let Some(line) = Line::new(|_| ()).await else { return };
        let mut conn = begin(&line.engine).await;
        line.proxy.set(fault);
        let error = bounded(insert(&mut conn, "lost")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{fault:?}: {error:?}");
        assert!(error.to_string().contains("no answer came in time"), "{fault:?}: {error}");
        let error = bounded(conn.commit()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{fault:?}: {error:?}");
        line.proxy.set(Fault::Pass);
        assert_eq!(bounded(count(&line.engine, ADA)).await, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn a_commit_without_an_answer_is_of_unknown_outcome_and_is_not_cancelled() {
    for (fault, written) in [(Fault::StallAnswers, 1), (Fault::Drop, 0)] {
        let Some(line) = Line::new(|_| ()).await else { return };
        let mut conn = begin(&line.engine).await;
        insert(&mut conn, "who knows").await.unwrap();
        let before = line.proxy.accepted();
        line.proxy.set(fault);
        let error = bounded(conn.commit()).await.unwrap_err();
        assert!(matches!(error, StoreError::CommitUnknown(_)), "{fault:?}: {error:?}");
        assert_eq!(line.proxy.accepted(), before, "a cancel request is a connection");
        line.proxy.set(Fault::Pass);
        assert_eq!(bounded(count(&line.engine, ADA)).await, written, "{fault:?}");
    }
}

#[tokio::test]
async fn one_silent_connection_takes_the_idle_ones_with_it() {
    let Some(line) = Line::new(|_| ()).await else { return };
    let held = [begin(&line.engine).await, begin(&line.engine).await, begin(&line.engine).await];
    drop(held);
    line.proxy.set(Fault::Drop);
    let begun = bounded(line.engine.begin_read(Context::Tenant(ADA))).await;
    assert!(matches!(begun.err(), Some(StoreError::Unavailable(_))));
    line.proxy.set(Fault::Pass);
    for _ in 0..3 {
        assert_eq!(bounded(count(&line.engine, ADA)).await, 0, "no dead one is left");
    }
}

#[tokio::test]
async fn who_asks_for_a_lease_and_gives_up_takes_the_idle_ones_with_it() {
    let Some(line) = Line::new(|_| ()).await else { return };
    let store = Store::open(&line.config, Arc::new(ManualClock::default())).await.unwrap();
    let several = [store.roster(), store.roster(), store.roster()];
    futures_util::future::try_join_all(several).await.unwrap();
    line.proxy.set(Fault::Drop);
    // a lease waits for less than the limits of the store
    assert!(tokio::time::timeout(LIMIT / 4, store.roster()).await.is_err());
    line.proxy.set(Fault::Pass);
    let again = tokio::time::timeout(LIMIT / 4 * 3, store.roster()).await;
    again.unwrap().unwrap();
}

#[tokio::test]
async fn callers_of_a_silent_server_are_all_refused_in_time() {
    let Some(line) = Line::new(|_| ()).await else { return };
    line.proxy.set(Fault::Stall);
    let callers = (0..12).map(|_| line.engine.begin_write(Context::Tenant(ADA)));
    for begun in bounded(futures_util::future::join_all(callers)).await {
        let error = begun.err().unwrap();
        assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Busy(_)), "{error:?}");
        assert!(error.is_retryable());
    }
    line.proxy.set(Fault::Pass);
    add_note(&line.engine, ADA, "after").await;
}

#[tokio::test]
async fn a_server_that_resets_connections_costs_no_wait() {
    let Some(line) = Line::new(|limits| limits.statement = PATIENCE * 4).await else { return };
    let mut conn = begin(&line.engine).await;
    line.proxy.set(Fault::Reset);
    let error = bounded(insert(&mut conn, "lost")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let error = bounded(conn.rollback()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    line.proxy.set(Fault::Pass);
    assert_eq!(bounded(count(&line.engine, ADA)).await, 0);
}

static WRITTEN: Statement = Statement::tenant(
    "written",
    "INSERT INTO notes (tenant_id, note_id) VALUES ($1, 'held') RETURNING note_id",
);

#[tokio::test]
async fn a_node_that_stops_within_a_transaction_frees_its_rows_before_the_others_give_up() {
    let Some(line) = Line::new(|limits| limits.idle_in_transaction = LIMIT).await else { return };
    let mut stopped = begin(&line.engine).await;
    stopped.query_one(&WRITTEN, &[ADA.into()]).await.unwrap();
    line.proxy.set(Fault::Stall);
    let other = line.superuser().await;
    let insert = "INSERT INTO keyward.notes (tenant_id, note_id) VALUES ('ten_ada', 'held')";
    bounded(other.batch_execute(insert)).await.unwrap();
    line.proxy.set(Fault::Pass);
    let error = bounded(stopped.commit()).await.unwrap_err();
    assert!(matches!(error, StoreError::CommitUnknown(_) | StoreError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_listener_on_a_silent_line_opens_another() {
    let Some(line) = Line::new(|_| ()).await else { return };
    let mut hints = line.engine.listen(Arc::new(ManualClock::default()));
    // a check of the line comes every few seconds
    let patience = PATIENCE * 4;
    tokio::time::timeout(patience, hints.changed()).await.unwrap();
    let before = line.proxy.accepted();
    line.proxy.set(Fault::Drop);
    // lost with the line, which looks as if it were open
    let superuser = line.superuser().await;
    superuser.execute("SELECT pg_notify('keyward_changes', '7')", &[]).await.unwrap();
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let opens_another = async {
        while line.proxy.accepted() == before {
            looks.tick().await;
        }
    };
    tokio::time::timeout(patience, opens_another).await.unwrap();
    line.proxy.set(Fault::Pass);
    assert_eq!(tokio::time::timeout(patience, hints.changed()).await.unwrap(), 0);
    superuser.execute("SELECT pg_notify('keyward_changes', '8')", &[]).await.unwrap();
    assert_eq!(tokio::time::timeout(patience, hints.changed()).await.unwrap(), 8);
}

#[tokio::test]
async fn a_slow_line_is_only_slow() {
    let Some(line) = Line::new(|_| ()).await else { return };
    let least = Duration::from_millis(10);
    line.proxy.set(Fault::Delay { least, jitter: least * 2 });
    for note in ["one", "two", "three"] {
        add_note(&line.engine, ADA, note).await;
    }
    let mut conn = line.engine.begin_read(Context::Tenant(ADA)).await.unwrap();
    assert_eq!(conn.query_one(&COUNT, &[ADA.into()]).await.unwrap().int(0).unwrap(), 3);
}
