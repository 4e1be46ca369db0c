//! What PostgreSQL itself refuses to the application role, whatever SQL reaches it.

use keyward_store::{Context, Engine, Statement, StoreError, Value};
use keyward_testkit::TestDatabase;
use tokio_postgres::{Client, NoTls};

use crate::{ADA, BOB, add_note, count, probed, refusal};

/// The statements of an attacker: called shared, so that no check above the database sees them.
static STEAL: Statement = Statement::shared("steal", "SELECT note_id FROM notes");
static CONTEXT: Statement =
    Statement::shared("context", "SELECT current_setting('keyward.context')");
static SET_CONTEXT: Statement =
    Statement::shared("set_context", "SELECT set_config('keyward.context', $1, true)");

async fn open() -> Option<(TestDatabase, Engine)> {
    let database = TestDatabase::postgres_with(probed()).await?;
    let mut config = database.config();
    config.limits.connections = 1;
    let engine = Engine::open(&config).await.unwrap();
    add_note(&engine, ADA, "ada's").await;
    add_note(&engine, BOB, "bob's").await;
    Some((database, engine))
}

pub(crate) async fn raw(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What the server says to a text; everything it ran is taken back.
async fn said(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.unwrap_err();
    client.batch_execute("ROLLBACK").await.unwrap();
    error.as_db_error().unwrap().message().to_owned()
}

/// The notes that raw SQL sees under a tenant's context.
async fn seen(engine: &Engine, context: Context<'_>) -> Vec<String> {
    let mut conn = engine.begin_read(context).await.unwrap();
    let rows = conn.query(&STEAL, &[]).await.unwrap();
    rows.iter().map(|row| row.text(0).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn raw_sql_sees_one_tenant_and_the_system_sees_all() {
    let Some((_database, engine)) = open().await else {
        return;
    };
    assert_eq!(seen(&engine, Context::Tenant(ADA)).await, ["ada's"]);
    assert_eq!(seen(&engine, Context::Tenant(BOB)).await, ["bob's"]);
    assert_eq!(seen(&engine, Context::Tenant("ten_nobody")).await, [""; 0]);
    assert_eq!(seen(&engine, Context::System { reason: "a test" }).await.len(), 2);
}

#[tokio::test]
async fn a_context_cannot_be_left_out_or_made_up() {
    let Some((database, engine)) = open().await else {
        return;
    };
    let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
    let row = conn.query_one(&CONTEXT, &[]).await.unwrap();
    let genuine = row.text(0).unwrap().to_owned();
    assert_eq!(genuine.len(), 64 + ADA.len());

    let client = raw(&database.config().url).await;
    let none = "SELECT * FROM keyward.notes";
    assert_eq!(said(&client, none).await, "no tenant context");
    let made_up = [
        ("", "no tenant context"),
        (ADA, "bad tenant context"),
        ("*", "bad tenant context"),
        // The genuine one of another backend.
        (genuine.as_str(), "bad tenant context"),
        (&format!("{}{ADA}", "0".repeat(64)), "bad tenant context"),
        (&"0".repeat(64), "bad tenant context"),
    ];
    for (context, answer) in made_up {
        for local in ["true", "false"] {
            let set = format!("SELECT set_config('keyward.context', '{context}', {local});");
            assert_eq!(said(&client, &format!("BEGIN; {set} {none}")).await, answer, "{context}");
        }
    }
    // After a transaction with a local context the setting is '', which is none either.
    client.batch_execute("BEGIN; SET LOCAL keyward.context = 'x'; COMMIT").await.unwrap();
    assert_eq!(said(&client, none).await, "no tenant context");
}

#[tokio::test]
async fn the_sum_of_one_tenant_does_not_fit_another_on_the_same_backend() {
    let Some((_database, engine)) = open().await else {
        return;
    };
    for name in [BOB, "*", ""] {
        let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
        let row = conn.query_one(&CONTEXT, &[]).await.unwrap();
        let forged = row.text(0).unwrap()[..64].to_owned() + name;
        conn.query(&SET_CONTEXT, &[forged.into()]).await.unwrap();
        let text = refusal(conn.query(&STEAL, &[]).await);
        assert!(text.contains("bad tenant context"), "{text}");
    }
}

static INSERT_ANY: Statement =
    Statement::shared("insert_any", "INSERT INTO notes (tenant_id, note_id) VALUES ($1, $2)");
static MOVE: Statement = Statement::shared("move", "UPDATE notes SET tenant_id = $1");
static MEDDLE: Statement =
    Statement::shared("meddle", "UPDATE notes SET body = 'x' WHERE tenant_id = $1");
static LINE: Statement = Statement::shared("line", "INSERT INTO note_lines VALUES ($1, $2)");

#[tokio::test]
async fn nothing_is_written_across_tenants() {
    let Some((_database, engine)) = open().await else {
        return;
    };
    let under_ada = async |statement: &'static Statement, values: &[Value]| {
        let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
        conn.execute(statement, values).await
    };
    let text = refusal(under_ada(&INSERT_ANY, &[BOB.into(), "planted".into()]).await);
    assert!(text.contains("row-level security"), "{text}");
    let text = refusal(under_ada(&MOVE, &[BOB.into()]).await);
    assert!(text.contains("row-level security"), "{text}");
    assert_eq!(under_ada(&MEDDLE, &[BOB.into()]).await.unwrap(), 0);
    let line = under_ada(&LINE, &[ADA.into(), "bob's".into()]).await;
    assert!(matches!(line, Err(StoreError::ForeignKeyViolation)), "{line:?}");
    let line = refusal(under_ada(&LINE, &[BOB.into(), "bob's".into()]).await);
    assert!(line.contains("row-level security"), "{line}");
    assert_eq!((count(&engine, ADA).await, count(&engine, BOB).await), (1, 1));
}

#[tokio::test]
async fn the_application_role_has_no_right_beyond_rows() {
    let Some((database, _engine)) = open().await else {
        return;
    };
    let client = raw(&database.config().url).await;
    for sql in [
        "TRUNCATE keyward.notes",
        "TRUNCATE keyward.audit_events",
        "UPDATE keyward.audit_events SET hash = ''",
        "DELETE FROM keyward.audit_events",
        "DELETE FROM keyward.note_lines",
        "INSERT INTO keyward.authority VALUES (2, 0, 0)",
        "DELETE FROM keyward.authority",
        "INSERT INTO keyward.schema_history VALUES (1, '', '', 0)",
        "CREATE TABLE keyward.mine (a TEXT)",
        "CREATE TEMP TABLE t (a TEXT, b TEXT,
            FOREIGN KEY (a, b) REFERENCES keyward.notes (tenant_id, note_id))",
        "CREATE TRIGGER t BEFORE INSERT ON keyward.notes
            EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TABLE keyward.notes DISABLE ROW LEVEL SECURITY",
        "DROP POLICY context ON keyward.notes",
        "SELECT * FROM keyward_private.context_key",
        "CALL keyward_private.grant_application('keyward_app')",
        "SET ROLE keyward_owner",
        "SET session_replication_role = replica",
    ] {
        let answer = said(&client, sql).await;
        let refused = ["permission denied", "must be owner", "constraints on temporary tables"];
        assert!(refused.iter().any(|text| answer.contains(text)), "{sql}: {answer}");
    }
}

static PEOPLE: Statement = Statement::shared("people", "SELECT user_id FROM users");
static ADD_PERSON: Statement = Statement::shared(
    "add_person",
    "INSERT INTO users (user_id, kind, email, name, created_at)
        VALUES ($1, 'person', $1 || '@example.com', $1, 0)",
);
static ADD_TENANT: Statement = Statement::shared(
    "add_tenant",
    "INSERT INTO tenants (tenant_id, slug, name, created_at) VALUES ($1, $1, $1, 0)",
);
static ADD_MEMBER: Statement = Statement::shared(
    "add_member",
    "INSERT INTO memberships (tenant_id, user_id, role, created_at) VALUES ($1, $2, 'admin', 0)",
);
static PROMOTE: Statement = Statement::shared("promote", "UPDATE users SET administrator = 1");

#[tokio::test]
async fn a_tenant_sees_its_members_and_changes_nobody() {
    let Some((_database, engine)) = open().await else {
        return;
    };
    let mut conn = engine.begin_write(Context::System { reason: "a test" }).await.unwrap();
    for (tenant, user) in [(ADA, "usr_ann"), (BOB, "usr_ben")] {
        conn.execute(&ADD_TENANT, &[tenant.into()]).await.unwrap();
        conn.execute(&ADD_PERSON, &[user.into()]).await.unwrap();
        conn.execute(&ADD_MEMBER, &[tenant.into(), user.into()]).await.unwrap();
    }
    conn.commit().await.unwrap();
    let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
    let rows = conn.query(&PEOPLE, &[]).await.unwrap();
    let people: Vec<_> = rows.iter().map(|row| row.text(0).unwrap()).collect();
    assert_eq!(people, ["usr_ann"]);
    assert_eq!(conn.execute(&PROMOTE, &[]).await.unwrap(), 0);
    let text = refusal(conn.execute(&ADD_PERSON, &["usr_eve".into()]).await);
    assert!(text.contains("row-level security"), "{text}");
}

static POISON_PATH: Statement =
    Statement::shared("poison_path", "SELECT set_config('search_path', 'pg_temp', false)");
static POISON_COMMIT: Statement =
    Statement::shared("poison_commit", "SELECT set_config('synchronous_commit', 'off', false)");
static SHADOW: Statement =
    Statement::shared("shadow", "CREATE TEMP TABLE notes (tenant_id TEXT, note_id TEXT)");
static SETTINGS: Statement = Statement::shared(
    "settings",
    "SELECT current_setting('search_path'), current_setting('synchronous_commit')",
);

#[tokio::test]
async fn what_one_tenant_leaves_in_the_session_does_not_reach_the_next() {
    let Some((_database, engine)) = open().await else {
        return;
    };
    let mut conn = engine.begin_write(Context::Tenant(ADA)).await.unwrap();
    conn.execute(&SHADOW, &[]).await.unwrap();
    conn.query(&POISON_PATH, &[]).await.unwrap();
    conn.query(&POISON_COMMIT, &[]).await.unwrap();
    conn.commit().await.unwrap();
    let mut conn = engine.begin_write(Context::Tenant(BOB)).await.unwrap();
    let row = conn.query_one(&SETTINGS, &[]).await.unwrap();
    let settings = (row.text(0).unwrap(), row.text(1).unwrap());
    assert_eq!(settings, ("keyward, pg_temp", "on"));
    drop(conn);
    add_note(&engine, BOB, "second").await;
    assert_eq!(seen(&engine, Context::Tenant(BOB)).await, ["bob's", "second"]);
}

static EXPLAIN: Statement = Statement::shared("explain", "EXPLAIN SELECT * FROM notes");

#[tokio::test]
async fn the_context_is_checked_once_per_statement() {
    let Some((_database, engine)) = open().await else {
        return;
    };
    let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
    let rows = conn.query(&EXPLAIN, &[]).await.unwrap();
    let plan: String = rows.iter().map(|row| row.text(0).unwrap().to_owned() + "\n").collect();
    assert_eq!(plan.matches("InitPlan").count(), 1, "{plan}");
    assert!(!plan.contains("SubPlan"), "{plan}");
}

#[tokio::test]
async fn the_schema_keeps_its_rules() {
    let Some((database, _engine)) = open().await else {
        return;
    };
    let client = raw(&database.superuser_url().unwrap()).await;
    let list = async |sql: &str| -> Vec<String> {
        client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let definers = "SELECT p.oid::regprocedure || ' ' || array_to_string(proconfig, ' ')
        FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
        WHERE prosecdef AND nspname NOT IN ('pg_catalog', 'information_schema')";
    let only = "keyward.current_tenant() search_path=pg_catalog, pg_temp";
    assert_eq!(list(definers).await, [only]);
    let leakproof = "SELECT proname::text FROM pg_proc WHERE proleakproof AND oid >= 16384";
    assert_eq!(list(leakproof).await, [""; 0]);
    // Every table is listed.
    let unlisted = "SELECT relname::text FROM pg_class
        WHERE relnamespace = 'keyward'::regnamespace AND relkind IN ('r', 'p', 'm', 'v')
        AND relname <> 'schema_history'
        AND relname NOT IN (SELECT table_name FROM keyward_private.isolated_table)";
    assert_eq!(list(unlisted).await, [""; 0]);
}
