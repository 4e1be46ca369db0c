//! The database roles of control, gateway and worker nodes: what each can do is what it needs.

use std::collections::{BTreeMap, BTreeSet};

use keyward_store::{
    Context, DatabaseRole, Engine, Statement, StoreConfig, StoreError, StoreRoles, Value,
    all_statements, check_role, migrations,
};
use keyward_testkit::TestDatabase;
use tokio_postgres::Client;

use crate::isolation::raw;
use crate::{probed, refusal};

/// What a gateway node runs.
const OF_A_GATEWAY: &[&str] = &[
    "admin_tokens::ALL_AUTHORITY",
    "admin_tokens::AUTHORITY",
    "authority::KEY",
    "authority::KEYS",
    "authority::KEYS_AMONG",
    "authority::MEMBER",
    "authority::MEMBERS",
    "authority::TENANT",
    "authority::TENANTS",
    "changes::ADOPT_TIMELINE",
    "changes::BEGIN_INCARNATION",
    "changes::EXCLUDE_RENEWALS",
    "changes::READ_CHANGES",
    "changes::READ_EPOCH",
    "keys::EXPOSE",
    "keys::TOUCH",
    "nodes::ACKNOWLEDGE",
    "nodes::COMMIT_DURABLY",
    "nodes::DEREGISTER",
    "nodes::FORGET",
    "nodes::LIST",
    "nodes::READ_HISTORY",
    "nodes::REGISTER",
    "nodes::RENEW",
    "nodes::SHARE_CHANGES",
];

/// What a gateway's role could run besides: it asks for nothing that the role has not anyway.
const WITHIN_A_GATEWAY: &[&str] = &[
    "changes::FIND_ANY_CHANGE",
    "changes::FIND_CHANGE",
    "changes::HINT",
    "members::ROLE",
    "nodes::SHOW",
    "restore::CHANGES",
    "restore::END_OF_BATCH",
];

/// What a gateway that lists audit events runs besides, and what that makes possible.
const OF_AN_AUDITING_GATEWAY: &[&str] = &["audit::FIND", "audit::FOLLOWING", "audit::PAGE"];

/// What a worker node runs.
const OF_A_WORKER: &[&str] = &[
    "changes::READ_EPOCH",
    "idempotency::PURGE",
    "keys::TOUCH",
    "nodes::FORGET",
    "nodes::LIST",
    "nodes::READ_HISTORY",
];

/// What a worker's role could run besides.
const WITHIN_A_WORKER: &[&str] = &[
    "changes::EXCLUDE_RENEWALS",
    "changes::HINT",
    "nodes::ACKNOWLEDGE",
    "nodes::COMMIT_DURABLY",
    "nodes::DEREGISTER",
    "nodes::REGISTER",
    "nodes::RENEW",
    "nodes::SHARE_CHANGES",
    "nodes::SHOW",
    "restore::END_OF_BATCH",
];

/// All that a gateway can do to tables, written out: a column more is a decision.
const GATEWAY_CAN: &str = "\
admin_tokens SELECT admin_token_id expires_at hash name pepper_version revoked_at role scopes \
tenant_id
api_keys SELECT environment expires_at exposed_at hash ip_allowlist key_id last_used_at name \
owner_id pepper_version revoked_at scopes suspect_since tenant_id
api_keys UPDATE exposed_at exposed_by last_used_agent last_used_at last_used_ip
authority SELECT *
authority UPDATE incarnation timeline
changes SELECT *
memberships SELECT offboarded_at role tenant_id user_id
nodes DELETE *
nodes INSERT *
nodes SELECT *
nodes UPDATE *
schema_history SELECT *
tenants SELECT slug suspended_at tenant_id
";

/// The same for a worker.
const WORKER_CAN: &str = "\
api_keys SELECT key_id last_used_at tenant_id
api_keys UPDATE last_used_agent last_used_at last_used_ip
authority SELECT *
idempotency_records DELETE *
idempotency_records SELECT expires_at idempotency_key operation principal tenant_id
nodes DELETE *
nodes INSERT *
nodes SELECT *
nodes UPDATE *
schema_history SELECT *
";

fn short(statement: &Statement) -> &'static str {
    statement.name().trim_start_matches("keyward_store::sql::")
}

/// A value for each parameter of every statement, by the statement's name.
async fn values(superuser: &Client) -> BTreeMap<&'static str, Vec<Value>> {
    superuser.batch_execute("SET search_path = keyward").await.unwrap();
    let mut all = BTreeMap::new();
    for statement in all_statements() {
        let prepared = superuser.prepare(statement.postgres()).await.unwrap();
        let value = |kind: &tokio_postgres::types::Type| match kind.name() {
            "int8" | "int4" => Value::Int(1),
            "bytea" => Value::Blob(vec![0; 32]),
            // Also JSON, which the statements that take some want.
            _ => Value::Text("[]".to_owned()),
        };
        all.insert(short(statement), prepared.params().iter().map(value).collect());
    }
    all
}

/// Runs a statement as a node would and takes it back; answers whether the role may.
async fn may(engine: &Engine, statement: &'static Statement, values: &[Value]) -> bool {
    let context = Context::System { reason: "a test" };
    let mut conn = engine.begin_write(context).await.unwrap();
    match conn.query(statement, values).await {
        Ok(_) => {
            conn.rollback().await.unwrap();
            true
        }
        Err(StoreError::Refused(text)) if text.contains("permission denied") => false,
        // Rows that the made-up values do not fit.
        Err(
            StoreError::ForeignKeyViolation
            | StoreError::RuleViolation(_)
            | StoreError::UniqueViolation { .. },
        ) => true,
        Err(error) => panic!("{}: {error:?}", statement.name()),
    }
}

async fn possible(
    engine: &Engine,
    values: &BTreeMap<&'static str, Vec<Value>>,
) -> BTreeSet<&'static str> {
    let mut possible = BTreeSet::new();
    for statement in all_statements() {
        if may(engine, statement, &values[short(statement)]).await {
            possible.insert(short(statement));
        }
    }
    possible
}

fn set(lists: &[&[&'static str]]) -> BTreeSet<&'static str> {
    lists.iter().copied().flatten().copied().collect()
}

#[tokio::test]
async fn each_role_can_run_the_statements_of_its_node_and_no_other() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let superuser = raw(&database.superuser_url().unwrap()).await;
    let values = values(&superuser).await;
    let every: BTreeSet<_> = all_statements().map(short).collect();
    for (kind, wanted) in [
        (DatabaseRole::Control, every),
        (DatabaseRole::Gateway, set(&[OF_A_GATEWAY, WITHIN_A_GATEWAY])),
        (DatabaseRole::Worker, set(&[OF_A_WORKER, WITHIN_A_WORKER])),
    ] {
        let engine = Engine::open(&database.config_of(kind)).await.unwrap();
        assert_eq!(possible(&engine, &values).await, wanted, "{kind:?}");
    }

    let mut config = auditing(&database, Some(true));
    Engine::open(&config).await.unwrap().close().await;
    config = StoreConfig { roles: config.roles, ..database.config_of(DatabaseRole::Gateway) };
    let engine = Engine::open(&config).await.unwrap();
    let wanted = set(&[OF_A_GATEWAY, WITHIN_A_GATEWAY, OF_AN_AUDITING_GATEWAY]);
    assert_eq!(possible(&engine, &values).await, wanted);
}

/// A run of the migrations by a gateway node whose product lists audit events, or not.
fn auditing(database: &TestDatabase, audit: Option<bool>) -> StoreConfig {
    let mut config = database.config_of(DatabaseRole::Gateway);
    config.migrate_url = database.config().migrate_url;
    config.roles.audit = audit;
    config
}

#[tokio::test]
async fn a_gateway_needs_every_column_that_it_has() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let superuser = raw(&database.superuser_url().unwrap()).await;
    let values = values(&superuser).await;
    for (kind, list, needed) in [
        (DatabaseRole::Gateway, GATEWAY_CAN, OF_A_GATEWAY),
        (DatabaseRole::Worker, WORKER_CAN, OF_A_WORKER),
    ] {
        let engine = Engine::open(&database.config_of(kind)).await.unwrap();
        let role = format!("keyward_{}", kind.as_str());
        for line in list.lines() {
            let mut words = line.split(' ');
            let (table, privilege) = (words.next().unwrap(), words.next().unwrap());
            for column in words.filter(|column| *column != "*") {
                let right = format!("{privilege} ({column}) ON keyward.{table}");
                superuser.batch_execute(&format!("REVOKE {right} FROM {role}")).await.unwrap();
                let mut refused = false;
                for statement in all_statements().filter(|s| needed.contains(&short(s))) {
                    refused |= !may(&engine, statement, &values[short(statement)]).await;
                }
                assert!(refused, "no statement of a {} needs {right}", kind.as_str());
                superuser.batch_execute(&format!("GRANT {right} TO {role}")).await.unwrap();
            }
        }
    }
}

/// What a role can really do, tried on every table and column of the catalogue.
async fn can(superuser: &Client, client: &Client) -> String {
    let columns = "SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attname)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'keyward'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
            AND NOT a.attisdropped
        GROUP BY c.relname ORDER BY c.relname";
    let mut lines = Vec::new();
    for row in superuser.query(columns, &[]).await.unwrap() {
        let (table, columns): (String, Vec<String>) = (row.get(0), row.get(1));
        for privilege in ["DELETE", "INSERT", "SELECT", "TRUNCATE", "UPDATE"] {
            let mut held = Vec::new();
            for column in &columns {
                let sql = match privilege {
                    "DELETE" => format!("DELETE FROM keyward.{table} WHERE false"),
                    "INSERT" => format!("INSERT INTO keyward.{table} ({column}) VALUES (NULL)"),
                    "SELECT" => format!("SELECT {column} FROM keyward.{table} WHERE false"),
                    "TRUNCATE" => format!("TRUNCATE keyward.{table}"),
                    _ => format!("UPDATE keyward.{table} SET {column} = NULL WHERE false"),
                };
                if is_permitted(client, &sql).await {
                    held.push(column.as_str());
                }
            }
            let text = if held.len() == columns.len() { "*".to_owned() } else { held.join(" ") };
            if !held.is_empty() {
                lines.push(format!("{table} {privilege} {text}\n"));
            }
        }
    }
    lines.concat()
}

async fn is_permitted(client: &Client, sql: &str) -> bool {
    let answer = client.batch_execute(&format!("BEGIN; {sql}")).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    let denied = |error: &tokio_postgres::Error| {
        error.as_db_error().unwrap().message().starts_with("permission denied")
    };
    !answer.as_ref().is_err_and(denied)
}

#[tokio::test]
async fn a_narrow_role_can_do_what_is_written_here_and_nothing_else() {
    // With tables of a later migration.
    let Some(database) = TestDatabase::postgres_with(probed()).await else {
        return;
    };
    let superuser = raw(&database.superuser_url().unwrap()).await;
    for (role, list) in [("keyward_gateway", GATEWAY_CAN), ("keyward_worker", WORKER_CAN)] {
        let client = raw(&database.url_of_role(role).unwrap()).await;
        assert_eq!(can(&superuser, &client).await, list, "{role}");
        for sql in [
            "CREATE TABLE keyward.mine (a TEXT)",
            "LOCK TABLE keyward.api_keys IN ACCESS EXCLUSIVE MODE",
            "SELECT * FROM keyward_private.context_key",
            "CALL keyward_private.grant_control('keyward_gateway')",
            "CALL keyward_private.grant_rights('keyward_gateway', '[]')",
            "CALL keyward_private.withdraw('keyward_control')",
            "SET ROLE keyward_control",
            "COPY keyward.users TO STDOUT",
            "SELECT api_keys FROM keyward.api_keys",
            "UPDATE keyward.authority SET epoch = epoch + 1",
        ] {
            assert!(!is_permitted(&client, sql).await, "{role}: {sql}");
        }
    }
}

#[tokio::test]
async fn a_start_knows_every_table_that_a_control_node_needs() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let superuser = raw(&database.superuser_url().unwrap()).await;
    let tables = "SELECT table_name::text FROM keyward_private.isolated_table ORDER BY 1";
    for row in superuser.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let sql = |verb: &str, to: &str| format!("{verb} SELECT ON keyward.{table} {to}");
        let (take, give) = (sql("REVOKE", "FROM"), sql("GRANT", "TO"));
        superuser.batch_execute(&format!("{take} keyward_control")).await.unwrap();
        let text = refusal(Engine::open(&database.config_of(DatabaseRole::Control)).await);
        let fix = format!("run `{give} keyward_control`");
        assert!(text.contains(&fix), "add {table} to CONTROL in postgres_rights.rs: {text}");
        superuser.batch_execute(&format!("{give} keyward_control")).await.unwrap();
    }
}

#[tokio::test]
async fn a_migration_run_gives_exactly_what_is_needed_however_often() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let superuser = raw(&database.superuser_url().unwrap()).await;
    superuser
        .batch_execute(
            "GRANT ALL ON ALL TABLES IN SCHEMA keyward TO keyward_gateway WITH GRANT OPTION;
            GRANT ALL ON ALL TABLES IN SCHEMA keyward_private TO keyward_gateway;
            GRANT ALL ON SCHEMA keyward, keyward_private TO keyward_gateway;
            GRANT UPDATE (name) ON keyward.tenants TO PUBLIC;
            REVOKE ALL ON keyward.nodes FROM keyward_worker",
        )
        .await
        .unwrap();
    let gateway = raw(&database.url_of_role("keyward_gateway").unwrap()).await;
    gateway.batch_execute("GRANT SELECT ON keyward.users TO keyward_worker").await.unwrap();
    refusal(Engine::open(&database.config_of(DatabaseRole::Gateway)).await);
    // A later migration runs with it, whose tables are no business of a gateway.
    let mut config = database.config_of(DatabaseRole::Control);
    config.migrate_url = database.config().migrate_url;
    config.migrations = probed();
    for _ in 0..2 {
        Engine::open(&config).await.unwrap().close().await;
        for (role, list) in [("keyward_gateway", GATEWAY_CAN), ("keyward_worker", WORKER_CAN)] {
            let client = raw(&database.url_of_role(role).unwrap()).await;
            assert_eq!(can(&superuser, &client).await, list, "{role}");
        }
    }
    for kind in [DatabaseRole::Control, DatabaseRole::Gateway, DatabaseRole::Worker] {
        let config = StoreConfig { migrations: probed(), ..database.config_of(kind) };
        Engine::open(&config).await.unwrap().close().await;
        let checks = check_role(&config).await.unwrap();
        assert!(checks.iter().all(|check| check.ok && check.fix.is_none()), "{checks:?}");
        assert_eq!(checks.len(), 16);
    }
}

#[tokio::test]
async fn the_right_to_read_audit_events_follows_the_product() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let client = raw(&database.url_of_role("keyward_gateway").unwrap()).await;
    let sql = "SELECT hash FROM keyward.audit_events WHERE false";
    for (audit, readable) in [(Some(true), true), (None, true), (Some(false), false), (None, false)]
    {
        Engine::open(&auditing(&database, audit)).await.unwrap().close().await;
        assert_eq!(is_permitted(&client, sql).await, readable, "{audit:?}");
    }
    let config = StoreConfig { migrate_url: None, ..auditing(&database, Some(true)) };
    let text = refusal(Engine::open(&config).await);
    assert!(
        text.contains("run `GRANT SELECT ON keyward.audit_events TO keyward_gateway`"),
        "{text}"
    );
}

#[tokio::test]
async fn a_node_is_told_when_its_role_is_not_its_own() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    // More than it needs serves, and the doctor says what would be better.
    let mut config = database.config_of(DatabaseRole::Gateway);
    config.url = database.url_of_role("keyward_control").unwrap().into();
    Engine::open(&config).await.unwrap().close().await;
    let checks = check_role(&config).await.unwrap();
    assert!(checks.iter().all(|check| check.ok), "{checks:?}");
    let role = checks.first().unwrap();
    assert_eq!(
        role.found,
        "keyward_control, with the rights of: control; the node needs those of: gateway"
    );
    let advice = role.fix.as_deref().unwrap();
    assert!(advice.contains("[store.roles] gateway = \"keyward_gateway\""), "{advice}");

    // Less does not.
    for (role, kind) in [("keyward_gateway", "gateway"), ("keyward_worker", "worker")] {
        let mut config = database.config_of(DatabaseRole::Control);
        config.url = database.url_of_role(role).unwrap().into();
        let text = refusal(Engine::open(&config).await);
        let said = format!("it has the rights of a {kind} and this node needs those of a control");
        assert!(text.contains(&said), "{text}");
        assert!(text.contains("name the control role in the store's address"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        // Nor does a run of the migrations make it so by accident.
        config.migrate_url = database.config().migrate_url;
        refusal(Engine::open(&config).await);
        config.roles = StoreRoles::default();
        refusal(Engine::open(&config).await);
    }
    Engine::open(&database.config_of(DatabaseRole::Gateway)).await.unwrap().close().await;
}

#[tokio::test]
async fn the_role_of_an_older_deployment_goes_on_as_control() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let superuser = raw(&database.superuser_url().unwrap()).await;
    // As the release before roles left it.
    superuser
        .batch_execute(
            "REVOKE ALL ON keyward.nodes FROM keyward_app;
            CALL keyward_private.grant_application('keyward_app')",
        )
        .await
        .unwrap();
    let mut config = database.config();
    Engine::open(&config).await.unwrap().close().await;
    config.migrate_url = None;
    Engine::open(&config).await.unwrap().close().await;
    // A gateway node that migrates as the same role takes nothing from the control nodes.
    let mut gateway = database.config();
    gateway.roles.needed = DatabaseRole::Gateway;
    Engine::open(&gateway).await.unwrap().close().await;
    Engine::open(&config).await.unwrap().close().await;
}

#[tokio::test]
async fn a_fresh_role_gets_what_its_node_needs() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let superuser = raw(&database.superuser_url().unwrap()).await;
    let role = format!("Fresh \"role\" {}", std::process::id());
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    let mut config = database.config();
    config.roles = StoreRoles {
        needed: DatabaseRole::Gateway,
        gateway: Some(role.clone()),
        ..StoreRoles::default()
    };
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains(&format!("run `CREATE ROLE {quoted} LOGIN PASSWORD")), "{text}");
    let create = format!("CREATE ROLE {quoted} LOGIN PASSWORD 'test'");
    superuser.batch_execute(&create).await.unwrap();

    config.url = database.url_of_role("keyward_gateway").unwrap().into();
    config.url = config.url.replace("keyward_gateway", "Fresh%20%22role%22%20").into();
    config.url = config.url.replace("%20:", &format!("%20{}:", std::process::id())).into();
    config.migrate_url = None;
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains("has no rights yet"), "{text}");
    config.migrate_url = database.config().migrate_url;
    Engine::open(&config).await.unwrap().close().await;
    let client = raw(&config.url).await;
    assert_eq!(can(&superuser, &client).await, GATEWAY_CAN);
    superuser.batch_execute(&format!("DROP OWNED BY {quoted}; DROP ROLE {quoted}")).await.unwrap();
}

#[tokio::test]
async fn a_role_cannot_be_two_things() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let mut config = database.config();
    config.roles.gateway = Some("keyward_worker".to_owned());
    config.roles.worker = Some("keyward_worker".to_owned());
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains("[store.roles] names `keyward_worker` for two uses"), "{text}");
    config.roles.worker = Some("keyward_owner".to_owned());
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains("`keyward_owner` that serves is also the one that migrates"), "{text}");
}

#[tokio::test]
async fn sqlite_has_no_roles() {
    let database = TestDatabase::sqlite();
    assert_eq!(check_role(&database.config()).await.unwrap(), []);
    let config = database.config_of(DatabaseRole::Gateway);
    Engine::open(&config).await.unwrap().close().await;
}

#[tokio::test]
async fn nodes_that_start_at_once_do_not_disturb_each_other() {
    let Some(database) = TestDatabase::postgres_with(migrations()).await else {
        return;
    };
    let mut config = database.config_of(DatabaseRole::Control);
    config.migrate_url = database.config().migrate_url;
    config.migrations = probed();
    let starts = (0..6).map(|_| Engine::open(&config));
    for engine in futures_util::future::join_all(starts).await {
        engine.unwrap().close().await;
    }
}

/// The SQL of the document, block by block.
fn pasted() -> Vec<&'static str> {
    let document = include_str!("../../../../docs/postgresql.md");
    document.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[tokio::test]
async fn the_statements_of_the_document_work_as_they_are() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    // The roles and the database belong to the whole server, so they get names of their own.
    let own = format!("pasted{}", std::process::id());
    let rename = |text: &str| {
        let text = text.replace("keyward_private.", "PRIVATE.").replace("keyward.toml", "");
        let text = text.replace("keyward_", &format!("{own}_"));
        text.replace("DATABASE keyward", &format!("DATABASE {own}"))
            .replace("PRIVATE", "keyward_private")
    };
    let blocks = pasted();
    let [roles, isolate] = blocks.as_slice() else {
        panic!("{blocks:?}");
    };
    let superuser = raw(&database.superuser_url().unwrap()).await;
    for statement in rename(roles).split(';').filter(|text| !text.trim().is_empty()) {
        superuser.batch_execute(statement).await.unwrap();
    }
    let url = |role: &str| {
        let url = database.url_of_role(&format!("{own}_{role}")).unwrap();
        let (server, _) = url.rsplit_once('/').unwrap();
        format!("{server}/{own}")
    };
    let name = |role: &str| Some(format!("{own}_{role}"));
    let mut config = database.config();
    config.url = url("control").into();
    config.migrate_url = Some(url("owner").into());
    config.roles.control = name("control");
    config.roles.gateway = name("gateway");
    config.roles.worker = name("worker");
    config.roles.audit = Some(false);
    Engine::open(&config).await.unwrap().close().await;

    let owner = raw(&url("owner")).await;
    let table = "CREATE TABLE keyward.invoices (tenant_id TEXT PRIMARY KEY)";
    owner.batch_execute(table).await.unwrap();
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains("`invoices` is not behind forced row level security"), "{text}");
    owner.batch_execute(&rename(isolate)).await.unwrap();
    drop(owner);
    Engine::open(&config).await.unwrap().close().await;

    config.migrate_url = None;
    for kind in [DatabaseRole::Control, DatabaseRole::Gateway, DatabaseRole::Worker] {
        config.url = url(kind.as_str()).into();
        config.roles.needed = kind;
        Engine::open(&config).await.unwrap().close().await;
        let checks = check_role(&config).await.unwrap();
        assert!(checks.iter().all(|check| check.ok && check.fix.is_none()), "{checks:?}");
    }
    superuser.batch_execute(&format!("DROP DATABASE {own} WITH (FORCE)")).await.unwrap();
    for role in ["owner", "control", "gateway", "worker"] {
        superuser.batch_execute(&format!("DROP ROLE {own}_{role}")).await.unwrap();
    }
}

#[test]
fn the_document_names_every_line_of_the_doctor() {
    let document = include_str!("../../../../docs/postgresql.md");
    let source = include_str!("../../src/engine/postgres_admission.rs");
    let checks = source.split("const CHECKS").nth(1).unwrap().split("];").next().unwrap();
    let names: Vec<_> = checks.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(names.len(), 14);
    for name in names.iter().chain(&["context key"]) {
        assert!(document.contains(&format!("\n| {name} | ")), "{name} is not in the document");
    }
}
