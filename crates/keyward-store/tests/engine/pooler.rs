//! Behind PgBouncer, which lends each connection for one transaction: few servers, many callers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use keyward_store::{
    Context, Engine, Pooler, Statement, StoreConfig, StoreError, Value, all_statements,
};
use keyward_testkit::{PgBouncer, TestDatabase};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::isolation::raw;
use crate::{ADA, COUNT, INSERT, add_note, count, probed};

/// Within which everything here ends.
const PATIENCE: Duration = Duration::from_mins(1);

/// What each transaction finds on the server it happens to get.
const DEFAULT: &str = "server_reset_query = DISCARD ALL";
const NEVER: &str = "server_reset_query =";
const ALWAYS: &str = "server_reset_query = DISCARD ALL\nserver_reset_query_always = 1";

/// A database with a pooler before it.
struct Pooled {
    pooler: PgBouncer,
    database: TestDatabase,
}

impl Pooled {
    async fn new(settings: &str) -> Option<Self> {
        let database = TestDatabase::postgres_with(probed()).await?;
        let pooler = PgBouncer::before(&database, settings).await?;
        Some(Self { pooler, database })
    }

    fn config(&self) -> StoreConfig {
        let url = self.pooler.url().to_owned().into();
        let mut config = StoreConfig { url, migrate_url: None, ..self.database.config() };
        config.pooler = Pooler::Transaction;
        config.limits.connections = 4 * PgBouncer::SERVERS;
        config
    }

    async fn open(&self) -> Engine {
        Engine::open(&self.config()).await.unwrap()
    }

    async fn superuser(&self) -> Client {
        raw(&self.database.superuser_url().unwrap()).await
    }
}

/// A value of the type that the server expects.
fn value_of(expected: &Type) -> Value {
    match *expected {
        Type::INT8 | Type::INT4 => 1.into(),
        Type::BYTEA => vec![1_u8].into(),
        // text to most statements, and JSON to one
        _ => "[]".into(),
    }
}

#[tokio::test]
async fn every_statement_of_the_program_runs_without_a_prepared_name() {
    let Some(pooled) = Pooled::new(DEFAULT).await else { return };
    let engine = pooled.open().await;
    let superuser = pooled.superuser().await;
    superuser.batch_execute("SET search_path = keyward").await.unwrap();
    for statement in all_statements() {
        let prepared = superuser.prepare(statement.postgres()).await.unwrap();
        let filled: Vec<_> = prepared.params().iter().map(value_of).collect();
        let empty = vec![Value::Null; filled.len()];
        for values in [filled, empty] {
            let context = Context::System { reason: "a test" };
            let mut conn = engine.begin_write(context).await.unwrap();
            let answer = conn.query(statement, &values).await;
            // what the made-up values violate is right to be refused
            let ran = matches!(
                answer,
                Ok(_)
                    | Err(StoreError::UniqueViolation { .. }
                        | StoreError::ForeignKeyViolation
                        | StoreError::RuleViolation(_))
            );
            assert!(ran, "{}: {:?}", statement.name(), answer.err());
            conn.rollback().await.unwrap();
        }
        let mut conn = engine.begin_write(Context::System { reason: "a test" }).await.unwrap();
        let more = vec![Value::Null; prepared.params().len() + 1];
        let error = conn.query(statement, &more).await.unwrap_err();
        assert!(matches!(error, StoreError::Internal(_)), "{}: {error:?}", statement.name());
    }
}

static EVERYTHING: Statement =
    Statement::shared("everything", "SELECT CAST(COUNT(*) AS BIGINT) FROM notes");

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % sides
    }
}

/// One tenant's transactions; answers how many of its notes were committed.
async fn live(engine: &Engine, tenant: &str, mut dice: Dice) -> i64 {
    let mut committed = 0;
    for round in 0..25 {
        let mut conn = engine.begin_write(Context::Tenant(tenant)).await.unwrap();
        // what raw SQL sees is bound by the context alone
        let seen = conn.query_one(&EVERYTHING, &[]).await.unwrap().int(0).unwrap();
        assert_eq!(seen, committed, "{tenant} in round {round}");
        let values = [tenant.into(), format!("note {round}").into(), Value::Null];
        if dice.roll(6) == 0 {
            // the caller goes away while the statement is on its way
            assert!(conn.execute(&INSERT, &values).now_or_never().is_none());
            continue;
        }
        assert_eq!(conn.execute(&INSERT, &values).await.unwrap(), 1);
        match dice.roll(4) {
            0 => drop(conn),
            1 => conn.rollback().await.unwrap(),
            _ => {
                conn.commit().await.unwrap();
                committed += 1;
            }
        }
    }
    committed
}

async fn many_tenants(reset: &str) {
    let Some(pooled) = Pooled::new(reset).await else { return };
    let engine = pooled.open().await;
    let tenants: Vec<_> =
        (0..4 * PgBouncer::SERVERS).map(|number| format!("ten_{number}")).collect();
    let lives = (7..).zip(&tenants).map(|(seed, tenant)| live(&engine, tenant, Dice(seed)));
    let lives = futures_util::future::join_all(lives);
    let committed = tokio::time::timeout(PATIENCE, lives).await.unwrap();
    for (tenant, committed) in tenants.iter().zip(&committed) {
        assert_eq!(count(&engine, tenant).await, *committed, "{tenant}");
    }
    let superuser = pooled.superuser().await;
    let all = superuser.query_one("SELECT COUNT(*) FROM keyward.notes", &[]).await.unwrap();
    assert_eq!(all.get::<_, i64>(0), committed.iter().sum::<i64>());
    let servers = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()
        AND usename = 'keyward_app'";
    let servers: i64 = superuser.query_one(servers, &[]).await.unwrap().get(0);
    assert!(servers <= i64::try_from(PgBouncer::SERVERS).unwrap(), "{servers}");
    leaves_nothing(&pooled).await;
}

/// No server remembers anything of the transactions that ran on it.
async fn leaves_nothing(pooled: &Pooled) {
    let client = raw(pooled.pooler.url()).await;
    for _ in 0..2 * PgBouncer::SERVERS {
        let left = "SELECT CONCAT_WS(' ', (SELECT COUNT(*) FROM pg_prepared_statements WHERE
                statement NOT LIKE '%CONCAT_WS%'),
            COALESCE(current_setting('keyward.context', true), ''),
            current_setting('statement_timeout'), current_setting('search_path'))";
        let row = client.query_typed_one(left, &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0).replace("  ", " "), "0 0 \"$user\", public");
    }
}

#[tokio::test]
async fn tenants_never_meet_on_a_server_that_is_never_reset() {
    many_tenants(NEVER).await;
}

#[tokio::test]
async fn tenants_never_meet_on_a_server_that_is_always_reset() {
    many_tenants(ALWAYS).await;
}

static TAKE_FENCE: Statement = Statement::shared(
    "take_fence",
    "SELECT CAST(pg_catalog.pg_advisory_xact_lock(1264941431, 2) AS TEXT)",
);
static ADVANCE: Statement = Statement::shared(
    "advance",
    "UPDATE authority SET epoch = epoch + 1 WHERE singleton = 1 RETURNING epoch",
);

#[tokio::test]
async fn fenced_writes_of_two_nodes_take_every_number_once() {
    let Some(pooled) = Pooled::new(NEVER).await else { return };
    let (one, other) = (pooled.open().await, pooled.open().await);
    let writes = (0..60).map(async |number: usize| {
        let node = if number.is_multiple_of(2) { &one } else { &other };
        let mut conn = node.begin_write(Context::Tenant(ADA)).await.unwrap();
        conn.query_one(&TAKE_FENCE, &[]).await.unwrap();
        let epoch = conn.query_one(&ADVANCE, &[]).await.unwrap().int(0).unwrap();
        if number.is_multiple_of(5) {
            drop(conn);
            return None;
        }
        conn.commit().await.unwrap();
        Some(epoch)
    });
    let writes = futures_util::future::join_all(writes);
    let epochs = tokio::time::timeout(PATIENCE, writes).await.unwrap();
    let mut epochs: Vec<i64> = epochs.into_iter().flatten().collect();
    epochs.sort_unstable();
    let first = *epochs.first().unwrap();
    assert_eq!(epochs, (first..first + 48).collect::<Vec<_>>());
    let locks = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let superuser = pooled.superuser().await;
    assert_eq!(superuser.query_one(locks, &[]).await.unwrap().get::<_, i64>(0), 0);
}

static LONG: Statement = Statement::shared(
    "long",
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000000)
        SELECT COUNT(*) FROM n",
);

#[tokio::test]
async fn who_goes_away_stops_nobody_elses_work() {
    let Some(pooled) = Pooled::new(NEVER).await else { return };
    let mut config = pooled.config();
    config.limits.statement = Duration::from_millis(400);
    let engine = Arc::new(Engine::open(&config).await.unwrap());
    let leaving = async {
        for wait in 0..8 {
            let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
            let asked = conn.query(&LONG, &[]);
            let gone = tokio::time::timeout(Duration::from_millis(5 * wait), asked).await;
            assert!(gone.is_err());
        }
    };
    let working = async {
        for number in 0..60 {
            add_note(&engine, ADA, &number.to_string()).await;
        }
    };
    let both = futures_util::future::join(leaving, working);
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 60);
    let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
    let error = conn.query(&LONG, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout { statement: "long" }), "{error:?}");
    conn.rollback().await.unwrap();
    let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
    assert_eq!(conn.query_one(&COUNT, &[ADA.into()]).await.unwrap().int(0).unwrap(), 60);
}

#[tokio::test]
async fn more_servers_than_are_remembered_cost_a_flight_and_nothing_else() {
    let Some(pooled) = Pooled::new(NEVER).await else { return };
    let engine = pooled.open().await;
    let superuser = pooled.superuser().await;
    for round in 0..8 {
        // the next transactions run on processes that nobody has seen
        let end_all = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
            WHERE datname = current_database() AND usename = 'keyward_app'";
        superuser.query(end_all, &[]).await.unwrap();
        for _ in 0..PgBouncer::SERVERS {
            assert_eq!(count(&engine, ADA).await, round);
        }
        add_note(&engine, ADA, &round.to_string()).await;
    }
}

#[tokio::test]
async fn a_pooler_without_a_free_server_holds_nobody_beyond_the_limit() {
    let Some(pooled) = Pooled::new(NEVER).await else { return };
    let mut config = pooled.config();
    config.limits.begin = Duration::from_millis(500);
    let engine = Engine::open(&config).await.unwrap();
    let held = (0..PgBouncer::SERVERS).map(|_| engine.begin_write(Context::Tenant(ADA)));
    let held = futures_util::future::try_join_all(held).await.unwrap();
    let begun = engine.begin_write(Context::Tenant(ADA));
    let error = tokio::time::timeout(PATIENCE, begun).await.unwrap().err().unwrap();
    assert!(error.is_retryable(), "{error:?}");
    drop(held);
    add_note(&engine, ADA, "after").await;
    assert_eq!(count(&engine, ADA).await, 1);
}

#[tokio::test]
async fn a_server_that_looks_for_its_caller_ends_what_nobody_waits_for() {
    let Some(database) = TestDatabase::postgres_with(probed()).await else { return };
    let superuser = raw(&database.superuser_url().unwrap()).await;
    let checks = "DO $$ BEGIN EXECUTE format('ALTER ROLE keyward_app IN DATABASE %I
        SET client_connection_check_interval = ''100ms''', current_database()); END $$";
    superuser.batch_execute(checks).await.unwrap();
    let Some(bouncer) = PgBouncer::before(&database, NEVER).await else { return };
    let pooled = Pooled { pooler: bouncer, database };
    let mut config = pooled.config();
    config.limits.statement = 2 * PATIENCE;
    let engine = Engine::open(&config).await.unwrap();
    let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
    let asked = tokio::time::timeout(Duration::from_millis(100), conn.query(&ENDLESS, &[])).await;
    assert!(asked.is_err());
    drop(conn);
    let running = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()
        AND state = 'active' AND query LIKE '%endless%' AND pid <> pg_backend_pid()";
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let ended = async {
        while superuser.query_one(running, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

static ENDLESS: Statement = Statement::shared(
    "endless",
    "WITH RECURSIVE endless (i) AS (SELECT 1 UNION ALL SELECT (i + 1) % 2 FROM endless)
        SELECT COUNT(*) FROM endless",
);
