//! What each kind of node needs in PostgreSQL, and how that differs from what a role has.

use std::collections::BTreeSet;

use serde_json::json;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::StoreError;
use super::postgres::classify;

/// What a node does in the database. A node with several roles needs [`Self::Control`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DatabaseRole {
    /// Everything the program can do.
    #[default]
    Control,
    /// Reading what requests are decided with, and noting when keys were used.
    Gateway,
    /// Housekeeping.
    Worker,
}

impl DatabaseRole {
    /// Its word in settings and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }
}

/// The roles of PostgreSQL that the nodes of a deployment connect as. SQLite has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreRoles {
    /// What this node needs.
    pub needed: DatabaseRole,
    /// The role of control nodes; a migration run gives it its rights.
    pub control: Option<String>,
    /// The role of gateway nodes.
    pub gateway: Option<String>,
    /// The role of worker nodes.
    pub worker: Option<String>,
    /// Whether gateways list a tenant's audit events; `None` when that is not known here, and
    /// then the right to read them stays as it is.
    pub audit: Option<bool>,
}

impl StoreRoles {
    /// The name of the role for this use, or the one it should have.
    pub(super) fn name_of(&self, kind: DatabaseRole) -> String {
        let named = self.named().into_iter().find(|(_, named)| *named == kind);
        named.map_or_else(|| format!("keyward_{}", kind.as_str()), |(name, _)| name.to_owned())
    }

    /// The roles that are named, and what each is for.
    pub(super) fn named(&self) -> Vec<(&str, DatabaseRole)> {
        let named = [
            (&self.control, DatabaseRole::Control),
            (&self.gateway, DatabaseRole::Gateway),
            (&self.worker, DatabaseRole::Worker),
        ];
        named.into_iter().filter_map(|(name, kind)| Some((name.as_deref()?, kind))).collect()
    }
}

/// What can be granted on a table and is ever needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privilege {
    Select,
    Insert,
    Update,
    Delete,
}

impl Privilege {
    const ALL: [Self; 4] = [Self::Select, Self::Insert, Self::Update, Self::Delete];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// A privilege on a table, or on some of its columns.
#[derive(Clone, Copy)]
struct Right {
    table: &'static str,
    privilege: Privilege,
    /// Names with spaces between them; empty for the whole table.
    columns: &'static str,
}

const fn whole(table: &'static str, privilege: Privilege) -> Right {
    Right { table, privilege, columns: "" }
}

const fn some(table: &'static str, privilege: Privilege, columns: &'static str) -> Right {
    Right { table, privilege, columns }
}

use Privilege::{Delete, Insert, Select, Update};

/// A node's own row, and where it stands beside the others.
const NODES: [Right; 4] = [
    whole("nodes", Select),
    whole("nodes", Insert),
    whole("nodes", Update),
    whole("nodes", Delete),
];

/// When keys were last used.
const LAST_USE: Right = some("api_keys", Update, "last_used_at last_used_ip last_used_agent");

/// The same, and which were exposed. One entry, because there is one for a table and a privilege.
const USE_AND_EXPOSURE: Right =
    some("api_keys", Update, "last_used_at last_used_ip last_used_agent exposed_at exposed_by");

/// What a gateway decides with: the columns that `sql/authority.rs`, `sql/admin_tokens.rs` and
/// `sql/changes.rs` read, and nothing else. A change here needs a migration beside it, whose
/// number keeps an older binary from taking the rights back.
const GATEWAY: &[Right] = &[
    some(
        "api_keys",
        Select,
        "tenant_id key_id environment scopes owner_id name expires_at revoked_at ip_allowlist \
         hash pepper_version suspect_since last_used_at exposed_at",
    ),
    USE_AND_EXPOSURE,
    some("memberships", Select, "tenant_id user_id role offboarded_at"),
    some("tenants", Select, "tenant_id slug suspended_at"),
    some(
        "admin_tokens",
        Select,
        "admin_token_id name tenant_id role scopes expires_at revoked_at hash pepper_version",
    ),
    whole("authority", Select),
    // To begin another history, after which every node reads everything anew; never the epoch.
    some("authority", Update, "incarnation timeline"),
    whole("changes", Select),
    whole("schema_history", Select),
];

/// For a product whose public API lists a tenant's own audit events.
const AUDIT: Right = whole("audit_events", Select);

/// What housekeeping touches. It decides nothing, so it sees no hash and no scope.
const WORKER: &[Right] = &[
    some("api_keys", Select, "tenant_id key_id last_used_at"),
    LAST_USE,
    some("idempotency_records", Select, "tenant_id principal operation idempotency_key expires_at"),
    whole("idempotency_records", Delete),
    whole("authority", Select),
    whole("schema_history", Select),
];

/// What a control node needs: by table, as `keyward_private.isolate` lists it.
const CONTROL: &[(&str, &[Privilege])] = &[
    ("admin_tokens", &Privilege::ALL),
    ("api_keys", &Privilege::ALL),
    ("audit_events", &[Select, Insert]),
    ("audit_heads", &Privilege::ALL),
    ("authority", &[Select, Update]),
    ("changes", &[Select, Insert]),
    ("idempotency_records", &Privilege::ALL),
    ("memberships", &Privilege::ALL),
    ("nodes", &Privilege::ALL),
    ("schema_history", &[Select]),
    ("setup_links", &Privilege::ALL),
    ("tenants", &Privilege::ALL),
    ("users", &Privilege::ALL),
];

fn wanted(kind: DatabaseRole, audit: bool) -> Vec<Right> {
    match kind {
        DatabaseRole::Control => CONTROL
            .iter()
            .flat_map(|(table, all)| all.iter().map(|privilege| whole(table, *privilege)))
            .collect(),
        DatabaseRole::Gateway => {
            GATEWAY.iter().chain(&NODES).chain(audit.then_some(&AUDIT)).copied().collect()
        }
        DatabaseRole::Worker => WORKER.iter().chain(&NODES).copied().collect(),
    }
}

/// The rights of a gateway or a worker as `keyward_private.grant_rights` takes them.
pub(super) fn listed(kind: DatabaseRole, audit: bool) -> String {
    let entry = |right: &Right| {
        let columns: Option<Vec<&str>> =
            (!right.columns.is_empty()).then(|| right.columns.split(' ').collect());
        json!({ "table": right.table, "privilege": right.privilege.as_str(), "columns": columns })
    };
    serde_json::Value::from(wanted(kind, audit).iter().map(entry).collect::<Vec<_>>()).to_string()
}

/// What a role can do in the schema, by whatever way it came to it.
pub(super) struct Held(Vec<HeldRight>);

struct HeldRight {
    table: String,
    privilege: Privilege,
    /// Held on the table itself, so that it covers columns to come.
    whole: bool,
    columns: BTreeSet<String>,
}

/// Rows of the privileges that a role holds on tables or columns.
const HELD: &str = "
SELECT c.relname::text, p.name,
    pg_catalog.has_table_privilege(r.oid, c.oid, p.name),
    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND p.name <> 'DELETE'
        AND pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum,
            CASE p.name WHEN 'DELETE' THEN 'SELECT' ELSE p.name END))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p (name)
CROSS JOIN pg_catalog.pg_roles r
WHERE n.nspname = 'keyward' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND r.rolname = $1";

impl Held {
    pub(super) async fn by(client: &Client, role: &str) -> Result<Self, StoreError> {
        let failed = |error| classify("rights", &error);
        let rows = client.query_typed(HELD, &[(&role, Type::NAME)]).await.map_err(failed)?;
        let all = rows.iter().map(HeldRight::read).collect::<Result<Vec<_>, _>>();
        let mut all = all.map_err(failed)?;
        all.retain(|held| held.whole || !held.columns.is_empty());
        Ok(Self(all))
    }

    fn find(&self, table: &str, privilege: Privilege) -> Option<&HeldRight> {
        self.0.iter().find(|held| held.table == table && held.privilege == privilege)
    }

    /// Whether the role may read audit events.
    pub(super) fn reads_audit(&self) -> bool {
        self.find(AUDIT.table, AUDIT.privilege).is_some()
    }

    /// What the role is used for now, told by the right that only that use needs.
    pub(super) fn kind(&self) -> Option<DatabaseRole> {
        let reads_hashes = |held: &HeldRight| held.columns.contains("hash");
        if self.find("audit_events", Insert).is_some() {
            Some(DatabaseRole::Control)
        } else if self.find("api_keys", Select).is_some_and(reads_hashes) {
            Some(DatabaseRole::Gateway)
        } else if self.find("idempotency_records", Delete).is_some() {
            Some(DatabaseRole::Worker)
        } else {
            None
        }
    }

    /// The statements that would give the role what it lacks.
    pub(super) fn lacks(&self, role: &str, kind: DatabaseRole, audit: Option<bool>) -> Vec<String> {
        let role = quoted(role);
        let lacking = |right: &Right| {
            let held = self.find(right.table, right.privilege);
            if held.is_some_and(|held| held.whole) {
                return None;
            }
            let missing: Vec<&str> = right
                .columns
                .split_whitespace()
                .filter(|column| held.is_none_or(|held| !held.columns.contains(*column)))
                .collect();
            let (privilege, table) = (right.privilege.as_str(), right.table);
            match (right.columns.is_empty(), missing.is_empty()) {
                (true, _) => Some(format!("GRANT {privilege} ON keyward.{table} TO {role}")),
                (false, true) => None,
                (false, false) => Some(format!(
                    "GRANT {privilege} ({}) ON keyward.{table} TO {role}",
                    missing.join(", ")
                )),
            }
        };
        wanted(kind, audit.unwrap_or(false)).iter().filter_map(lacking).collect()
    }

    /// The statements that would take from the role what it has too much. Tables of later
    /// migrations are a control node's as well.
    pub(super) fn spare(&self, role: &str, kind: DatabaseRole, audit: Option<bool>) -> Vec<String> {
        let wanted = wanted(kind, audit.unwrap_or(true));
        let known = |held: &&HeldRight| {
            kind != DatabaseRole::Control || CONTROL.iter().any(|(table, _)| *table == held.table)
        };
        let spare = |held: &HeldRight| {
            let right = wanted
                .iter()
                .find(|right| right.table == held.table && right.privilege == held.privilege);
            held.beyond(right, &quoted(role))
        };
        self.0.iter().filter(known).filter_map(spare).collect()
    }
}

impl HeldRight {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let word: &str = row.try_get(1)?;
        let privilege = Privilege::ALL.into_iter().find(|privilege| privilege.as_str() == word);
        let columns: Vec<String> = row.try_get(3)?;
        Ok(Self {
            table: row.try_get(0)?,
            privilege: privilege.unwrap_or(Delete),
            whole: row.try_get(2)?,
            columns: columns.into_iter().collect(),
        })
    }

    /// What takes away all that goes beyond a right, if anything does.
    fn beyond(&self, right: Option<&Right>, role: &str) -> Option<String> {
        let allowed = right.map(|right| right.columns);
        if allowed == Some("") {
            return None;
        }
        let (privilege, table) = (self.privilege.as_str(), quoted(&self.table));
        let revoke = format!("REVOKE {privilege} ON keyward.{table} FROM {role}, PUBLIC");
        let Some(allowed) = allowed else {
            return Some(revoke);
        };
        let allowed: Vec<&str> = allowed.split(' ').collect();
        if self.whole {
            let columns = allowed.join(", ");
            return Some(format!(
                "{revoke}; GRANT {privilege} ({columns}) ON keyward.{table} TO {role}"
            ));
        }
        let extra: Vec<String> = self
            .columns
            .iter()
            .filter(|column| !allowed.contains(&column.as_str()))
            .map(|column| quoted(column))
            .collect();
        let columns = extra.join(", ");
        (!extra.is_empty()).then(|| {
            format!("REVOKE {privilege} ({columns}) ON keyward.{table} FROM {role}, PUBLIC")
        })
    }
}

/// A name as SQL reads it.
pub(super) fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}
