//! The engines themselves: what both promise alike, what PostgreSQL refuses to raw SQL, and
//! what keeps a database from being opened.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod backup;
mod conformance;
mod isolation;
mod isolation_keys;
mod isolation_writes;
mod limits;
mod listen;
mod matrix;
mod opening;
mod pool_reuse;
mod pooler;
mod refusals;
mod roles;
mod silence;
mod upkeep;

use keyward_store::{Context, Engine, Migration, Statement, StoreError, migrations};
use keyward_testkit::TestDatabase;

const ADA: &str = "ten_ada";
const BOB: &str = "ten_bob";

/// A later migration that adds two tables: on PostgreSQL, each costs one more line.
const PROBE: Migration = Migration {
    name: "V9000__probe",
    sqlite: "CREATE TABLE notes (tenant_id TEXT NOT NULL, note_id TEXT NOT NULL, body TEXT,
            bytes BLOB, rank INTEGER CHECK (rank >= 0), PRIMARY KEY (tenant_id, note_id),
            UNIQUE (tenant_id, rank)) STRICT;
        CREATE TABLE note_lines (tenant_id TEXT NOT NULL, note_id TEXT NOT NULL,
            FOREIGN KEY (tenant_id, note_id) REFERENCES notes (tenant_id, note_id)) STRICT;",
    postgres: "CREATE TABLE notes (tenant_id TEXT NOT NULL, note_id TEXT NOT NULL, body TEXT,
            bytes BYTEA, rank BIGINT CHECK (rank >= 0), PRIMARY KEY (tenant_id, note_id),
            UNIQUE (tenant_id, rank));
        CREATE TABLE note_lines (tenant_id TEXT NOT NULL, note_id TEXT NOT NULL,
            FOREIGN KEY (tenant_id, note_id) REFERENCES notes (tenant_id, note_id));
        CALL keyward_private.isolate('notes', 'tenant');
        CALL keyward_private.isolate('note_lines', 'append_only');",
};

static INSERT: Statement = Statement::tenant(
    "insert_note",
    "INSERT INTO notes (tenant_id, note_id, rank) VALUES ($1, $2, $3)",
);
static COUNT: Statement = Statement::tenant(
    "count_notes",
    "SELECT CAST(COUNT(*) AS BIGINT) FROM notes WHERE tenant_id = $1",
);

fn probed() -> Vec<Migration> {
    let mut all = migrations();
    all.push(PROBE);
    all
}

/// Runs a test on a fresh database of every engine at hand.
async fn on_every_engine(test: impl AsyncFn(Engine)) {
    for database in TestDatabase::every_with(probed()).await {
        eprintln!("on {}", database.engine_name());
        test(Engine::open(&database.config()).await.unwrap()).await;
    }
}

/// Adds a committed note without a rank.
async fn add_note(engine: &Engine, tenant: &str, note: &str) {
    let mut conn = engine.begin_write(Context::Tenant(tenant)).await.unwrap();
    let null = keyward_store::Value::Null;
    assert_eq!(conn.execute(&INSERT, &[tenant.into(), note.into(), null]).await.unwrap(), 1);
    conn.commit().await.unwrap();
}

/// The tenant's committed notes.
async fn count(engine: &Engine, tenant: &str) -> i64 {
    let mut conn = engine.begin_read(Context::Tenant(tenant)).await.unwrap();
    conn.query_one(&COUNT, &[tenant.into()]).await.unwrap().int(0).unwrap()
}

/// The reason of a refusal.
fn refusal<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Refused(text)) => text,
        Err(other) => panic!("not a refusal: {other:?}"),
        Ok(_) => panic!("not refused"),
    }
}
