//! What nodes load to decide from memory.

use keyward_core::authority::{KeyAuthority, MemberAuthority, TenantAuthority};
use keyward_core::id::{KeyId, TenantId, UserId};

use crate::engine::{Row, StoreError, Value};
use crate::sql::keys::{ExposedKey, LastUse};
use crate::sql::read::{LoadPage, key_hash, list, networks, opt_instant, parsed, told};
use crate::sql::statements;
use crate::store::Store;
use crate::tx::SystemTx;
use crate::tx::sealed::Connected as _;

macro_rules! key_columns {
    () => {
        "tenant_id, key_id, environment, scopes, owner_id, name, expires_at, revoked_at,
         ip_allowlist, hash, pepper_version, suspect_since"
    };
}

statements! {
    KEY = system concat!("SELECT ", key_columns!(), " FROM api_keys WHERE key_id = $1");
    KEYS = system concat!("SELECT ", key_columns!(), " FROM api_keys
         WHERE (tenant_id, key_id) > ($1, $2) ORDER BY tenant_id, key_id LIMIT $3");
    KEYS_AMONG = system concat!("SELECT ", key_columns!(), " FROM api_keys WHERE key_id IN (
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
            $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34,
            $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50)");
    MEMBER = system "SELECT tenant_id, user_id, role FROM memberships
         WHERE tenant_id = $1 AND user_id = $2 AND offboarded_at IS NULL";
    MEMBERS = system "SELECT tenant_id, user_id, role FROM memberships
         WHERE offboarded_at IS NULL AND (tenant_id, user_id) > ($1, $2)
         ORDER BY tenant_id, user_id LIMIT $3";
    TENANT = system "SELECT tenant_id, slug, suspended_at FROM tenants WHERE tenant_id = $1";
    TENANTS = system "SELECT tenant_id, slug, suspended_at FROM tenants
         WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2";
}

// A page is found by the index it is ordered by. A condition that is void for the first page, such
// as `$1 IS NULL OR …`, would walk that index from its beginning for every page: every id is behind
// the empty text instead.

/// Keys that are read with one statement.
const KEYS_AT_ONCE: usize = 50;

fn key_of(row: &Row) -> Result<KeyAuthority, StoreError> {
    let (hash, pepper_version) = key_hash(row, 9)?;
    Ok(KeyAuthority {
        tenant: parsed(row, 0)?,
        id: parsed(row, 1)?,
        environment: parsed(row, 2)?,
        scopes: list(row, 3)?,
        owner: parsed(row, 4)?,
        name: row.text(5)?.to_owned(),
        expires_at: opt_instant(row, 6)?,
        revoked_at: opt_instant(row, 7)?,
        suspect_since: opt_instant(row, 11)?,
        ip_allowlist: networks(row, 8)?,
        hash,
        pepper_version,
    })
}

fn member_of(row: &Row) -> Result<MemberAuthority, StoreError> {
    Ok(MemberAuthority {
        tenant: parsed(row, 0)?,
        user: parsed(row, 1)?,
        role: row.text(2)?.to_owned(),
    })
}

fn tenant_of(row: &Row) -> Result<TenantAuthority, StoreError> {
    Ok(TenantAuthority {
        id: parsed(row, 0)?,
        slug: row.text(1)?.to_owned(),
        suspended: row.opt_int(2)?.is_some(),
    })
}

impl SystemTx {
    /// A key as a node decides with it.
    pub async fn key_authority(&mut self, key: KeyId) -> Result<Option<KeyAuthority>, StoreError> {
        let row = self.query_opt(&KEY, [Value::from(key.to_string())]).await?;
        Ok(row.as_ref().and_then(|row| told(key_of(row))))
    }

    /// Keys as a node decides with them, in no order and without those that do not exist. What one
    /// change touched must be read within one ask, however far away the server is.
    pub(super) async fn key_authorities_among(
        &mut self,
        keys: &[KeyId],
    ) -> Result<Vec<KeyAuthority>, StoreError> {
        if let [only] = keys {
            return Ok(self.key_authority(*only).await?.into_iter().collect());
        }
        let mut found = Vec::with_capacity(keys.len());
        for part in keys.chunks(KEYS_AT_ONCE) {
            // a place that is left over names none
            let id = |at: usize| Value::from(part.get(at).map(ToString::to_string));
            let ids: [Value; KEYS_AT_ONCE] = std::array::from_fn(id);
            let rows = self.query(&KEYS_AMONG, ids).await?;
            found.extend(rows.iter().filter_map(|row| told(key_of(row))));
        }
        Ok(found)
    }

    /// A page of all keys as a node decides with them, in the order in which the table has them:
    /// by tenant and id. The first is behind two empty texts.
    pub async fn key_authorities(
        &mut self,
        [tenant, key]: [String; 2],
        limit: u32,
    ) -> Result<LoadPage<KeyAuthority, 2>, StoreError> {
        let values = [Value::from(tenant), Value::from(key), Value::from(limit)];
        LoadPage::new(self.query(&KEYS, values).await?, [0, 1], key_of)
    }

    /// The role of a user in a tenant; `None` when they left or never were in it.
    pub async fn member_authority(
        &mut self,
        tenant: TenantId,
        user: UserId,
    ) -> Result<Option<MemberAuthority>, StoreError> {
        let values = [Value::from(tenant.to_string()), Value::from(user.to_string())];
        self.query_opt(&MEMBER, values).await?.as_ref().map(member_of).transpose()
    }

    /// A page of all memberships.
    pub async fn member_authorities(
        &mut self,
        after: Option<(TenantId, UserId)>,
        limit: u32,
    ) -> Result<Vec<MemberAuthority>, StoreError> {
        let (tenant, user) =
            after.map(|(tenant, user)| (tenant.to_string(), user.to_string())).unwrap_or_default();
        let values = [Value::from(tenant), Value::from(user), Value::from(limit)];
        self.query(&MEMBERS, values).await?.iter().map(member_of).collect()
    }

    /// A tenant as a node decides with it.
    pub async fn tenant_authority(
        &mut self,
        tenant: TenantId,
    ) -> Result<Option<TenantAuthority>, StoreError> {
        let row = self.query_opt(&TENANT, [Value::from(tenant.to_string())]).await?;
        row.as_ref().map(tenant_of).transpose()
    }

    /// A page of all tenants as a node decides with them.
    pub async fn tenant_authorities(
        &mut self,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantAuthority>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.query(&TENANTS, [Value::from(after), Value::from(limit)])
            .await?
            .iter()
            .map(tenant_of)
            .collect()
    }
}

impl Store {
    /// Notes the last accepted calls of keys. This is housekeeping, not a change: no audit event,
    /// no epoch, and the only columns it touches say when a key was used.
    pub async fn record_last_use(&self, uses: &[LastUse]) -> Result<(), StoreError> {
        if uses.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin_housekeeping("note the last use of keys").await?;
        tx.touch_keys(uses).await?;
        tx.into_conn().commit().await
    }

    /// Marks keys as exposed; what was marked first stays. Housekeeping as well: nothing is decided
    /// by it.
    pub async fn record_exposures(&self, keys: &[ExposedKey]) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin_housekeeping("mark exposed keys").await?;
        tx.expose_keys(keys).await?;
        tx.into_conn().commit().await
    }

    /// Forgets idempotency keys whose time is over; answers how many.
    pub async fn purge_idempotency(&self) -> Result<u64, StoreError> {
        let mut tx = self.begin_housekeeping("forget old idempotency keys").await?;
        let now = self.clock().now();
        let purged = tx.purge_idempotency(now).await?;
        tx.into_conn().commit().await?;
        Ok(purged)
    }
}
