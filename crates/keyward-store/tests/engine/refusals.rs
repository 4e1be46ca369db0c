//! The start-up refusals on PostgreSQL: every role that row level security does not bind, or whose
//! rights do not fit its node.

use keyward_store::{
    ContextKey, DatabaseRole, Engine, RoleCheck, StoreConfig, check_role, migrations,
};
use keyward_testkit::TestDatabase;
use tokio_postgres::Client;

use crate::isolation::raw;
use crate::{probed, refusal};

struct Case {
    database: TestDatabase,
    superuser: Client,
    role: String,
    kind: DatabaseRole,
}

impl Case {
    /// A database and a fresh role, which belongs to the whole server, with the rights for one
    /// kind of node.
    async fn new(name: &str, kind: DatabaseRole) -> Option<Self> {
        let database = TestDatabase::postgres_with(probed()).await?;
        let superuser = raw(&database.superuser_url().unwrap()).await;
        let role = format!("{name}_{}", std::process::id());
        let case = Self { database, superuser, role, kind };
        case.run("CREATE ROLE $ROLE LOGIN PASSWORD 'test'").await;
        let mut config = case.config();
        config.migrate_url = case.database.config().migrate_url;
        Engine::open(&config).await.unwrap().close().await;
        Some(case)
    }

    async fn run(&self, sql: &str) {
        let sql = sql.replace("$ROLE", &self.role);
        if let Err(error) = self.superuser.batch_execute(&sql).await {
            panic!("{sql}: {error:?}");
        }
    }

    /// A node that serves as the role and does not migrate.
    fn config(&self) -> StoreConfig {
        let url = self.database.url_of_role(&self.role).unwrap();
        let mut config = self.database.config_of(self.kind);
        config.url = url.into();
        config.roles.control = None;
        config.roles.gateway = None;
        config.roles.worker = None;
        config
    }

    /// What a store says that runs as the role.
    async fn refusal(&self) -> String {
        refusal(Engine::open(&self.config()).await)
    }

    /// What the doctor finds wrong with it.
    async fn wrong(&self) -> Vec<RoleCheck> {
        let mut checks = check_role(&self.config()).await.unwrap();
        checks.retain(|check| !check.ok);
        checks
    }

    /// Runs what a refusal says to run; answers whether it said anything of the kind.
    async fn obey(&self, fix: &str) -> bool {
        let mut parts = fix.split('`');
        let statement = parts.nth(1).filter(|_| fix.starts_with("run `"));
        if let Some(statement) = statement {
            self.run(statement).await;
        }
        statement.is_some()
    }

    async fn end(self) {
        self.run("DROP OWNED BY $ROLE; DROP ROLE $ROLE").await;
    }
}

const LOOSE: &str = "CREATE TABLE keyward.loose (a TEXT);
    ALTER TABLE keyward.loose OWNER TO keyward_owner;
    ALTER TABLE keyward.loose ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;";

/// A name, what is done to the role `$ROLE` or around it, the line of the doctor that says so, and
/// what the refusal says.
const MATRIX: &[(&str, &str, &str, &str)] = &[
    ("super", "ALTER ROLE $ROLE SUPERUSER", "superuser", "it is a superuser"),
    (
        "bypass",
        "ALTER ROLE $ROLE BYPASSRLS",
        "role attributes",
        "run `ALTER ROLE $ROLE NOBYPASSRLS`",
    ),
    (
        "creator",
        "ALTER ROLE $ROLE CREATEROLE",
        "role attributes",
        "run `ALTER ROLE $ROLE NOCREATEROLE`",
    ),
    (
        "replica",
        "ALTER ROLE $ROLE REPLICATION",
        "role attributes",
        "run `ALTER ROLE $ROLE NOREPLICATION`",
    ),
    (
        "member",
        "GRANT keyward_owner TO $ROLE",
        "membership",
        "run `REVOKE keyward_owner FROM $ROLE`",
    ),
    (
        "reader",
        "GRANT pg_read_all_data TO $ROLE",
        "membership",
        "run `REVOKE pg_read_all_data FROM $ROLE`",
    ),
    (
        "builder",
        "GRANT CREATE ON SCHEMA keyward TO $ROLE",
        "schema creation",
        "run `REVOKE CREATE ON SCHEMA keyward FROM $ROLE, PUBLIC`",
    ),
    (
        "peeper",
        "GRANT USAGE ON SCHEMA keyward_private TO PUBLIC",
        "private schema",
        "run `REVOKE ALL ON SCHEMA keyward_private FROM $ROLE, PUBLIC`",
    ),
    (
        "truncater",
        "GRANT TRUNCATE ON keyward.loose TO $ROLE",
        "table rights",
        "run `REVOKE TRUNCATE ON keyward.loose FROM $ROLE, PUBLIC`",
    ),
    (
        "referrer",
        "GRANT REFERENCES ON keyward.notes TO $ROLE",
        "table rights",
        "run `REVOKE REFERENCES ON keyward.notes FROM $ROLE, PUBLIC`",
    ),
    (
        "trigger",
        "GRANT TRIGGER ON keyward.notes TO PUBLIC",
        "table rights",
        "run `REVOKE TRIGGER ON keyward.notes FROM $ROLE, PUBLIC`",
    ),
    (
        "giver",
        "GRANT SELECT (body), DELETE ON keyward.notes TO $ROLE WITH GRANT OPTION",
        "table rights",
        "it may pass on its rights on keyward.notes: \
         run `REVOKE GRANT OPTION FOR ALL ON keyward.notes FROM $ROLE CASCADE`",
    ),
    (
        "table_owner",
        "ALTER TABLE keyward.loose OWNER TO $ROLE",
        "ownership",
        "it owns the tables or functions: use a role of its own",
    ),
    (
        "unprotected",
        "ALTER TABLE keyward.loose DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
        "row level security",
        "`loose` is not behind forced row level security: run `ALTER TABLE keyward.loose ENABLE \
         ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`",
    ),
    (
        "unforced",
        "ALTER TABLE keyward.notes NO FORCE ROW LEVEL SECURITY",
        "row level security",
        "`notes` is not behind forced row level security",
    ),
    (
        "policy",
        "CREATE POLICY open ON keyward.notes FOR SELECT USING (true)",
        "row level security",
        "a policy does not ask for the tenant: run `DROP POLICY open ON keyward.notes`",
    ),
    (
        "materialized",
        "CREATE MATERIALIZED VIEW keyward.leak AS SELECT * FROM keyward.users",
        "materialized views",
        "run `DROP MATERIALIZED VIEW keyward.leak`",
    ),
    (
        "view",
        "CREATE VIEW keyward.leak AS SELECT 1 AS one",
        "views",
        "the view keyward.leak runs as its owner: \
         run `ALTER VIEW keyward.leak SET (security_invoker = true)`",
    ),
    (
        "view_elsewhere",
        "CREATE VIEW public.inner_leak AS SELECT * FROM keyward.notes;
            CREATE VIEW public.\"Leak\" AS SELECT * FROM public.inner_leak;
            GRANT SELECT (body) ON public.\"Leak\" TO $ROLE",
        "views",
        "the view public.\"Leak\" runs as its owner: \
         run `ALTER VIEW public.\"Leak\" SET (security_invoker = true)`",
    ),
    (
        "definer",
        "CREATE FUNCTION keyward.leak(a TEXT) RETURNS BIGINT LANGUAGE sql SECURITY DEFINER
            AS 'SELECT count(*) FROM keyward.users';
            REVOKE ALL ON FUNCTION keyward.leak FROM PUBLIC",
        "definer functions",
        "run `ALTER ROUTINE keyward.leak(a text) SECURITY INVOKER`",
    ),
    (
        "definer_elsewhere",
        "CREATE FUNCTION public.leak() RETURNS BIGINT LANGUAGE sql SECURITY DEFINER
            AS 'SELECT count(*) FROM keyward.users'",
        "definer functions",
        "run `REVOKE EXECUTE ON ROUTINE public.leak() FROM $ROLE, PUBLIC`",
    ),
    (
        "unpinned",
        "ALTER FUNCTION keyward.current_tenant() RESET search_path",
        "definer functions",
        "run `ALTER ROUTINE keyward.current_tenant() SET search_path = pg_catalog, pg_temp`",
    ),
    (
        "leakproof",
        "CREATE FUNCTION public.peek(a TEXT) RETURNS BOOLEAN LANGUAGE sql LEAKPROOF
            AS 'SELECT true'",
        "leakproof functions",
        "run `ALTER FUNCTION public.peek(a text) NOT LEAKPROOF`",
    ),
    (
        "rewriter",
        "GRANT UPDATE ON keyward.audit_events TO $ROLE",
        "spare rights",
        "run `REVOKE UPDATE ON keyward.audit_events FROM $ROLE, PUBLIC`",
    ),
    (
        "half",
        "REVOKE DELETE ON keyward.idempotency_records FROM $ROLE",
        "needed rights",
        "it lacks what a control node needs: \
         run `GRANT DELETE ON keyward.idempotency_records TO $ROLE`",
    ),
    (
        "mute",
        "REVOKE EXECUTE ON FUNCTION keyward.current_tenant() FROM $ROLE",
        "needed rights",
        "run `GRANT EXECUTE ON FUNCTION keyward.current_tenant() TO $ROLE`",
    ),
];

#[tokio::test]
async fn a_role_that_is_not_fit_is_refused_and_obeying_the_refusal_mends_it() {
    for (name, meddle, line, text) in MATRIX {
        let Some(case) = Case::new(name, DatabaseRole::Control).await else {
            return;
        };
        eprintln!("{name}");
        case.run(LOOSE).await;
        case.run(meddle).await;
        let refused = case.refusal().await;
        let text = text.replace("$ROLE", &case.role);
        assert!(refused.contains(&text), "{name}: {refused}");
        assert!(refused.starts_with("the database role `"), "{refused}");
        assert_eq!(refused.lines().count(), 2, "{name}: {refused}");

        let wrong = case.wrong().await;
        assert_eq!(wrong.iter().map(|check| check.name).collect::<Vec<_>>(), [*line], "{wrong:?}");
        let mut mended = true;
        for check in &wrong {
            let fix = check.fix.as_deref().unwrap();
            assert!(refused.contains(fix), "{fix}");
            mended &= case.obey(fix).await;
        }
        assert_eq!(mended, !["super", "table_owner"].contains(name), "{name}");
        if mended {
            Engine::open(&case.config()).await.unwrap().close().await;
            assert_eq!(case.wrong().await, []);
        }
        case.end().await;
    }
}

/// The same for a role that may do little: what is done, and what the refusal says.
const NARROW: &[(&str, DatabaseRole, &str, &str)] = &[
    (
        "nosy",
        DatabaseRole::Gateway,
        "GRANT SELECT ON keyward.users TO $ROLE",
        "it can do more than a gateway node needs: \
         run `REVOKE SELECT ON keyward.users FROM $ROLE, PUBLIC`",
    ),
    (
        "one_column",
        DatabaseRole::Gateway,
        "GRANT SELECT (description, hint) ON keyward.api_keys TO $ROLE",
        "run `REVOKE SELECT (description, hint) ON keyward.api_keys FROM $ROLE, PUBLIC`",
    ),
    (
        "by_public",
        DatabaseRole::Gateway,
        "GRANT SELECT (email) ON keyward.users TO PUBLIC",
        "run `REVOKE SELECT ON keyward.users FROM $ROLE, PUBLIC`",
    ),
    (
        "all_columns",
        DatabaseRole::Gateway,
        "GRANT SELECT ON keyward.tenants TO $ROLE",
        "run `REVOKE SELECT ON keyward.tenants FROM $ROLE, PUBLIC; \
         GRANT SELECT (tenant_id, slug, suspended_at) ON keyward.tenants TO $ROLE`",
    ),
    (
        "writer",
        DatabaseRole::Gateway,
        "GRANT UPDATE (revoked_at) ON keyward.api_keys TO $ROLE",
        "run `REVOKE UPDATE (revoked_at) ON keyward.api_keys FROM $ROLE, PUBLIC`",
    ),
    (
        "auditor",
        DatabaseRole::Gateway,
        "GRANT SELECT ON keyward.audit_events TO $ROLE",
        "run `REVOKE SELECT ON keyward.audit_events FROM $ROLE, PUBLIC`",
    ),
    (
        "later_table",
        DatabaseRole::Gateway,
        "GRANT SELECT ON keyward.notes TO $ROLE",
        "run `REVOKE SELECT ON keyward.notes FROM $ROLE, PUBLIC`",
    ),
    (
        "in_group",
        DatabaseRole::Gateway,
        "GRANT keyward_control TO $ROLE",
        "it is a member of `keyward_control`: run `REVOKE keyward_control FROM $ROLE`",
    ),
    (
        "short",
        DatabaseRole::Gateway,
        "REVOKE SELECT (hash, role) ON keyward.admin_tokens FROM $ROLE",
        "it lacks what a gateway node needs: \
         run `GRANT SELECT (role, hash) ON keyward.admin_tokens TO $ROLE`",
    ),
    (
        "deciding",
        DatabaseRole::Worker,
        "GRANT SELECT (scopes) ON keyward.api_keys TO $ROLE",
        "it can do more than a worker node needs: \
         run `REVOKE SELECT (scopes) ON keyward.api_keys FROM $ROLE, PUBLIC`",
    ),
];

#[tokio::test]
async fn a_narrow_role_with_other_rights_than_its_list_is_refused() {
    for (name, kind, meddle, text) in NARROW {
        let Some(case) = Case::new(name, *kind).await else {
            return;
        };
        eprintln!("{name}");
        Engine::open(&case.config()).await.unwrap().close().await;
        case.run(meddle).await;
        let refused = case.refusal().await;
        let text = text.replace("$ROLE", &case.role);
        assert!(refused.contains(&text), "{name}: {refused}");
        assert_eq!(refused.lines().count(), 2, "{name}: {refused}");
        for check in case.wrong().await {
            assert!(case.obey(check.fix.as_deref().unwrap()).await, "{check:?}");
        }
        Engine::open(&case.config()).await.unwrap().close().await;
        case.end().await;
    }
}

#[tokio::test]
async fn every_reason_is_named_at_once() {
    let Some(case) = Case::new("several", DatabaseRole::Control).await else {
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
    let checks = check_role(&config).await.unwrap();
    let key = checks.iter().find(|check| check.name == "context key").unwrap();
    assert!(!key.ok && key.fix.as_deref().unwrap().contains("keyward migrate up"), "{key:?}");
    config.migrate_url = database.config().migrate_url;
    Engine::open(&config).await.unwrap().close().await;
    assert!(check_role(&config).await.unwrap().iter().all(|check| check.ok));

    config.migrate_url = None;
    config.migrations = probed();
    let text = refusal(Engine::open(&config).await);
    assert!(text.contains("the database lacks migration V9000__probe"), "{text}");
    let text = refusal(check_role(&config).await);
    assert!(text.contains("the database lacks migration V9000__probe"), "{text}");
}
