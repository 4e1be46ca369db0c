//! Hints of other nodes' changes, and commits that do not wait for the disk.

use std::sync::Arc;
use std::time::Duration;

use keyward_store::{Context, Engine, Hints, Listen, Pooler, Statement, StatementKind};
use keyward_testkit::{ManualClock, TestDatabase};
use tokio_postgres::Client;

use crate::isolation::raw;
use crate::{ADA, probed};

/// Far beyond what a hint takes, so that a lost one fails and does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

const LISTENERS: &str = "FROM pg_stat_activity
    WHERE datname = current_database() AND query = 'LISTEN keyward_changes'";

struct Ears {
    _database: TestDatabase,
    _engine: Engine,
    superuser: Client,
    hints: Hints,
}

impl Ears {
    async fn new() -> Option<Self> {
        let database = TestDatabase::postgres_with(probed()).await?;
        let engine = Engine::open(&database.config()).await.unwrap();
        let superuser = raw(&database.superuser_url().unwrap()).await;
        let mut hints = engine.listen(Arc::new(ManualClock::default()));
        assert!(hints.are_on());
        assert_eq!(heard(&mut hints).await, 0, "one hint for what was lost before");
        Some(Self { _database: database, _engine: engine, superuser, hints })
    }

    async fn notify(&self, payload: &str) {
        let notify = "SELECT pg_notify('keyward_changes', $1)";
        self.superuser.execute(notify, &[&payload]).await.unwrap();
    }
}

async fn heard(hints: &mut Hints) -> i64 {
    tokio::time::timeout(PATIENCE, hints.changed()).await.unwrap()
}

#[tokio::test]
async fn a_hint_tells_the_greatest_epoch_and_a_broken_one_still_rings() {
    let Some(mut ears) = Ears::new().await else { return };
    let told = [("7", 7), ("5", 7), ("", 7), ("seven", 7), ("-1", 7), ("9", 9)];
    for (payload, greatest) in told {
        ears.notify(payload).await;
        assert_eq!(heard(&mut ears.hints).await, greatest, "{payload:?}");
    }
    ears.notify("99999999999999999999").await;
    assert_eq!(heard(&mut ears.hints).await, 9, "a number beyond the range is none");
}

#[tokio::test]
async fn a_listener_that_lost_its_connection_comes_back_and_rings() {
    let Some(mut ears) = Ears::new().await else { return };
    for _ in 0..2 {
        let end = format!("SELECT pg_terminate_backend(pid, 5000) {LISTENERS}");
        assert_eq!(ears.superuser.query(&end, &[]).await.unwrap().len(), 1);
        assert_eq!(heard(&mut ears.hints).await, 0, "what was sent meanwhile is lost");
    }
    ears.notify("3").await;
    assert_eq!(heard(&mut ears.hints).await, 3);
}

#[tokio::test]
async fn dropping_the_hints_ends_the_listening() {
    let Some(ears) = Ears::new().await else { return };
    drop(ears.hints);
    let left = format!("SELECT count(*) {LISTENERS}");
    let ended = async {
        // each look is a round trip to the server, which sees the end at its own pace
        while ears.superuser.query_one(&left, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn nothing_is_heard_where_nothing_can_be() {
    let clock = Arc::new(ManualClock::default());
    let sqlite = TestDatabase::sqlite();
    let engine = Engine::open(&sqlite.config()).await.unwrap();
    assert!(!engine.listen(clock.clone()).are_on());
    let Some(database) = TestDatabase::postgres().await else { return };
    let cases = [(Listen::Off, Pooler::None), (Listen::WithStore, Pooler::Transaction)];
    for (listen, pooler) in cases {
        let mut config = database.config();
        (config.listen, config.pooler) = (listen, pooler);
        let engine = Engine::open(&config).await.unwrap();
        let mut hints = engine.listen(clock.clone());
        assert!(!hints.are_on());
        let waiting = tokio::time::timeout(Duration::from_millis(20), hints.changed());
        assert!(waiting.await.is_err(), "it waits for ever");
    }
}

#[tokio::test]
async fn hints_may_have_an_address_of_their_own() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let mut config = database.config();
    config.pooler = Pooler::Transaction;
    config.listen = Listen::Apart(database.url().into());
    let engine = Engine::open(&config).await.unwrap();
    let mut hints = engine.listen(Arc::new(ManualClock::default()));
    assert_eq!(heard(&mut hints).await, 0);
}

static DURABILITY: Statement = Statement::by_engine(
    "durability",
    StatementKind::Shared,
    "SELECT 'on'",
    "SELECT current_setting('synchronous_commit')",
);

#[tokio::test]
async fn only_a_note_does_not_wait_for_the_disk() {
    for database in TestDatabase::every().await {
        let mut config = database.config();
        config.limits.connections = 1;
        let engine = Engine::open(&config).await.unwrap();
        let is_postgres = database.engine_name() == "postgres";
        for note in [false, true, false] {
            let context = Context::Tenant(ADA);
            let begun = if note {
                engine.begin_note(context).await
            } else {
                engine.begin_write(context).await
            };
            let mut conn = begun.unwrap();
            let row = conn.query_one(&DURABILITY, &[]).await.unwrap();
            let expected = if note && is_postgres { "off" } else { "on" };
            assert_eq!(row.text(0).unwrap(), expected);
            conn.commit().await.unwrap();
        }
    }
}
