//! Deadlines and queues.

use std::time::Duration;

use keyward_store::{Context, Engine, Statement, StatementKind, StoreError};
use keyward_testkit::TestDatabase;

use crate::{ADA, add_note, count, probed};

/// More numbers than any machine counts within a test.
const ENDLESS: i64 = 2_000_000_000;

#[tokio::test]
async fn a_statement_past_its_limit_is_stopped() {
    for database in TestDatabase::every_with(probed()).await {
        let mut config = database.config();
        config.limits.statement = Duration::from_millis(100);
        let engine = Engine::open(&config).await.unwrap();
        let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
        let error = conn.execute(&COUNTED, &[ENDLESS.into()]).await.unwrap_err();
        assert!(matches!(error, StoreError::Timeout { statement: "counted" }), "{error:?}");
        drop(conn);
        add_note(&engine, ADA, "after").await;
        assert_eq!(count(&engine, ADA).await, 1);
    }
}

static COUNTING: Statement = Statement::shared(
    "counting",
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
        SELECT COUNT(*) FROM n",
);
static COUNTED: Statement = Statement::shared(
    "counted",
    "UPDATE authority SET epoch = (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1
        FROM n WHERE i < $1) SELECT COUNT(*) FROM n)",
);

#[tokio::test]
async fn waiting_for_a_connection_is_bounded_in_time() {
    for database in TestDatabase::every_with(probed()).await {
        let mut config = database.config();
        config.limits.connections = 1;
        config.limits.wait = Duration::from_millis(100);
        let engine = Engine::open(&config).await.unwrap();
        let held = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
        let error = engine.begin_write(Context::Tenant(ADA)).await.err().unwrap();
        assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
        assert!(error.is_retryable());
        drop(held);
        engine.begin_write(Context::Tenant(ADA)).await.unwrap().rollback().await.unwrap();
    }
}

#[tokio::test]
async fn the_number_of_waiting_callers_is_bounded() {
    for database in TestDatabase::every_with(probed()).await {
        let mut config = database.config();
        config.limits.connections = 1;
        config.limits.waiting = 1;
        let engine = Engine::open(&config).await.unwrap();
        let held = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
        let mut first = Box::pin(engine.begin_write(Context::Tenant(ADA)));
        assert!(futures_util::FutureExt::now_or_never(&mut first).is_none());
        let error = engine.begin_write(Context::Tenant(ADA)).await.err().unwrap();
        assert!(error.to_string().contains("too many callers wait"), "{error}");
        drop(held);
        first.await.unwrap().rollback().await.unwrap();
    }
}

#[tokio::test]
async fn an_abandoned_long_statement_frees_its_connection() {
    for database in TestDatabase::every_with(probed()).await {
        let mut config = database.config();
        config.limits.connections = 1;
        config.limits.readers = 1;
        let engine = Engine::open(&config).await.unwrap();
        let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
        let values = [ENDLESS.into()];
        let endless = conn.query(&COUNTING, &values);
        let stopped = tokio::time::timeout(Duration::from_millis(50), endless).await;
        drop(stopped);
        drop(conn);
        assert_eq!(count(&engine, ADA).await, 0);
    }
}

static DUPLICATE: Statement = Statement::shared(
    "duplicate",
    "INSERT INTO authority (singleton, epoch, incarnation) VALUES (1, 0, 0)",
);
static RAISE: Statement = Statement::shared("raise", "UPDATE authority SET singleton = 2");
static BACKEND: Statement =
    Statement::by_engine("backend", StatementKind::Shared, "SELECT 1", "SELECT pg_backend_pid()");

#[tokio::test]
async fn a_refused_statement_does_not_cost_the_connection() {
    for database in TestDatabase::every_with(probed()).await {
        let mut config = database.config();
        config.limits.connections = 1;
        let engine = Engine::open(&config).await.unwrap();
        let backend = async || {
            let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
            conn.query_one(&BACKEND, &[]).await.unwrap().int(0).unwrap()
        };
        let before = backend().await;
        for statement in [&DUPLICATE, &RAISE] {
            let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
            conn.execute(statement, &[]).await.unwrap_err();
            drop(conn);
            assert_eq!(backend().await, before);
        }
    }
}
