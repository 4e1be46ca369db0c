//! API keys: the record, without its hash.

use keyward_core::id::{KeyId, UserId};
use keyward_core::key::{ApiKey, Exposed, Exposure, KeyHash, KeyHint, KeyState, RevokeReason};
use keyward_core::{Environment, Timestamp};

use serde_json::json;

use crate::engine::{self, Row, StoreError, Value};
use crate::sql::read::{instant, json_list, list, networks, opt_instant, opt_parsed, parsed};
use crate::sql::statements;
use crate::tx::{SystemTx, TenantTx};

macro_rules! columns {
    () => {
        "tenant_id, key_id, environment, name, description, hint, scopes, owner_id, created_by,
         created_at, expires_at, revoked_at, revoke_reason, ip_allowlist, rate_limit, lineage_id,
         rotated_from, replaced_by, deleted_at, last_used_at, last_used_ip, last_used_agent,
         suspect_since, exposed_at, exposed_by"
    };
}

statements! {
    INSERT = tenant concat!("INSERT INTO api_keys (", columns!(), ", hash, pepper_version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
           $19, $20, $21, $22, $23, $24, $25, $26, $27)");
    // revoked is for ever: no write takes it back
    UPDATE = tenant
        "UPDATE api_keys SET name = $3, description = $4, scopes = $5, owner_id = $6,
           expires_at = $7, revoked_at = COALESCE(revoked_at, $8),
           revoke_reason = COALESCE(revoke_reason, $9), ip_allowlist = $10,
           rate_limit = $11, replaced_by = $12, deleted_at = $13, suspect_since = $14
         WHERE tenant_id = $1 AND key_id = $2";
    SET_SECRET = tenant
        "UPDATE api_keys SET hash = $3, pepper_version = $4, hint = $5
         WHERE tenant_id = $1 AND key_id = $2";
    FIND = tenant concat!("SELECT ", columns!(),
        " FROM api_keys WHERE tenant_id = $1 AND key_id = $2");
    BY_OWNER = tenant concat!("SELECT ", columns!(), " FROM api_keys
         WHERE tenant_id = $1 AND owner_id = $2 AND revoked_at IS NULL
           AND (expires_at IS NULL OR expires_at > $3)
         ORDER BY key_id LIMIT $4");
    PAGE = tenant concat!("SELECT ", columns!(), " FROM api_keys WHERE tenant_id = $1
           AND (CAST($2 AS BIGINT) IS NULL OR (created_at, key_id) < ($2, $3))
           AND (CAST($4 AS TEXT) IS NULL OR environment = $4)
           AND (CAST($5 AS TEXT) IS NULL OR owner_id = $5)
           AND (CAST($6 AS TEXT) IS NULL OR REPLACE(scopes, $6, '') <> scopes)
           AND (CAST($7 AS TEXT) IS NULL OR key_id = $7 OR hint = $7
                OR REPLACE(LOWER(name), LOWER($7), '') <> LOWER(name)
                OR REPLACE(LOWER(description), LOWER($7), '') <> LOWER(description))
           AND (CAST($8 AS BIGINT) IS NULL OR COALESCE(last_used_at, created_at) < $8)
           AND (CAST($9 AS TEXT) IS NULL OR $9 =
                CASE WHEN revoked_at IS NOT NULL THEN 'revoked'
                     WHEN expires_at IS NOT NULL AND expires_at <= $10 THEN 'expired'
                     ELSE 'active' END)
           AND (CAST($11 AS BIGINT) = 1 OR deleted_at IS NULL)
           AND (CAST($12 AS BIGINT) IS NULL OR ($12 = 1) = (suspect_since IS NOT NULL))
         ORDER BY created_at DESC, key_id DESC LIMIT $13");
    SUSPECTS = tenant concat!("SELECT ", columns!(), " FROM api_keys WHERE tenant_id = $1
           AND suspect_since IS NOT NULL AND revoked_at IS NULL AND deleted_at IS NULL
           AND (expires_at IS NULL OR expires_at > $2) AND owner_id IN (
             SELECT user_id FROM memberships
             WHERE tenant_id = $1 AND role = $3 AND offboarded_at IS NULL)
         ORDER BY key_id LIMIT $4");
    COUNT_SUSPECTS = tenant "SELECT COUNT(*) FROM api_keys WHERE tenant_id = $1
           AND suspect_since IS NOT NULL AND revoked_at IS NULL AND deleted_at IS NULL
           AND (expires_at IS NULL OR expires_at > $2)";
    TOUCH = system_by_engine (engine::sqlite::TOUCH_KEYS, engine::postgres::TOUCH_KEYS);
    EXPOSE = system_by_engine (engine::sqlite::EXPOSE_KEYS, engine::postgres::EXPOSE_KEYS);
    FIND_ANYWHERE = system concat!("SELECT ", columns!(), ", hash, pepper_version
         FROM api_keys WHERE key_id = $1");
}

/// Which keys a page holds. The newest come first.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    /// Only keys behind this one, by creation and id.
    pub before: Option<(Timestamp, KeyId)>,
    /// Only those of this environment.
    pub environment: Option<Environment>,
    /// Only those of this owner.
    pub owner: Option<UserId>,
    /// Only those that carry this scope.
    pub scope: Option<String>,
    /// Only those with this text in the name, or as id or last four characters.
    pub text: Option<String>,
    /// Only those not used (or made) since this instant.
    pub unused_since: Option<Timestamp>,
    /// Only those in this state.
    pub state: Option<KeyState>,
    /// Only those that wait to be confirmed, or only the others.
    pub suspect: Option<bool>,
    /// Also those that were deleted.
    pub include_deleted: bool,
    /// How many at most.
    pub limit: u32,
}

/// A key that was seen where others may have seen it too.
#[derive(Clone, Debug)]
pub struct ExposedKey {
    /// The tenant of the key.
    pub tenant: keyward_core::id::TenantId,
    /// The key.
    pub key: KeyId,
    /// When, and how.
    pub exposed: Exposed,
}

/// The last accepted call of a key.
#[derive(Clone, Debug)]
pub struct LastUse {
    /// The tenant of the key.
    pub tenant: keyward_core::id::TenantId,
    /// The key.
    pub key: KeyId,
    /// When the call was accepted.
    pub at: Timestamp,
    /// The caller's address.
    pub ip: Option<String>,
    /// The caller's user agent.
    pub agent: Option<String>,
}

/// A key with what is stored of its secret.
pub struct StoredKey {
    /// The record.
    pub key: ApiKey,
    /// The hash of its secret.
    pub hash: KeyHash,
    /// The version of the pepper behind the hash.
    pub pepper_version: u16,
}

fn key_of(row: &Row) -> Result<ApiKey, StoreError> {
    let optional = |column: usize| row.opt_text(column).map(|text| text.map(str::to_owned));
    let hint: Option<[u8; 4]> = row.text(5)?.as_bytes().try_into().ok();
    let rate_limit = row.opt_text(14)?.map(serde_json::from_str).transpose();
    let reason = row
        .opt_text(12)?
        .map(|word| RevokeReason::from_word(word).ok_or_else(|| row.corrupt(12, "not a reason")));
    Ok(ApiKey {
        tenant: parsed(row, 0)?,
        id: parsed(row, 1)?,
        environment: parsed(row, 2)?,
        name: row.text(3)?.to_owned(),
        description: row.text(4)?.to_owned(),
        hint: hint.and_then(KeyHint::new).ok_or_else(|| row.corrupt(5, "not a hint"))?,
        scopes: list(row, 6)?,
        owner: parsed(row, 7)?,
        created_by: row.text(8)?.to_owned(),
        created_at: instant(row, 9)?,
        expires_at: opt_instant(row, 10)?,
        revoked_at: opt_instant(row, 11)?,
        revoke_reason: reason.transpose()?,
        ip_allowlist: networks(row, 13)?,
        rate_limit: rate_limit.map_err(|e| row.corrupt(14, e.to_string()))?,
        lineage: parsed(row, 15)?,
        rotated_from: opt_parsed(row, 16)?,
        replaced_by: opt_parsed(row, 17)?,
        deleted_at: opt_instant(row, 18)?,
        last_used_at: opt_instant(row, 19)?,
        last_used_ip: optional(20)?,
        last_used_agent: optional(21)?,
        suspect_since: opt_instant(row, 22)?,
        exposed: exposed(row)?,
    })
}

fn exposed(row: &Row) -> Result<Option<Exposed>, StoreError> {
    let (at, by) = (opt_instant(row, 23)?, row.opt_text(24)?);
    let (Some(at), Some(word)) = (at, by) else { return Ok(None) };
    let by = Exposure::from_word(word).ok_or_else(|| row.corrupt(24, "not an exposure"))?;
    Ok(Some(Exposed { at, by }))
}

fn millis(instant: Option<Timestamp>) -> Value {
    Value::from(instant.map(Timestamp::as_millis))
}

fn rate_limit_json(key: &ApiKey) -> Value {
    Value::from(key.rate_limit.and_then(|limit| serde_json::to_string(&limit).ok()))
}

impl TenantTx {
    /// Adds a key of this tenant with the hash of its secret.
    pub async fn insert_key(
        &mut self,
        key: &ApiKey,
        hash: &KeyHash,
        pepper_version: u16,
    ) -> Result<(), StoreError> {
        let values = [
            Value::from(key.id.to_string()),
            Value::from(key.environment.as_str()),
            Value::from(key.name.as_str()),
            Value::from(key.description.as_str()),
            Value::from(key.hint.to_string()),
            Value::from(json_list(&key.scopes)),
            Value::from(key.owner.to_string()),
            Value::from(key.created_by.as_str()),
            Value::from(key.created_at.as_millis()),
            millis(key.expires_at),
            millis(key.revoked_at),
            Value::from(key.revoke_reason.map(RevokeReason::as_str)),
            Value::from(json_list(&key.ip_allowlist.to_strings())),
            rate_limit_json(key),
            Value::from(key.lineage.to_string()),
            Value::from(key.rotated_from.map(|id| id.to_string())),
            Value::from(key.replaced_by.map(|id| id.to_string())),
            millis(key.deleted_at),
            millis(key.last_used_at),
            Value::from(key.last_used_ip.as_deref()),
            Value::from(key.last_used_agent.as_deref()),
            millis(key.suspect_since),
            millis(key.exposed.map(|it| it.at)),
            Value::from(key.exposed.map(|it| it.by.as_str())),
            Value::from(&hash.as_bytes()[..]),
            Value::from(u32::from(pepper_version)),
        ];
        self.execute(&INSERT, values).await.map(drop)
    }

    /// Writes what can change of a key's record.
    pub async fn update_key(&mut self, key: &ApiKey) -> Result<(), StoreError> {
        let values = [
            Value::from(key.id.to_string()),
            Value::from(key.name.as_str()),
            Value::from(key.description.as_str()),
            Value::from(json_list(&key.scopes)),
            Value::from(key.owner.to_string()),
            millis(key.expires_at),
            millis(key.revoked_at),
            Value::from(key.revoke_reason.map(RevokeReason::as_str)),
            Value::from(json_list(&key.ip_allowlist.to_strings())),
            rate_limit_json(key),
            Value::from(key.replaced_by.map(|id| id.to_string())),
            millis(key.deleted_at),
            millis(key.suspect_since),
        ];
        self.execute(&UPDATE, values).await.map(drop)
    }

    /// Gives a key another secret.
    pub async fn set_key_secret(
        &mut self,
        key: KeyId,
        hash: &KeyHash,
        pepper_version: u16,
        hint: KeyHint,
    ) -> Result<(), StoreError> {
        let values = [
            Value::from(key.to_string()),
            Value::from(&hash.as_bytes()[..]),
            Value::from(u32::from(pepper_version)),
            Value::from(hint.to_string()),
        ];
        self.execute(&SET_SECRET, values).await.map(drop)
    }

    /// A key of this tenant, also a deleted one.
    pub async fn find_key(&mut self, key: KeyId) -> Result<Option<ApiKey>, StoreError> {
        let row = self.query_opt(&FIND, [Value::from(key.to_string())]).await?;
        row.as_ref().map(key_of).transpose()
    }

    /// The active keys of an owner, at most `limit`.
    pub async fn active_keys_of(
        &mut self,
        owner: UserId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ApiKey>, StoreError> {
        let values =
            [Value::from(owner.to_string()), Value::from(now.as_millis()), Value::from(limit)];
        self.query(&BY_OWNER, values).await?.iter().map(key_of).collect()
    }

    /// A page of the tenant's keys, newest first.
    pub async fn keys(
        &mut self,
        filter: &KeyFilter,
        now: Timestamp,
    ) -> Result<Vec<ApiKey>, StoreError> {
        // a scope stands in the column as a JSON string, quotes included
        let scope = filter.scope.as_deref().map(|s| serde_json::Value::from(s).to_string());
        let values = [
            Value::from(filter.before.map(|(at, _)| at.as_millis())),
            Value::from(filter.before.map(|(_, id)| id.to_string())),
            Value::from(filter.environment.map(Environment::as_str)),
            Value::from(filter.owner.map(|id| id.to_string())),
            Value::from(scope),
            Value::from(filter.text.as_deref()),
            millis(filter.unused_since),
            Value::from(filter.state.map(KeyState::as_str)),
            Value::from(now.as_millis()),
            Value::from(filter.include_deleted),
            Value::from(filter.suspect),
            Value::from(filter.limit),
        ];
        self.query(&PAGE, values).await?.iter().map(key_of).collect()
    }

    /// Active keys that wait to be confirmed and whose owner has this role now, at most `limit`.
    pub async fn suspect_keys(
        &mut self,
        role: &str,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ApiKey>, StoreError> {
        let values = [Value::from(now.as_millis()), Value::from(role), Value::from(limit)];
        self.query(&SUSPECTS, values).await?.iter().map(key_of).collect()
    }

    /// How many active keys wait to be confirmed.
    pub async fn count_suspect_keys(&mut self, now: Timestamp) -> Result<i64, StoreError> {
        let row = self.query_opt(&COUNT_SUSPECTS, [Value::from(now.as_millis())]).await?;
        row.map_or(Ok(0), |row| row.int(0))
    }
}

impl SystemTx {
    /// Notes the last accepted calls of keys, unless later ones are noted, in one statement.
    pub(crate) async fn touch_keys(&mut self, uses: &[LastUse]) -> Result<(), StoreError> {
        let rows: Vec<_> = uses
            .iter()
            .map(|used| {
                json!({
                    "tenant": used.tenant,
                    "key": used.key,
                    "at": used.at.as_millis(),
                    "ip": used.ip,
                    "agent": used.agent,
                })
            })
            .collect();
        let rows = serde_json::Value::from(rows).to_string();
        self.execute(&TOUCH, [Value::from(rows)]).await.map(drop)
    }

    /// Marks keys as exposed that are not marked yet, in one statement.
    pub(crate) async fn expose_keys(&mut self, keys: &[ExposedKey]) -> Result<(), StoreError> {
        let rows: Vec<_> = keys
            .iter()
            .map(|it| {
                json!({
                    "tenant": it.tenant,
                    "key": it.key,
                    "at": it.exposed.at.as_millis(),
                    "by": it.exposed.by.as_str(),
                })
            })
            .collect();
        let rows = serde_json::Value::from(rows).to_string();
        self.execute(&EXPOSE, [Value::from(rows)]).await.map(drop)
    }

    /// A key of any tenant, to identify a pasted secret.
    pub async fn find_stored_key(&mut self, key: KeyId) -> Result<Option<StoredKey>, StoreError> {
        let row = self.query_opt(&FIND_ANYWHERE, [Value::from(key.to_string())]).await?;
        let Some(row) = row else { return Ok(None) };
        let (hash, pepper_version) = super::read::key_hash(&row, 25)?;
        Ok(Some(StoredKey { key: key_of(&row)?, hash, pepper_version }))
    }
}
