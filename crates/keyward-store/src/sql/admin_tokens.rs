//! Admin tokens: credentials of Keyward's own API.

use keyward_core::Timestamp;
use keyward_core::authority::AdminTokenAuthority;
use keyward_core::id::{AdminTokenId, TenantId};
use keyward_core::key::{KeyHash, KeyHint};

use crate::engine::{Row, StoreError, Value};
use crate::sql::read::{
    LoadPage, instant, json_list, key_hash, list, opt_instant, opt_parsed, parsed, told,
};
use crate::sql::statements;
use crate::tx::SystemTx;

macro_rules! columns {
    () => {
        "admin_token_id, name, hint, tenant_id, role, scopes, created_by, created_at, expires_at,
         revoked_at"
    };
}

statements! {
    INSERT = system concat!("INSERT INTO admin_tokens (", columns!(), ", hash, pepper_version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)");
    FIND = system concat!("SELECT ", columns!(), " FROM admin_tokens WHERE admin_token_id = $1");
    PAGE = system concat!("SELECT ", columns!(), " FROM admin_tokens
         WHERE (CAST($1 AS BIGINT) IS NULL OR (created_at, admin_token_id) < ($1, $2))
         ORDER BY created_at DESC, admin_token_id DESC LIMIT $3");
    REVOKE = system "UPDATE admin_tokens SET revoked_at = $2
         WHERE admin_token_id = $1 AND revoked_at IS NULL";
    AUTHORITY = system "SELECT admin_token_id, name, tenant_id, role, scopes, expires_at,
           revoked_at, hash, pepper_version
         FROM admin_tokens WHERE admin_token_id = $1";
    ALL_AUTHORITY = system "SELECT admin_token_id, name, tenant_id, role, scopes, expires_at,
           revoked_at, hash, pepper_version
         FROM admin_tokens WHERE admin_token_id > $1 ORDER BY admin_token_id LIMIT $2";
}

/// The record of an admin token. It holds no secret and no hash.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminToken {
    /// Its id, which also stands in the token.
    pub id: AdminTokenId,
    /// What it is for.
    pub name: String,
    /// The last four characters of the token.
    pub hint: KeyHint,
    /// The one tenant it may act in.
    pub tenant: Option<TenantId>,
    /// The role it acts with in its tenant.
    pub role: Option<String>,
    /// Keyward's own scopes, by name.
    pub scopes: Vec<String>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

fn token_of(row: &Row) -> Result<AdminToken, StoreError> {
    let hint: Option<[u8; 4]> = row.text(2)?.as_bytes().try_into().ok();
    Ok(AdminToken {
        id: parsed(row, 0)?,
        name: row.text(1)?.to_owned(),
        hint: hint.and_then(KeyHint::new).ok_or_else(|| row.corrupt(2, "not a hint"))?,
        tenant: opt_parsed(row, 3)?,
        role: row.opt_text(4)?.map(str::to_owned),
        scopes: list(row, 5)?,
        created_by: row.text(6)?.to_owned(),
        created_at: instant(row, 7)?,
        expires_at: opt_instant(row, 8)?,
        revoked_at: opt_instant(row, 9)?,
    })
}

fn authority_of(row: &Row) -> Result<AdminTokenAuthority, StoreError> {
    let (hash, pepper_version) = key_hash(row, 7)?;
    Ok(AdminTokenAuthority {
        id: parsed(row, 0)?,
        name: row.text(1)?.to_owned(),
        tenant: opt_parsed(row, 2)?,
        role: row.opt_text(3)?.map(str::to_owned),
        scopes: list(row, 4)?,
        expires_at: opt_instant(row, 5)?,
        revoked_at: opt_instant(row, 6)?,
        hash,
        pepper_version,
    })
}

impl SystemTx {
    /// Adds an admin token with the hash of its secret.
    pub async fn insert_admin_token(
        &mut self,
        token: &AdminToken,
        hash: &KeyHash,
        pepper_version: u16,
    ) -> Result<(), StoreError> {
        let values = [
            Value::from(token.id.to_string()),
            Value::from(token.name.as_str()),
            Value::from(token.hint.to_string()),
            Value::from(token.tenant.map(|id| id.to_string())),
            Value::from(token.role.as_deref()),
            Value::from(json_list(&token.scopes)),
            Value::from(token.created_by.as_str()),
            Value::from(token.created_at.as_millis()),
            Value::from(token.expires_at.map(Timestamp::as_millis)),
            Value::from(token.revoked_at.map(Timestamp::as_millis)),
            Value::from(&hash.as_bytes()[..]),
            Value::from(u32::from(pepper_version)),
        ];
        self.execute(&INSERT, values).await.map(drop)
    }

    /// The admin token with this id.
    pub async fn find_admin_token(
        &mut self,
        id: AdminTokenId,
    ) -> Result<Option<AdminToken>, StoreError> {
        let row = self.query_opt(&FIND, [Value::from(id.to_string())]).await?;
        row.as_ref().map(token_of).transpose()
    }

    /// A page of all admin tokens, newest first and behind `before` (its creation and id).
    pub async fn admin_tokens(
        &mut self,
        before: Option<(Timestamp, AdminTokenId)>,
        limit: u32,
    ) -> Result<Vec<AdminToken>, StoreError> {
        let values = [
            Value::from(before.map(|(at, _)| at.as_millis())),
            Value::from(before.map(|(_, id)| id.to_string())),
            Value::from(limit),
        ];
        self.query(&PAGE, values).await?.iter().map(token_of).collect()
    }

    /// Revokes an admin token; `false` when it was revoked already or is not there.
    pub async fn revoke_admin_token(
        &mut self,
        id: AdminTokenId,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let values = [Value::from(id.to_string()), Value::from(at.as_millis())];
        Ok(self.execute(&REVOKE, values).await? == 1)
    }

    /// An admin token as a node decides with it.
    pub async fn admin_token_authority(
        &mut self,
        id: AdminTokenId,
    ) -> Result<Option<AdminTokenAuthority>, StoreError> {
        let row = self.query_opt(&AUTHORITY, [Value::from(id.to_string())]).await?;
        Ok(row.as_ref().and_then(|row| told(authority_of(row))))
    }

    /// A page of all admin tokens as a node decides with them. The first is behind the empty text.
    pub async fn admin_token_authorities(
        &mut self,
        [after]: [String; 1],
        limit: u32,
    ) -> Result<LoadPage<AdminTokenAuthority, 1>, StoreError> {
        let rows = self.query(&ALL_AUTHORITY, [Value::from(after), Value::from(limit)]).await?;
        LoadPage::new(rows, [0], authority_of)
    }
}
