//! PostgreSQL's schema history, the migration run and the context key, all as the owner.

use keyward_core::time::Timestamp;
use tokio_postgres::Client;

use super::config::ContextKey;
use super::migrate::{self, Applied, Migration};
use super::postgres::classify;
use super::postgres_rights::{self, DatabaseRole, Held, StoreRoles};
use super::postgres_session::{Address, pads};
use super::{StoreConfig, StoreError};

/// Names are looked up in the store's schema; temporary tables come last.
const OWNER_SESSION: &str = "SET search_path = keyward, pg_temp; SET lock_timeout = '30s'";

/// Nodes that start at once migrate one after the other; the lock ends with the connection.
const TAKE_MIGRATION_LOCK: &str = "SET lock_timeout = '30s';
    SELECT pg_catalog.pg_advisory_lock(1264941431, 3)";

/// Brings the schema up to date, gives each role its rights, and installs the key. `serving` is
/// the role of the store's address.
pub(super) async fn migrate(
    owner: &Address,
    serving: &str,
    config: &StoreConfig,
) -> Result<(), StoreError> {
    require_apart(owner.role(), serving, &config.roles)?;
    let (mut client, _) = owner.connect().await?;
    let failed = |error| classify("migrate", &error);
    client.batch_execute(TAKE_MIGRATION_LOCK).await.map_err(failed)?;
    let pending = {
        let applied = history(&client).await?;
        migrate::plan(&config.migrations, |migration| migration.postgres, &applied)?
    };
    if !pending.is_empty() {
        let schema = "CREATE SCHEMA IF NOT EXISTS keyward";
        client.batch_execute(schema).await.map_err(failed)?;
    }
    client.batch_execute(OWNER_SESSION).await.map_err(failed)?;
    for migration in &pending {
        run(&mut client, migration, config.now).await?;
        tracing::info!(migration = migration.name, "migrated");
    }
    grant(&client, serving, &config.roles).await?;
    install_key(&client, &config.context_key).await
}

/// Refuses roles that would have to be two things at once.
fn require_apart(owner: &str, serving: &str, roles: &StoreRoles) -> Result<(), StoreError> {
    let named = roles.named();
    if serving == owner || named.iter().any(|(name, _)| *name == owner) {
        return Err(StoreError::Refused(format!(
            "the role `{owner}` that serves is also the one that migrates: create a role of its \
             own for the nodes and use it in the store's address"
        )));
    }
    let twice = |(name, kind): &&(&str, DatabaseRole)| {
        named.iter().any(|(other, use_)| other == name && use_ != kind)
    };
    match named.iter().find(twice) {
        None => Ok(()),
        Some((name, _)) => Err(StoreError::Refused(format!(
            "[store.roles] names `{name}` for two uses: give each a role of its own, or leave \
             one of them out"
        ))),
    }
}

/// Gives every role that is named what its use needs, and the role of the store's address, when
/// it is not named, what it is used for already or else what this node needs. Nothing more stays
/// with any of them.
async fn grant(client: &Client, serving: &str, roles: &StoreRoles) -> Result<(), StoreError> {
    let mut uses = roles.named();
    if !uses.iter().any(|(name, _)| *name == serving) {
        // Other nodes may serve as the same role, and must not lose what they need.
        let used_as = Held::by(client, serving).await?.kind();
        uses.push((serving, used_as.unwrap_or(roles.needed)));
    }
    for (role, kind) in uses {
        require_role(client, role).await?;
        let failed = |error| classify("grant", &error);
        if kind == DatabaseRole::Control {
            let call = "CALL keyward_private.grant_control($1::text::name)";
            client.execute(call, &[&role]).await.map_err(failed)?;
            continue;
        }
        let audit = match roles.audit {
            Some(audit) => audit,
            None => Held::by(client, role).await?.reads_audit(),
        };
        let call = "CALL keyward_private.grant_rights($1::text::name, $2::text::jsonb)";
        let rights = postgres_rights::listed(kind, audit);
        client.execute(call, &[&role, &rights]).await.map_err(failed)?;
    }
    Ok(())
}

async fn require_role(client: &Client, role: &str) -> Result<(), StoreError> {
    let failed = |error| classify("grant", &error);
    let found = "SELECT FROM pg_catalog.pg_roles WHERE rolname = $1";
    if client.query_opt(found, &[&role]).await.map_err(failed)?.is_some() {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "the database has no role `{role}`: run `CREATE ROLE {} LOGIN PASSWORD '…'`",
        postgres_rights::quoted(role)
    )))
}

async fn run(
    client: &mut Client,
    migration: &migrate::Pending,
    now: Timestamp,
) -> Result<(), StoreError> {
    let failed = |error| classify(migration.name, &error);
    let transaction = client.transaction().await.map_err(failed)?;
    let table = "CREATE TABLE IF NOT EXISTS schema_history (version INTEGER PRIMARY KEY,
        name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at_ms BIGINT NOT NULL)";
    transaction.batch_execute(table).await.map_err(failed)?;
    transaction.batch_execute(migration.sql).await.map_err(failed)?;
    let version = i32::try_from(migration.version)
        .map_err(|_| StoreError::Internal("a migration's number is too large".to_owned()))?;
    transaction
        .execute(
            "INSERT INTO schema_history VALUES ($1, $2, $3, $4)",
            &[&version, &migration.name, &migration.checksum, &now.as_millis()],
        )
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// Refuses a schema that is not exactly the one this binary knows, when it may not migrate.
pub(super) async fn require_current(
    client: &Client,
    config: &StoreConfig,
) -> Result<(), StoreError> {
    let applied = match history(client).await {
        Err(StoreError::Refused(text)) => {
            let needed = config.roles.needed.as_str();
            return Err(StoreError::Refused(format!(
                "the role of the store's address has no rights yet ({text}): run `keyward \
                 migrate up` with the owner's address in migrate-url-file and that role under \
                 [store.roles] as `{needed}`"
            )));
        }
        other => other?,
    };
    let known: &[Migration] = &config.migrations;
    let pending = migrate::plan(known, |migration| migration.postgres, &applied)?;
    match pending.first() {
        None => Ok(()),
        Some(first) => Err(StoreError::Refused(format!(
            "the database lacks migration {}: give the owner's address as the store's \
             migrate_url, or run `keyward migrate` with it",
            first.name
        ))),
    }
}

/// The migrations a database has run. Looks only; a database without our schema has none.
pub(super) async fn history(client: &Client) -> Result<Vec<Applied>, StoreError> {
    let failed = |error| classify("schema_history", &error);
    let found = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'keyward' AND c.relname = 'schema_history')";
    // Unnamed statements, which also a transaction pooler passes on.
    let rows = client.query_typed(found, &[]).await.map_err(failed)?;
    let row = rows.first().map(|row| row.try_get(0)).transpose().map_err(failed)?;
    if row != Some(true) {
        return Ok(Vec::new());
    }
    let sql = "SELECT version, name, checksum FROM keyward.schema_history ORDER BY version";
    let rows = client.query_typed(sql, &[]).await.map_err(failed)?;
    let applied = rows.iter().map(|row| {
        let version: i32 = row.try_get(0).map_err(failed)?;
        Ok(Applied {
            version: u32::try_from(version).unwrap_or_default(),
            name: row.try_get(1).map_err(failed)?,
            checksum: row.try_get(2).map_err(failed)?,
        })
    });
    applied.collect()
}

async fn install_key(client: &Client, key: &ContextKey) -> Result<(), StoreError> {
    let [inner, outer] = pads(key);
    let sql = "INSERT INTO keyward_private.context_key AS held VALUES (1, $1, $2)
        ON CONFLICT (id) DO UPDATE SET inner_pad = EXCLUDED.inner_pad,
        outer_pad = EXCLUDED.outer_pad WHERE held.inner_pad <> EXCLUDED.inner_pad";
    let installed = client.execute(sql, &[&*inner, &*outer]).await;
    installed.map(drop).map_err(|error| classify("context_key", &error))
}
