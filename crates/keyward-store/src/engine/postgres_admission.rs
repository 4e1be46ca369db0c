//! The start-up refusals: what would let a database role walk past row level security, or do more
//! or less than its node needs.

use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Row};

use super::postgres::{classify, within};
use super::postgres_rights::{DatabaseRole, Held, StoreRoles, quoted};
use super::postgres_session::{Address, Signer};
use super::{SYSTEM_CONTEXT, StoreConfig, StoreError};

/// Lacking rights that a message names; beyond them it counts.
const MAX_NAMED: usize = 4;

/// Each row is a problem's code and what it is about. A superuser passes every privilege check,
/// so only that is said of one.
const PROBLEMS: &str = "
WITH RECURSIVE me AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = current_user),
relation AS (
    SELECT c.* FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'keyward' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
),
-- what shows rows of our tables, wherever it stands
shows (oid) AS (
    SELECT oid FROM relation
    UNION SELECT w.ev_class FROM shows
        JOIN pg_catalog.pg_depend d ON d.refobjid = shows.oid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
        JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
),
view AS (
    SELECT c.relkind, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN me
    WHERE c.relkind IN ('v', 'm') AND (n.nspname = 'keyward' OR c.oid IN (SELECT oid FROM shows)
        AND pg_catalog.has_table_privilege(me.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
        OR c.oid IN (SELECT oid FROM shows)
        AND pg_catalog.has_any_column_privilege(me.oid, c.oid, 'SELECT, INSERT, UPDATE'))
    AND NOT EXISTS (SELECT FROM pg_catalog.unnest(c.reloptions) AS o (option)
        WHERE o.option ~* '^security_invoker=(t|true|y|yes|on|1)$')
),
routine AS (
    SELECT p.*, n.nspname, pg_catalog.format('%I.%I(%s)', n.nspname, p.proname,
        pg_catalog.pg_get_function_identity_arguments(p.oid)) AS name,
        n.nspname IN ('keyward', 'keyward_private') AS ours
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
),
owner AS (
    SELECT relowner AS id FROM relation
    UNION SELECT nspowner FROM pg_catalog.pg_namespace
        WHERE nspname IN ('keyward', 'keyward_private')
    UNION SELECT proowner FROM routine WHERE ours
),
powerful AS (
    SELECT oid AS id FROM pg_catalog.pg_roles WHERE rolsuper OR rolbypassrls
    UNION SELECT id FROM owner
),
granted AS (
    SELECT a.grantee AS id FROM relation c, pg_catalog.aclexplode(c.relacl) a
    UNION SELECT a.grantee FROM relation c
        JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid,
        pg_catalog.aclexplode(t.attacl) a
)
SELECT 'superuser', NULL FROM me WHERE rolsuper
UNION ALL SELECT found.* FROM me, LATERAL (
    SELECT 'attribute', attribute FROM (VALUES
        ('BYPASSRLS', me.rolbypassrls), ('CREATEROLE', me.rolcreaterole),
        ('REPLICATION', me.rolreplication)) AS held (attribute, on_)
        WHERE on_
    UNION ALL SELECT 'owner', pg_catalog.pg_get_userbyid(id)::text FROM owner WHERE id = me.oid
    UNION ALL SELECT 'member', r.rolname::text FROM pg_catalog.pg_roles r
        WHERE r.oid <> me.oid AND pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER')
        AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolreplication
            OR r.oid IN (SELECT id FROM owner) OR r.rolname IN ('pg_read_all_data',
                'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files',
                'pg_execute_server_program')
            OR $1 AND r.oid IN (SELECT id FROM granted))
    UNION ALL SELECT 'create', nspname::text FROM pg_catalog.pg_namespace
        WHERE nspname IN ('keyward', 'keyward_private')
        AND pg_catalog.has_schema_privilege(me.oid, oid, 'CREATE')
    UNION ALL SELECT 'private', nspname::text FROM pg_catalog.pg_namespace
        WHERE nspname = 'keyward_private'
        AND pg_catalog.has_schema_privilege(me.oid, oid, 'USAGE')
    UNION ALL SELECT 'grant', pg_catalog.format('%s ON keyward.%I', privilege, relname)
        FROM relation, (VALUES ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) AS extra (privilege)
        WHERE pg_catalog.has_table_privilege(me.oid, relation.oid, privilege)
    UNION ALL SELECT 'grantable', pg_catalog.format('%I', relname) FROM relation
        WHERE pg_catalog.has_any_column_privilege(me.oid, relation.oid, 'SELECT WITH GRANT OPTION,
            INSERT WITH GRANT OPTION, UPDATE WITH GRANT OPTION')
        OR pg_catalog.has_table_privilege(me.oid, relation.oid, 'DELETE WITH GRANT OPTION')
    UNION ALL SELECT 'unprotected', pg_catalog.format('%I', relname) FROM relation
        WHERE relkind IN ('r', 'p', 'f') AND relname <> 'schema_history'
        AND NOT (relrowsecurity AND relforcerowsecurity)
    UNION ALL SELECT 'policy', pg_catalog.format('%I ON keyward.%I', p.polname, c.relname)
        FROM relation c JOIN pg_catalog.pg_policy p ON p.polrelid = c.oid
        WHERE p.polpermissive AND COALESCE(pg_catalog.pg_get_expr(p.polqual, c.oid),
            pg_catalog.pg_get_expr(p.polwithcheck, c.oid), '') !~ '\\mcurrent_tenant\\('
    UNION ALL SELECT CASE relkind WHEN 'm' THEN 'materialized' ELSE 'view' END, name FROM view
    UNION ALL SELECT CASE WHEN routine.oid = known.oid THEN 'unpinned'
            WHEN ours THEN 'definer' ELSE 'foreign_definer' END, name
        FROM routine, pg_catalog.to_regprocedure('keyward.current_tenant()') AS known (oid)
        WHERE prosecdef AND (ours OR pg_catalog.has_function_privilege(me.oid, routine.oid,
            'EXECUTE') AND proowner IN (SELECT id FROM powerful))
        AND (routine.oid = known.oid
            AND 'search_path=pg_catalog, pg_temp' = ANY (proconfig)) IS NOT TRUE
    UNION ALL SELECT 'leakproof', name FROM routine WHERE proleakproof
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = routine.oid
            AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e')
    UNION ALL SELECT 'execute', NULL
        WHERE NOT pg_catalog.has_function_privilege(me.oid, 'keyward.current_tenant()', 'EXECUTE')
) AS found WHERE NOT me.rolsuper";

/// What is looked at, in the order in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    Superuser,
    Attributes,
    Ownership,
    Membership,
    Creation,
    Private,
    TableRights,
    RowSecurity,
    Views,
    Materialized,
    Definers,
    Leakproof,
    Needed,
    Spare,
}

/// Every check with its name and what is said when nothing is wrong.
const CHECKS: [(Check, &str, &str); 14] = [
    (Check::Superuser, "superuser", "no superuser"),
    (Check::Attributes, "role attributes", "no BYPASSRLS, CREATEROLE or REPLICATION"),
    (Check::Ownership, "ownership", "owns no table, function or schema"),
    (Check::Membership, "membership", "member of no role with more rights"),
    (Check::Creation, "schema creation", "may create nothing"),
    (Check::Private, "private schema", "out of sight"),
    (Check::TableRights, "table rights", "no TRUNCATE, REFERENCES or TRIGGER, none to pass on"),
    (Check::RowSecurity, "row level security", "forced on every table"),
    (Check::Views, "views", "none that runs as its owner"),
    (Check::Materialized, "materialized views", "none"),
    (Check::Definers, "definer functions", "only keyward.current_tenant, its search_path fixed"),
    (Check::Leakproof, "leakproof functions", "none"),
    (Check::Needed, "needed rights", "has all that the node needs"),
    (Check::Spare, "spare rights", "has nothing that the node does not need"),
];

/// One thing that was looked at about the database role of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleCheck {
    /// What was looked at.
    pub name: &'static str,
    /// Whether a node may start like this.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do: a statement or a setting. With `ok`, advice.
    pub fix: Option<String>,
}

struct Problem {
    check: Check,
    text: String,
    fix: String,
}

/// The role that a connection has, and all that is wrong with it.
struct Findings {
    role: String,
    kind: Option<DatabaseRole>,
    problems: Vec<Problem>,
}

/// Refuses to start when the role could reach rows of more than one tenant, or has other rights
/// than its node needs; names every reason and its fix.
pub(super) async fn check(client: &Client, config: &StoreConfig) -> Result<(), StoreError> {
    let findings = Findings::gather(client, &config.roles).await?;
    let role = &findings.role;
    if findings.problems.is_empty() {
        if let Some(advice) = findings.advice(&config.roles) {
            tracing::warn!(role, "{advice}");
        }
        return Ok(());
    }
    let mut reasons: Vec<_> =
        findings.problems.iter().map(|found| format!("{}: {}", found.text, found.fix)).collect();
    reasons.sort();
    let reasons = reasons.join("\n- ");
    Err(StoreError::Refused(format!(
        "the database role `{role}` is not fit to serve:\n- {reasons}"
    )))
}

/// Looks at the database role of a node the way a start would, check by check. Nothing is changed.
/// SQLite has no roles, and nothing to look at.
///
/// # Errors
/// [`StoreError::Unavailable`]; [`StoreError::Refused`] when the address or the schema does not
/// let anything be seen.
pub async fn check_role(config: &StoreConfig) -> Result<Vec<RoleCheck>, StoreError> {
    if config.url.starts_with("sqlite:") {
        return Ok(Vec::new());
    }
    let looked = Box::pin(look(config));
    within(config.limits.wait + config.limits.answer(), "admission", looked).await
}

async fn look(config: &StoreConfig) -> Result<Vec<RoleCheck>, StoreError> {
    let address = Address::parse(&config.url, &config.limits)?;
    let (client, _) = address.connect().await?;
    // In one transaction, so that a pooler lends one backend for all of it. It ends with the
    // connection.
    let begun = client.batch_execute("BEGIN READ ONLY").await;
    begun.map_err(|error| classify("admission", &error))?;
    super::postgres_schema::require_current(&client, config).await?;
    let findings = Findings::gather(&client, &config.roles).await?;
    let mut checks = vec![findings.used(&config.roles)];
    // Of a superuser nothing else can be told: it passes every check of a right.
    let superuser = findings.problems.iter().any(|found| found.check == Check::Superuser);
    checks.extend(CHECKS.iter().take(if superuser { 1 } else { CHECKS.len() }).flat_map(
        |(check, name, good)| {
            let wrong = findings.problems.iter().filter(|found| found.check == *check);
            let bad = |found: &Problem| RoleCheck {
                name,
                ok: false,
                found: found.text.clone(),
                fix: Some(found.fix.clone()),
            };
            let bad: Vec<_> = wrong.map(bad).collect();
            let good = RoleCheck { name, ok: true, found: (*good).to_owned(), fix: None };
            if bad.is_empty() { vec![good] } else { bad }
        },
    ));
    // Without the rights the database does not even look at the key.
    if !findings.problems.iter().any(|found| found.check == Check::Needed) {
        checks.push(key_check(&client, config).await?);
    }
    Ok(checks)
}

/// Whether the database accepts a context that is signed with our key.
async fn key_check(client: &Client, config: &StoreConfig) -> Result<RoleCheck, StoreError> {
    let failed = |error| classify("context key", &error);
    let rows = client.query_typed("SELECT pg_catalog.pg_backend_pid()", &[]).await;
    let backend: i32 = only(&rows.map_err(failed)?)?;
    let context = Signer::new(&config.context_key).sign(backend, SYSTEM_CONTEXT);
    let set = "SELECT pg_catalog.set_config('keyward.context', $1, true)";
    client.query_typed(set, &[(&context, Type::TEXT)]).await.map_err(failed)?;
    let answer = client.query_typed("SELECT keyward.current_tenant()", &[]).await;
    let (name, found) = ("context key", "the database accepts this deployment's".to_owned());
    match answer.map_err(|error| classify("context key", &error)) {
        Ok(_) => Ok(RoleCheck { name, ok: true, found, fix: None }),
        Err(StoreError::Refused(text)) => {
            let fix = "run `keyward migrate up` with the owner's address in migrate-url-file, \
                       and the same secrets on every node";
            Ok(RoleCheck { name, ok: false, found: text, fix: Some(fix.to_owned()) })
        }
        Err(error) => Err(error),
    }
}

fn only<T: for<'a> FromSql<'a>>(rows: &[Row]) -> Result<T, StoreError> {
    let row = rows.first().ok_or_else(|| StoreError::Internal("no row".to_owned()))?;
    row.try_get(0).map_err(|error| classify("admission", &error))
}

impl Findings {
    async fn gather(client: &Client, roles: &StoreRoles) -> Result<Self, StoreError> {
        let failed = |error| classify("admission", &error);
        let rows = client.query_typed("SELECT current_user::text", &[]).await.map_err(failed)?;
        let role: String = only(&rows)?;
        let narrow = roles.needed != DatabaseRole::Control;
        let rows = client.query_typed(PROBLEMS, &[(&narrow, Type::BOOL)]).await.map_err(failed)?;
        let mut problems = Vec::new();
        for row in &rows {
            let code: &str = row.try_get(0).map_err(failed)?;
            let subject: Option<&str> = row.try_get(1).map_err(failed)?;
            problems.push(Problem::new(code, &role, subject.unwrap_or_default()));
        }
        let held = Held::by(client, &role).await?;
        let mut findings = Self { role, kind: held.kind(), problems };
        findings.compare(&held, roles);
        findings.keep_causes();
        Ok(findings)
    }

    /// Adds what the role lacks or has too much. A control role may serve every kind of node.
    fn compare(&mut self, held: &Held, roles: &StoreRoles) {
        let control = held.kind() == Some(DatabaseRole::Control);
        let used_as = if control { DatabaseRole::Control } else { roles.needed };
        let lacks = held.lacks(&self.role, roles.needed, roles.audit);
        if !lacks.is_empty() {
            self.problems.push(Problem::lacking(self, &lacks, roles));
        }
        for revoke in held.spare(&self.role, used_as, roles.audit) {
            self.problems.push(Problem {
                check: Check::Spare,
                text: format!("it can do more than a {} node needs", used_as.as_str()),
                fix: format!("run `{revoke}`"),
            });
        }
    }

    /// A superuser, an owner or a member of one has every right by that; the cause is enough.
    fn keep_causes(&mut self) {
        let has = |check| self.problems.iter().any(|found: &Problem| found.check == check);
        let (superuser, every) =
            (has(Check::Superuser), has(Check::Ownership) || has(Check::Membership));
        let follows =
            [Check::Creation, Check::Private, Check::TableRights, Check::Needed, Check::Spare];
        self.problems.retain(|found| {
            (!superuser || found.check == Check::Superuser)
                && !(every && follows.contains(&found.check))
        });
    }

    /// What would be better, where nothing is wrong.
    fn advice(&self, roles: &StoreRoles) -> Option<String> {
        let needed = roles.needed.as_str();
        let spare =
            self.kind == Some(DatabaseRole::Control) && roles.needed != DatabaseRole::Control;
        spare.then(|| {
            let name = roles.name_of(roles.needed);
            format!(
                "this node serves as {needed} only and connects as a role that may do everything: \
                 run `keyward migrate up` with [store.roles] {needed} = \"{name}\", and name \
                 that role in the store's address"
            )
        })
    }

    /// Which role the node uses, and what its work needs.
    fn used(&self, roles: &StoreRoles) -> RoleCheck {
        let has = self.kind.map_or("none", DatabaseRole::as_str);
        let found = format!(
            "{}, with the rights of: {has}; the node needs those of: {}",
            self.role,
            roles.needed.as_str()
        );
        RoleCheck { name: "database role", ok: true, found, fix: self.advice(roles) }
    }
}

impl Problem {
    /// What a node needs and the role has not.
    fn lacking(findings: &Findings, lacks: &[String], roles: &StoreRoles) -> Self {
        let (needed, role) = (roles.needed.as_str(), &findings.role);
        let text = match findings.kind {
            Some(kind) if kind != roles.needed => {
                format!(
                    "it has the rights of a {} and this node needs those of a {needed}",
                    kind.as_str()
                )
            }
            _ => format!("it lacks what a {needed} node needs"),
        };
        let fix = if lacks.len() <= MAX_NAMED {
            format!("run `{}`", lacks.join("; "))
        } else {
            format!(
                "name the {needed} role in the store's address, or give `{role}` these rights: \
                 run `keyward migrate up` with the owner's address in migrate-url-file and \
                 [store.roles] {needed} = \"{role}\""
            )
        };
        Self { check: Check::Needed, text, fix }
    }

    fn new(code: &str, role: &str, subject: &str) -> Self {
        let role = &quoted(role);
        let run = |statement: String| format!("run `{statement}`");
        let (check, text, fix) = match code {
            "superuser" => (
                Check::Superuser,
                "it is a superuser".to_owned(),
                "use a role made by `CREATE ROLE keyward_control LOGIN` in the store's address"
                    .to_owned(),
            ),
            "attribute" => (
                Check::Attributes,
                format!("it has {subject}"),
                run(format!("ALTER ROLE {role} NO{subject}")),
            ),
            "owner" => (
                Check::Ownership,
                "it owns the tables or functions".to_owned(),
                format!(
                    "use a role of its own in the store's address, and `{subject}` only in \
                     migrate_url"
                ),
            ),
            "member" => (
                Check::Membership,
                format!("it is a member of `{subject}`"),
                run(format!("REVOKE {} FROM {role}", quoted(subject))),
            ),
            "create" => (
                Check::Creation,
                format!("it may create in {subject}"),
                run(format!("REVOKE CREATE ON SCHEMA {subject} FROM {role}, PUBLIC")),
            ),
            "private" => (
                Check::Private,
                format!("it can look into {subject}"),
                run(format!("REVOKE ALL ON SCHEMA {subject} FROM {role}, PUBLIC")),
            ),
            "grant" => (
                Check::TableRights,
                format!("it has {subject}"),
                run(format!("REVOKE {subject} FROM {role}, PUBLIC")),
            ),
            "grantable" => (
                Check::TableRights,
                format!("it may pass on its rights on keyward.{subject}"),
                run(format!(
                    "REVOKE GRANT OPTION FOR ALL ON keyward.{subject} FROM {role} CASCADE"
                )),
            ),
            "execute" => (
                Check::Needed,
                "it may not ask for its tenant".to_owned(),
                run(format!("GRANT EXECUTE ON FUNCTION keyward.current_tenant() TO {role}")),
            ),
            _ => Self::around(code, role, subject),
        };
        Self { check, text, fix }
    }

    /// What stands beside the role and leads around row level security.
    fn around(code: &str, role: &str, subject: &str) -> (Check, String, String) {
        let run = |statement: &str| format!("run `{statement}`");
        match code {
            "view" => (
                Check::Views,
                format!("the view {subject} runs as its owner"),
                run(&format!("ALTER VIEW {subject} SET (security_invoker = true)")),
            ),
            "materialized" => (
                Check::Materialized,
                format!("the materialized view {subject} keeps rows of every tenant"),
                run(&format!("DROP MATERIALIZED VIEW {subject}")),
            ),
            "policy" => (
                Check::RowSecurity,
                "a policy does not ask for the tenant".to_owned(),
                run(&format!("DROP POLICY {subject}")),
            ),
            "definer" => (
                Check::Definers,
                format!("{subject} runs as its owner"),
                run(&format!("ALTER ROUTINE {subject} SECURITY INVOKER")),
            ),
            "foreign_definer" => (
                Check::Definers,
                format!("{subject} runs as a role that row level security does not bind"),
                run(&format!("REVOKE EXECUTE ON ROUTINE {subject} FROM {role}, PUBLIC")),
            ),
            "unpinned" => (
                Check::Definers,
                format!("{subject} looks up names where its caller says"),
                run(&format!("ALTER ROUTINE {subject} SET search_path = pg_catalog, pg_temp")),
            ),
            "leakproof" => (
                Check::Leakproof,
                format!("{subject} may see rows before they are filtered"),
                run(&format!("ALTER FUNCTION {subject} NOT LEAKPROOF")),
            ),
            _ => (
                Check::RowSecurity,
                format!("`{subject}` is not behind forced row level security"),
                run(&format!(
                    "ALTER TABLE keyward.{subject} ENABLE ROW LEVEL SECURITY, \
                     FORCE ROW LEVEL SECURITY"
                )),
            ),
        }
    }
}
