//! What both engines promise alike.

use std::sync::Arc;

use keyward_store::{Context, Engine, MAX_ROWS, Statement, StatementKind, StoreError, Value};

use crate::{ADA, BOB, COUNT, INSERT, add_note, count, on_every_engine};

const SYSTEM: Context<'_> = Context::System { reason: "a test looks at every tenant" };

#[tokio::test]
async fn a_commit_is_seen_by_the_next_reader_and_a_drop_leaves_nothing() {
    on_every_engine(async |engine| {
        add_note(&engine, ADA, "kept").await;
        assert_eq!(count(&engine, ADA).await, 1);
        let mut dropped = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
        dropped.execute(&INSERT, &[ADA.into(), "lost".into(), 1.into()]).await.unwrap();
        drop(dropped);
        let mut taken_back = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
        taken_back.execute(&INSERT, &[ADA.into(), "lost".into(), 1.into()]).await.unwrap();
        taken_back.rollback().await.unwrap();
        assert_eq!(count(&engine, ADA).await, 1);
        add_note(&engine, ADA, "after").await;
        assert_eq!(count(&engine, ADA).await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_statement_whose_caller_went_away_leaves_nothing() {
    on_every_engine(async |engine| {
        for _ in 0..20 {
            let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
            let values = [ADA.into(), "lost".into(), 1.into()];
            let sent = Box::pin(conn.execute(&INSERT, &values));
            // Polled once, so that the statement is on its way, and then forgotten.
            let _ = futures_util::FutureExt::now_or_never(sent);
            drop(conn);
        }
        assert_eq!(count(&engine, ADA).await, 0);
        add_note(&engine, ADA, "after").await;
    })
    .await;
}

static RAISE: Statement = Statement::tenant(
    "raise_rank",
    "UPDATE notes SET rank = rank + 1 WHERE tenant_id = $1 RETURNING rank",
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_lose_no_update() {
    on_every_engine(async |engine| {
        let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
        conn.execute(&INSERT, &[ADA.into(), "counter".into(), 0.into()]).await.unwrap();
        conn.commit().await.unwrap();
        let engine = Arc::new(engine);
        let raise = async |engine: Arc<Engine>| {
            let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
            let rank = conn.query_one(&RAISE, &[ADA.into()]).await.unwrap().int(0).unwrap();
            conn.commit().await.unwrap();
            rank
        };
        let tasks: Vec<_> = (0..50).map(|_| tokio::spawn(raise(Arc::clone(&engine)))).collect();
        let mut ranks = Vec::new();
        for task in tasks {
            ranks.push(task.await.unwrap());
        }
        ranks.sort_unstable();
        assert_eq!(ranks, (1..=50).collect::<Vec<_>>());
    })
    .await;
}

static WRITE_ALL: Statement = Statement::tenant(
    "write_all",
    "INSERT INTO notes (body, bytes, rank, note_id, tenant_id) VALUES ($5, $4, $3, $2, $1)",
);
static READ_ALL: Statement = Statement::tenant(
    "read_all",
    "SELECT note_id, body, bytes, rank FROM notes WHERE note_id = $2 AND tenant_id = $1",
);

#[tokio::test]
async fn values_come_back_as_they_went_in_whatever_their_order() {
    on_every_engine(async |engine| {
        let big: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let cases = [
            ("full", Value::Int(i64::MAX), Value::from(big), Value::from("päivää 🎈 '\"$1?")),
            ("null", Value::Null, Value::Null, Value::Null),
            ("empty", Value::Int(0), Value::Blob(Vec::new()), Value::from("")),
        ];
        let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
        for (id, rank, bytes, body) in &cases {
            let values = [ADA.into(), (*id).into(), rank.clone(), bytes.clone(), body.clone()];
            conn.execute(&WRITE_ALL, &values).await.unwrap();
        }
        for (id, rank, bytes, body) in &cases {
            let row = conn.query_one(&READ_ALL, &[ADA.into(), (*id).into()]).await.unwrap();
            assert_eq!((row.text(0).unwrap(), row.len()), (*id, 4));
            assert_eq!(&Value::from(row.opt_text(1).unwrap()), body);
            assert_eq!(&Value::from(row.opt_blob(2).unwrap()), bytes);
            assert_eq!(&Value::from(row.opt_int(3).unwrap()), rank);
        }
        let none = conn.query_opt(&READ_ALL, &[ADA.into(), "none".into()]).await.unwrap();
        assert!(none.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_column_of_another_kind_names_its_statement() {
    on_every_engine(async |engine| {
        add_note(&engine, ADA, "a").await;
        let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
        let row = conn.query_one(&READ_ALL, &[ADA.into(), "a".into()]).await.unwrap();
        let said = [row.int(0).map(drop), row.text(1).map(drop), row.blob(9).map(drop)]
            .map(|result| result.unwrap_err().to_string());
        assert_eq!(said[0], "statement `read_all`, column 0: expected an integer, found text");
        assert_eq!(said[1], "statement `read_all`, column 1: expected text, found null");
        assert_eq!(said[2], "statement `read_all`, column 9: the row has only 4 columns");
    })
    .await;
}

static INSERT_LINE: Statement =
    Statement::tenant("insert_line", "INSERT INTO note_lines VALUES ($1, $2)");

#[tokio::test]
async fn errors_are_told_apart_alike() {
    on_every_engine(async |engine| {
        let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
        conn.execute(&INSERT, &[ADA.into(), "a".into(), 1.into()]).await.unwrap();
        conn.commit().await.unwrap();
        let fails = async |statement: &'static Statement, values: &[Value]| {
            let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
            let error = conn.execute(statement, values).await.unwrap_err();
            // The transaction is over on both engines, whatever the caller does now.
            let next = conn.query(&COUNT, &[ADA.into()]).await.unwrap_err();
            assert!(next.to_string().contains("the transaction is over"), "{next}");
            assert!(conn.commit().await.is_err());
            error
        };
        let unique = async |values: &[Value]| match fails(&INSERT, values).await {
            StoreError::UniqueViolation { constraint } => constraint,
            other => panic!("{other:?}"),
        };
        assert_eq!(unique(&[ADA.into(), "a".into(), 2.into()]).await, "notes_pkey");
        assert_eq!(unique(&[ADA.into(), "b".into(), 1.into()]).await, "notes_tenant_id_rank_key");
        let orphan = fails(&INSERT_LINE, &[ADA.into(), "none".into()]).await;
        assert!(matches!(orphan, StoreError::ForeignKeyViolation), "{orphan:?}");
        let null = fails(&INSERT, &[ADA.into(), Value::Null, 2.into()]).await;
        assert!(matches!(&null, StoreError::RuleViolation(c) if c == "notes.note_id"), "{null:?}");
        let negative = fails(&INSERT, &[ADA.into(), "b".into(), (-1).into()]).await;
        assert!(matches!(negative, StoreError::RuleViolation(_)), "{negative:?}");
        assert_eq!(count(&engine, ADA).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_reader_cannot_write_and_keeps_its_snapshot() {
    on_every_engine(async |engine| {
        let mut reader = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
        let seen = reader.query_one(&COUNT, &[ADA.into()]).await.unwrap().int(0).unwrap();
        add_note(&engine, ADA, "later").await;
        let again = reader.query_one(&COUNT, &[ADA.into()]).await.unwrap().int(0).unwrap();
        assert_eq!((seen, again, count(&engine, ADA).await), (0, 0, 1));
        let values = [ADA.into(), "no".into(), Value::Null];
        let error = reader.execute(&INSERT, &values).await.unwrap_err();
        assert!(matches!(error, StoreError::Internal(_)), "{error:?}");
    })
    .await;
}

static COUNT_EVERYBODY: Statement =
    Statement::system("count_everybody", "SELECT CAST(COUNT(*) AS BIGINT) FROM notes");
static EPOCH: Statement = Statement::shared("epoch", "SELECT epoch FROM authority");

#[tokio::test]
async fn a_statement_runs_only_in_a_context_it_fits() {
    on_every_engine(async |engine| {
        add_note(&engine, ADA, "a").await;
        add_note(&engine, BOB, "b").await;
        let refused = async |statement: &'static Statement, values: &[Value]| {
            let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
            conn.query(statement, values).await.unwrap_err().to_string()
        };
        let said = refused(&COUNT, &[BOB.into()]).await;
        assert_eq!(said, "statement `count_notes` does not bind the tenant's id");
        let said = refused(&COUNT_EVERYBODY, &[]).await;
        assert_eq!(said, "statement `count_everybody` needs a system context");
        let said = refused(&COUNT, &[ADA.into(), ADA.into()]).await;
        assert_eq!(said, "statement `count_notes` binds 1 values and was given 2");

        let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
        conn.query_one(&EPOCH, &[]).await.unwrap();
        let mut conn = engine.begin_read(SYSTEM).await.unwrap();
        assert_eq!(conn.query_one(&COUNT_EVERYBODY, &[]).await.unwrap().int(0).unwrap(), 2);
        conn.query_one(&EPOCH, &[]).await.unwrap();
        for tenant in ["", "*", &"x".repeat(200)] {
            assert!(engine.begin_read(Context::Tenant(tenant)).await.is_err(), "{tenant}");
        }
    })
    .await;
}

const NUMBERS_SQL: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
    WHERE i < $1) SELECT i FROM n";
static NUMBERS: Statement = Statement::shared("numbers", NUMBERS_SQL);

#[tokio::test]
async fn an_answer_is_bounded() {
    on_every_engine(async |engine| {
        let most = i64::try_from(MAX_ROWS).unwrap();
        let mut conn = engine.begin_read(SYSTEM).await.unwrap();
        assert_eq!(conn.query(&NUMBERS, &[most.into()]).await.unwrap().len(), MAX_ROWS);
        let error = conn.query(&NUMBERS, &[(most + 1).into()]).await.unwrap_err();
        assert!(error.to_string().contains("`numbers` answers too many rows"), "{error}");
        let mut conn = engine.begin_read(SYSTEM).await.unwrap();
        let error = conn.query_one(&NUMBERS, &[2.into()]).await.unwrap_err();
        assert!(error.to_string().contains("more than one row"), "{error}");
    })
    .await;
}

#[test]
fn a_statement_tells_its_name_kind_and_texts() {
    static S: Statement = Statement::by_engine("s", StatementKind::Shared, "one", "two");
    assert_eq!((S.name(), S.sqlite(), S.postgres()), ("s", "one", "two"));
    assert_eq!(S.kind(), StatementKind::Shared);
}
