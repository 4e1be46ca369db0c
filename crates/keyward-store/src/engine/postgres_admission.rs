//! The start-up refusals: what would let the application role walk past row level security.

use tokio_postgres::Client;

use super::StoreError;
use super::postgres::classify;

/// Each row is a problem's code and what it is about. A superuser passes every privilege check,
/// so only that is said of one.
const PROBLEMS: &str = "
WITH me AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = current_user),
relation AS (
    SELECT c.* FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'keyward' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
),
owner AS (
    SELECT relowner AS id FROM relation
    UNION SELECT nspowner FROM pg_catalog.pg_namespace
        WHERE nspname IN ('keyward', 'keyward_private')
    UNION SELECT p.proowner FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('keyward', 'keyward_private')
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
                'pg_execute_server_program'))
    UNION ALL SELECT 'create', nspname::text FROM pg_catalog.pg_namespace
        WHERE nspname IN ('keyward', 'keyward_private')
        AND pg_catalog.has_schema_privilege(me.oid, oid, 'CREATE')
    UNION ALL SELECT 'private', nspname::text FROM pg_catalog.pg_namespace
        WHERE nspname = 'keyward_private'
        AND pg_catalog.has_schema_privilege(me.oid, oid, 'USAGE')
    UNION ALL SELECT 'grant', privilege || ' ON keyward.' || relname FROM relation,
        (VALUES ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) AS extra (privilege)
        WHERE pg_catalog.has_table_privilege(me.oid, relation.oid, privilege)
    UNION ALL SELECT 'unprotected', relname::text FROM relation
        WHERE relname <> 'schema_history' AND NOT (relrowsecurity AND relforcerowsecurity)
        AND NOT (relkind = 'v' AND 'security_invoker=true' = ANY (COALESCE(reloptions, '{}')))
) AS found WHERE NOT me.rolsuper";

/// Refuses to start when the role could reach rows of more than one tenant, naming every reason
/// and its fix.
pub(super) async fn check(client: &Client, role: &str) -> Result<(), StoreError> {
    let failed = |error| classify("admission", &error);
    let rows = client.query(PROBLEMS, &[]).await.map_err(failed)?;
    let mut problems = Vec::new();
    for row in &rows {
        let code: &str = row.try_get(0).map_err(failed)?;
        let subject: Option<&str> = row.try_get(1).map_err(failed)?;
        problems.push((code, subject.unwrap_or_default()));
    }
    // An owner, or a member of one, has every right by that; the cause is enough.
    let has_all = problems.iter().any(|(code, _)| matches!(*code, "owner" | "member"));
    problems.retain(|(code, _)| !(has_all && matches!(*code, "create" | "private" | "grant")));
    let mut reasons: Vec<_> =
        problems.iter().map(|(code, subject)| reason(code, role, subject)).collect();
    if reasons.is_empty() {
        return Ok(());
    }
    reasons.sort();
    Err(StoreError::Refused(format!(
        "row level security does not bind the database role `{role}`:\n- {}",
        reasons.join("\n- ")
    )))
}

fn reason(code: &str, role: &str, subject: &str) -> String {
    match code {
        "superuser" => "it is a superuser: use a role made by `CREATE ROLE keyward_app LOGIN` \
            in the store's address"
            .to_owned(),
        "attribute" => format!("it has {subject}: run `ALTER ROLE {role} NO{subject}`"),
        "owner" => format!(
            "it owns the tables or functions: use a role of its own in the store's address, and \
             `{subject}` only in migrate_url"
        ),
        "member" => {
            format!("it is a member of `{subject}`: run `REVOKE {subject} FROM {role}`")
        }
        "create" => {
            format!(
                "it may create in {subject}: \
                 run `REVOKE CREATE ON SCHEMA {subject} FROM {role}, PUBLIC`"
            )
        }
        "private" => {
            format!(
                "it can look into {subject}: \
                 run `REVOKE ALL ON SCHEMA {subject} FROM {role}, PUBLIC`"
            )
        }
        "grant" => format!("it has {subject}: run `REVOKE {subject} FROM {role}, PUBLIC`"),
        _ => format!(
            "`{subject}` is not behind forced row level security: run \
             `ALTER TABLE keyward.{subject} FORCE ROW LEVEL SECURITY` and ENABLE it, or drop it"
        ),
    }
}
