//! Every statement is prepared on every engine, binds its tenant, and has a plan to review.

use std::collections::BTreeMap;

use keyward_store::{Statement, StatementKind, Store, all_statements};
use keyward_testkit::TestDatabase;

use super::fixture::CountingClock;

/// Tables whose rows belong to one tenant.
const TENANT_TABLES: [&str; 7] = [
    "tenants",
    "memberships",
    "api_keys",
    "audit_heads",
    "audit_events",
    "changes",
    "idempotency_records",
];

async fn migrated(database: &TestDatabase) {
    let clock = std::sync::Arc::new(CountingClock::default());
    let store = Store::open(&database.config(), clock).await.unwrap();
    drop(store);
}

#[test]
fn names_are_unique() {
    let mut names: BTreeMap<&str, u32> = BTreeMap::new();
    for statement in all_statements() {
        *names.entry(statement.name()).or_default() += 1;
    }
    names.retain(|_, times| *times > 1);
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn statements_on_tenant_tables_bind_the_tenant_or_say_that_they_cross_tenants() {
    for statement in all_statements() {
        for sql in [statement.sqlite(), statement.postgres()] {
            let touched = TENANT_TABLES.iter().any(|table| mentions(sql, table));
            let bound = sql.contains("tenant_id = $1") || inserts_first(sql);
            match statement.kind() {
                StatementKind::Tenant => assert!(bound, "{} binds no tenant", statement.name()),
                StatementKind::Shared => assert!(!touched, "{} is not shared", statement.name()),
                StatementKind::System => {}
            }
        }
    }
}

/// Whether the statement inserts `$1` as `tenant_id`, from a list of values or from a selection.
fn inserts_first(sql: &str) -> bool {
    let Some((_, rest)) = sql.split_once("(tenant_id, ") else { return false };
    let values = rest.split("VALUES").nth(1).is_some_and(|values| values.contains("($1"));
    let selected = rest.split_once("SELECT ").map(|(_, selected)| selected);
    let first =
        |selected: &str| selected.starts_with("$1, ") || selected.starts_with("CAST($1 AS TEXT), ");
    values || selected.is_some_and(first)
}

fn mentions(sql: &str, table: &str) -> bool {
    sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == table)
}

#[tokio::test]
async fn sqlite_prepares_every_statement_and_shows_its_plan() {
    let database = TestDatabase::sqlite();
    migrated(&database).await;
    let conn = rusqlite::Connection::open(database.data_dir().join("keyward.db")).unwrap();
    let mut plans = String::new();
    let mut statements: Vec<&Statement> = all_statements().collect();
    statements.sort_by_key(|statement| statement.name());
    for statement in statements {
        if let Err(error) = conn.prepare(statement.sqlite()) {
            panic!("{}: {error}", statement.name());
        }
        plans.push_str(statement.name().trim_start_matches("keyward_store::sql::"));
        plans.push('\n');
        for line in plan(&conn, statement.sqlite()) {
            plans.extend(["    ", &line, "\n"]);
        }
    }
    insta::assert_snapshot!("sqlite_plans", plans);
}

fn plan(conn: &rusqlite::Connection, sql: &str) -> Vec<String> {
    let mut explained = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let nulls = vec![rusqlite::types::Null; explained.parameter_count()];
    let rows = explained.query_map(rusqlite::params_from_iter(nulls), |row| row.get(3)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn postgres_prepares_every_statement() {
    let Some(database) = TestDatabase::postgres().await else { return };
    migrated(&database).await;
    let url = database.superuser_url().unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET search_path TO keyward").await.unwrap();
    for statement in all_statements() {
        let prepared = client.prepare(statement.postgres()).await;
        let prepared = prepared.unwrap_or_else(|e| panic!("{}: {e:?}", statement.name()));
        let carried = ["int8", "text", "bytea"];
        for kind in prepared.params() {
            assert!(carried.contains(&kind.name()), "{}: {kind}", statement.name());
        }
        for column in prepared.columns() {
            let kind = column.type_().name();
            assert!(carried.contains(&kind), "{}: {} {kind}", statement.name(), column.name());
        }
    }
}
