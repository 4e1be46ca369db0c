//! The start-up refusals on PostgreSQL: every role that row level security does not bind.

use keyward_store::{ContextKey, Engine, StoreConfig, migrations};
use keyward_testkit::TestDatabase;
use tokio_postgres::Client;

use crate::isolation::raw;
use crate::{probed, refusal};

struct Case {
    database: TestDatabase,
    superuser: Client,
    role: String,
}

impl Case {
    /// A database and a fresh role, which belong to the whole server.
    async fn new(name: &str) -> Option<Self> {
        let database = TestDatabase::postgres_with(probed()).await?;
        let superuser = raw(&database.superuser_url().unwrap()).await;
        let role = format!("{name}_{}", std::process::id());
        let case = Self { database, superuser, role };
        case.run("CREATE ROLE $ROLE LOGIN PASSWORD 'test'").await;
        Some(case)
    }

    async fn run(&self, sql: &str) {
        self.superuser.batch_execute(&sql.replace("$ROLE", &self.role)).await.unwrap();
    }

    /// What a store says that runs as the role.
    async fn refusal(&self) -> String {
        let url = self.database.url_of_role(&self.role).unwrap();
        let config = StoreConfig { url: url.into(), ..self.database.config() };
        refusal(Engine::open(&config).await)
    }

    async fn end(self) {
        self.run("DROP OWNED BY $ROLE; DROP ROLE $ROLE").await;
    }
}

/// A name, what is done to the role `$ROLE` or around it, and the fix that the refusal names.
const MATRIX: &[(&str, &str, &str)] = &[
    ("super", "ALTER ROLE $ROLE SUPERUSER", "is a superuser"),
    ("bypass", "ALTER ROLE $ROLE BYPASSRLS", "run `ALTER ROLE $ROLE NOBYPASSRLS`"),
    ("creator", "ALTER ROLE $ROLE CREATEROLE", "run `ALTER ROLE $ROLE NOCREATEROLE`"),
    ("replica", "ALTER ROLE $ROLE REPLICATION", "run `ALTER ROLE $ROLE NOREPLICATION`"),
    ("member", "GRANT keyward_owner TO $ROLE", "run `REVOKE keyward_owner FROM $ROLE`"),
    ("reader", "GRANT pg_read_all_data TO $ROLE", "run `REVOKE pg_read_all_data FROM $ROLE`"),
    ("builder", "GRANT CREATE ON SCHEMA keyward TO $ROLE", "REVOKE CREATE ON SCHEMA keyward"),
    ("peeper", "GRANT USAGE ON SCHEMA keyward_private TO $ROLE", "look into keyward_private"),
    (
        "truncater",
        "CREATE TABLE keyward.loose (a TEXT);
            ALTER TABLE keyward.loose ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
            GRANT TRUNCATE ON keyward.loose TO $ROLE",
        "run `REVOKE TRUNCATE ON keyward.loose FROM $ROLE, PUBLIC`",
    ),
    (
        "table_owner",
        "CREATE TABLE keyward.loose (a TEXT);
            ALTER TABLE keyward.loose ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
            ALTER TABLE keyward.loose OWNER TO $ROLE",
        "it owns the tables or functions",
    ),
    ("loose", "CREATE TABLE keyward.loose (a TEXT)", "`loose` is not behind forced row"),
    (
        "unforced",
        "ALTER TABLE keyward.notes NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE keyward.notes FORCE ROW LEVEL SECURITY",
    ),
    (
        "materialized",
        "CREATE MATERIALIZED VIEW keyward.leak AS SELECT 1 AS one",
        "`leak` is not behind forced row",
    ),
    ("view", "CREATE VIEW keyward.leak AS SELECT 1 AS one", "`leak` is not behind forced row"),
];

#[tokio::test]
async fn a_role_that_row_level_security_does_not_bind_is_refused_with_the_fix() {
    for (name, meddle, fix) in MATRIX {
        let Some(case) = Case::new(name).await else {
            return;
        };
        eprintln!("{name}");
        case.run(meddle).await;
        let text = case.refusal().await;
        let fix = fix.replace("$ROLE", &case.role);
        assert!(text.contains(&fix), "{name}: {text}");
        assert_eq!(text.lines().count(), 2, "{name}: {text}");
        case.end().await;
    }
}

#[tokio::test]
async fn every_reason_is_named_at_once() {
    let Some(case) = Case::new("several").await else {
        return;
    };
    case.run("ALTER ROLE $ROLE BYPASSRLS CREATEROLE; GRANT keyward_owner TO $ROLE").await;
    let text = case.refusal().await;
    // A member of the owner also has every right of the owner.
    for reason in ["NOBYPASSRLS", "NOCREATEROLE", "REVOKE keyward_owner"] {
        assert!(text.contains(reason), "{text}");
    }
    case.end().await;
}

#[tokio::test]
async fn the_owner_cannot_be_the_application() {
    let Some(database) = TestDatabase::postgres_with(probed()).await else {
        return;
    };
    let mut config = database.config();
    config.url = config.migrate_url.clone().unwrap();
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains("is also the one that migrates"), "{text}");
    config.migrate_url = None;
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains("it owns the tables or functions"), "{text}");
}

#[tokio::test]
async fn without_the_owner_the_schema_and_the_key_must_be_there() {
    let Some(database) = TestDatabase::postgres_with(migrations()).await else {
        return;
    };
    let mut config = database.config();
    config.migrate_url = None;
    Engine::open(&config).await.unwrap().close().await;

    config.context_key = ContextKey::new([8; ContextKey::LEN]);
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains("another context key"), "{text}");
    config.migrate_url = database.config().migrate_url;
    Engine::open(&config).await.unwrap().close().await;

    config.migrate_url = None;
    config.migrations = probed();
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains("the database lacks migration V9000__probe"), "{text}");
}
