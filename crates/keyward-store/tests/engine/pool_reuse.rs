//! A connection serves one tenant after the other, however each transaction ended: nothing of one
//! reaches the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::future::join_all;
use keyward_store::{Conn, Context, Engine, Statement, StoreError, Value};
use keyward_testkit::TestDatabase;

use crate::isolation::raw;
use crate::{ADA, BOB, add_note, probed};

/// Connections of the pool.
const CONNECTIONS: usize = 5;
/// Tenants that share it.
const TENANTS: u64 = 50;
/// Callers at once: more than connections, so that somebody always waits for one.
const CALLERS: usize = 12;
/// Transactions in all, unless `KEYWARD_TEST_POOLED_TRANSACTIONS` says how many.
const TRANSACTIONS: u64 = 10_000;

static PUT: Statement = Statement::tenant(
    "put_note",
    "INSERT INTO notes (tenant_id, note_id, body) VALUES ($1, $2, $1)
     ON CONFLICT (tenant_id, note_id) DO UPDATE SET body = excluded.body",
);
// These name no tenant: only the database keeps tenants apart in them.
static SEE: Statement = Statement::shared("see_notes", "SELECT tenant_id, body FROM notes");
static SIGN: Statement = Statement::shared("sign_notes", "UPDATE notes SET body = $1");
static REMOVE: Statement =
    Statement::shared("remove_notes", "DELETE FROM notes WHERE note_id = $1");
static TAKE: Statement = Statement::shared("take_notes", "UPDATE notes SET tenant_id = $1");
static BREAK: Statement = Statement::tenant(
    "break_a_rule",
    "INSERT INTO notes (tenant_id, note_id, rank) VALUES ($1, 'broken', -1)",
);

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Committed,
    RolledBack,
    Dropped,
    /// A statement failed, and the caller goes away.
    Failed,
    /// A statement failed, and the caller commits all the same.
    FailedCommitted,
    /// The caller goes away while a statement runs.
    Cancelled,
    /// The task that holds the transaction panics.
    Panicked,
}

/// The same "random" numbers in every run.
fn dice(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Whether the transaction met another one of the same tenant, which is no news.
fn collided(error: &StoreError) -> bool {
    error.is_retryable()
}

/// Sees all there is to see and counts what is somebody else's.
async fn foreign(conn: &mut Conn, tenant: &str) -> Result<usize, StoreError> {
    let rows = conn.query(&SEE, &[]).await?;
    let theirs =
        |row: &keyward_store::Row| row.text(0).unwrap() != tenant || row.text(1).unwrap() != tenant;
    Ok(rows.iter().filter(|row| theirs(row)).count())
}

/// One transaction of a tenant; how many foreign rows it met.
async fn transact(engine: &Engine, number: u64) -> Result<usize, StoreError> {
    let dice = dice(number);
    let tenant = format!("ten_{:02}", dice % TENANTS);
    let note = Value::from(format!("note_{}", (dice >> 8) % 4));
    let end = match (dice >> 16) % 100 {
        0..60 => End::Committed,
        60..70 => End::RolledBack,
        70..80 => End::Dropped,
        80..88 => End::Failed,
        88..96 => End::FailedCommitted,
        96..98 => End::Cancelled,
        _ => End::Panicked,
    };
    let context = Context::Tenant(&tenant);
    if (dice >> 24).is_multiple_of(3) {
        let mut conn = engine.begin_read(context).await?;
        let met = foreign(&mut conn, &tenant).await?;
        if end == End::Committed {
            conn.commit().await?;
        }
        return Ok(met);
    }
    let mut conn = engine.begin_write(context).await?;
    conn.execute(&PUT, &[tenant.as_str().into(), note.clone()]).await?;
    match (dice >> 32) % 8 {
        0 => conn.execute(&SIGN, &[tenant.as_str().into()]).await?,
        1 => conn.execute(&REMOVE, &[note]).await?,
        _ => 0,
    };
    let met = foreign(&mut conn, &tenant).await?;
    finish(conn, &tenant, end, dice >> 40).await?;
    Ok(met)
}

async fn finish(mut conn: Conn, tenant: &str, end: End, dice: u64) -> Result<(), StoreError> {
    match end {
        End::Committed => conn.commit().await?,
        End::RolledBack => conn.rollback().await?,
        End::Dropped => drop(conn),
        End::Failed | End::FailedCommitted => {
            let failed = if dice.is_multiple_of(2) {
                conn.execute(&BREAK, &[tenant.into()]).await
            } else {
                conn.execute(&TAKE, &["ten_nobody".into()]).await
            };
            // There may be nothing to take.
            assert!(!matches!(failed, Ok(1..)));
            let failed = failed.is_err();
            if end == End::FailedCommitted {
                assert_eq!(conn.commit().await.is_err(), failed);
            }
        }
        End::Cancelled => {
            let turns = async {
                for _ in 0..dice % 5 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                () = turns => {}
                answer = foreign(&mut conn, tenant) => assert_eq!(answer?, 0),
            }
        }
        End::Panicked => {
            let holder = tokio::spawn(async move {
                let _held = conn;
                // As a panic, without its text on the screen.
                std::panic::resume_unwind(Box::new("a bug"));
            });
            assert!(holder.await.unwrap_err().is_panic());
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the test run is configured by its environment")]
fn transactions() -> u64 {
    let asked = std::env::var("KEYWARD_TEST_POOLED_TRANSACTIONS").ok();
    asked.map_or(TRANSACTIONS, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_meets_another_on_a_pooled_connection() {
    let Some(database) = TestDatabase::postgres_with(probed()).await else { return };
    let mut config = database.config();
    config.limits.connections = CONNECTIONS;
    let engine = Arc::new(Engine::open(&config).await.unwrap());
    let (next, all) = (Arc::new(AtomicU64::new(0)), transactions());
    let (met, collisions) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..CALLERS).map(|_| {
        let (engine, next) = (Arc::clone(&engine), Arc::clone(&next));
        let (met, collisions) = (Arc::clone(&met), Arc::clone(&collisions));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= all {
                    return;
                }
                match transact(&engine, number).await {
                    Ok(foreign) => met.fetch_add(foreign, Ordering::Relaxed),
                    Err(error) if collided(&error) => collisions.fetch_add(1, Ordering::Relaxed),
                    Err(error) => panic!("transaction {number}: {error:?}"),
                };
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    assert_eq!(met.load(Ordering::Relaxed), 0, "foreign rows were met");
    let collisions = collisions.load(Ordering::Relaxed) as u64;
    assert!(collisions * 20 < all, "{collisions} of {all} collided");
    let superuser = raw(&database.superuser_url().unwrap()).await;
    let mixed = "SELECT count(*) FILTER (WHERE body <> tenant_id), count(DISTINCT tenant_id)
        FROM keyward.notes";
    let row = superuser.query_one(mixed, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 50));
}

// What somebody leaves in the session for the next tenant to step into: the statement that binds
// the context, replaced by one that also keeps the context.
static SET_TRAP: Statement = Statement::shared(
    "set_trap",
    "DO $trap$ DECLARE found RECORD; BEGIN
        FOR found IN SELECT name, statement, parameter_types FROM pg_prepared_statements
            WHERE statement LIKE 'SELECT%keyward.context%' AND name <> '' LOOP
            EXECUTE format('DEALLOCATE %I', found.name);
            EXECUTE format('PREPARE %I (%s) AS SELECT pg_backend_pid(),
                set_config(''keyward.context'', ($2)[1], true),
                set_config(''search_path'', ''keyward, pg_temp'', true),
                $3, $4, $5 || $6 || $1::text,
                set_config(''trap.contexts'', concat_ws(''|'',
                    nullif(current_setting(''trap.contexts'', true), ''''), ($2)[1]), false)',
                found.name,
                array_to_string(found.parameter_types::text[], ', '));
        END LOOP;
    END $trap$",
);
static REPLACE: Statement = Statement::shared(
    "replace",
    "DO $trap$ DECLARE found RECORD; BEGIN
        CREATE TEMP TABLE loot (tenant_id TEXT, body TEXT);
        FOR found IN SELECT name FROM pg_prepared_statements
            WHERE statement = 'SELECT tenant_id, body FROM notes' LOOP
            EXECUTE format('DEALLOCATE %I', found.name);
            EXECUTE format('PREPARE %I AS WITH seen AS (SELECT tenant_id, note_id FROM
                keyward.notes), kept AS (INSERT INTO pg_temp.loot TABLE seen)
                SELECT tenant_id, note_id FROM seen', found.name);
        END LOOP;
    END $trap$",
);
static SPRING_TRAP: Statement = Statement::shared(
    "spring_trap",
    "SELECT set_config('keyward.context', caught, true)
     FROM regexp_split_to_table(current_setting('trap.contexts', true), '[|]') AS caught
     WHERE caught LIKE '%ten_bob' LIMIT 1",
);
static LOOT: Statement = Statement::shared("loot", "SELECT tenant_id, body FROM pg_temp.loot");
static ENCODE: Statement =
    Statement::shared("encode", "SELECT set_config('client_encoding', 'LATIN1', false)");

static LENGTH: Statement =
    Statement::shared("length", "SELECT CAST(min(length(note_id)) AS BIGINT) FROM notes");

async fn one_connection() -> Option<(TestDatabase, Engine)> {
    let database = TestDatabase::postgres_with(probed()).await?;
    let mut config = database.config();
    config.limits.connections = 1;
    let engine = Engine::open(&config).await.unwrap();
    add_note(&engine, ADA, "ada's").await;
    add_note(&engine, BOB, "bob's").await;
    Some((database, engine))
}

#[tokio::test]
async fn a_context_cannot_be_caught_by_what_is_left_in_the_session() {
    let Some((_database, engine)) = one_connection().await else { return };
    let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
    conn.execute(&SET_TRAP, &[]).await.unwrap();
    conn.commit().await.unwrap();
    // BOB may be refused once; then the connection is another one.
    if let Ok(mut conn) = engine.begin_read(Context::Tenant(BOB)).await {
        let _ = conn.query(&SEE, &[]).await;
        conn.commit().await.unwrap();
    }
    let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
    let _ = conn.query(&SPRING_TRAP, &[]).await;
    let seen = conn.query(&SEE, &[]).await.unwrap();
    assert_eq!(seen.iter().map(|row| row.text(0).unwrap()).collect::<Vec<_>>(), [ADA]);
}

#[tokio::test]
async fn a_statement_cannot_be_replaced_for_the_next_tenant() {
    let Some((_database, engine)) = one_connection().await else { return };
    let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
    conn.query(&SEE, &[]).await.unwrap();
    conn.execute(&REPLACE, &[]).await.unwrap();
    conn.commit().await.unwrap();
    if let Ok(mut conn) = engine.begin_write(Context::Tenant(BOB)).await {
        let _ = conn.query(&SEE, &[]).await;
        let _ = conn.commit().await;
    }
    let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
    let loot = conn.query(&LOOT, &[]).await.unwrap_or_default();
    assert_eq!(loot.len(), 0);
}

#[tokio::test]
async fn the_encoding_of_one_tenant_does_not_garble_the_next() {
    let Some((_database, engine)) = one_connection().await else { return };
    let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
    conn.query(&ENCODE, &[]).await.unwrap();
    conn.commit().await.unwrap();
    add_note(&engine, BOB, "é").await;
    let mut conn = engine.begin_read(Context::Tenant(BOB)).await.unwrap();
    assert_eq!(conn.query_one(&LENGTH, &[]).await.unwrap().int(0).unwrap(), 1);
}
