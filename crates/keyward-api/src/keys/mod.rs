//! API keys: the record on the wire and what can be asked of it.

mod change;
mod confirm;
mod explain;
mod patch;
mod query;

use keyward_core::environment::Environment;
use keyward_core::id::{KeyId, TenantId, UserId};
use keyward_core::key::{ApiKey, Exposure, KeyState, RateLimit, RevokeReason};
use keyward_core::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use change::{
    ChangedKey, NarrowKeyScopes, RevokeKey, RotateKey, RotatedKey, UpdateKey, UpdatedKey,
    may_be_chosen,
};
pub use confirm::{ConfirmedKey, ConfirmedKeys, MAX_CONFIRMED};
pub use explain::{ExplainKey, Explanation, IdentifiedKey, IdentifyKey};
pub use patch::Patch;
pub use query::ListKeysQuery;

use crate::bounds::{self, Bounded};
use crate::fence::Fence;
use crate::schema;
use crate::secret::ShownOnce;

/// An API key. It holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Its id, which also stands in the token.
    #[schema(value_type = schema::KeyId)]
    pub id: KeyId,
    /// Its tenant.
    #[schema(value_type = schema::TenantId)]
    pub tenant_id: TenantId,
    /// Where it is valid.
    #[schema(value_type = schema::Environment)]
    pub environment: Environment,
    /// The service that uses it.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// Free text, may be empty.
    #[schema(value_type = schema::Description)]
    pub description: String,
    /// The last four characters of the token, for masks such as `•••••x7Qe`.
    #[schema(min_length = 4, max_length = 4)]
    pub hint: String,
    /// Whether it works now.
    #[schema(value_type = schema::KeyState)]
    pub state: KeyState,
    /// Since when it waits to be confirmed: the deployment was restored from a backup then, and
    /// the key is refused until somebody confirms it. Its state does not change by that.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub suspect_since: Option<Timestamp>,
    /// When it was first seen where others may have seen it too: in clear text, in an address, in a
    /// browser. It works on; rotate it.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub exposed_at: Option<Timestamp>,
    /// How that happened.
    #[schema(required, value_type = Option<schema::Exposure>)]
    pub exposed_by: Option<Exposure>,
    /// The names of its scopes, sorted.
    #[schema(value_type = Vec<schema::ScopeName>)]
    pub scopes: Vec<String>,
    /// The user or service account whose role is its ceiling.
    #[schema(value_type = schema::UserId)]
    pub owner_id: UserId,
    /// Who made it, as the audit trail names them.
    pub created_by: String,
    /// When it was made.
    #[schema(value_type = schema::Instant)]
    pub created_at: Timestamp,
    /// When it stops by itself.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub revoked_at: Option<Timestamp>,
    /// Why it was revoked.
    #[schema(required, value_type = Option<schema::RevokeReason>)]
    pub revoke_reason: Option<RevokeReason>,
    /// Where it may be used from; empty allows every address.
    #[schema(value_type = schema::Networks)]
    pub ip_allowlist: Vec<String>,
    /// Its own rate limit.
    #[schema(required, value_type = Option<schema::RateLimit>)]
    pub rate_limit: Option<RateLimit>,
    /// The first key of its line of rotations; its own id when it was never rotated.
    #[schema(value_type = schema::KeyId)]
    pub lineage_id: KeyId,
    /// The key it took over from.
    #[schema(required, value_type = Option<schema::KeyId>)]
    pub rotated_from: Option<KeyId>,
    /// The key that took over from it.
    #[schema(required, value_type = Option<schema::KeyId>)]
    pub replaced_by: Option<KeyId>,
    /// When it was hidden from lists.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub deleted_at: Option<Timestamp>,
    /// When it last passed all checks. Comes ten seconds late at most, a minute while the key is in
    /// constant use.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub last_used_at: Option<Timestamp>,
    /// The address of that call.
    #[schema(required)]
    pub last_used_ip: Option<String>,
    /// The user agent of that call.
    #[schema(required)]
    pub last_used_agent: Option<String>,
}

impl Key {
    /// The record as callers see it at `now`.
    pub fn new(record: &ApiKey, now: Timestamp) -> Self {
        Self {
            id: record.id,
            tenant_id: record.tenant,
            environment: record.environment,
            name: record.name.clone(),
            description: record.description.clone(),
            hint: record.hint.to_string(),
            state: record.state(now),
            suspect_since: record.suspect_since,
            exposed_at: record.exposed.map(|it| it.at),
            exposed_by: record.exposed.map(|it| it.by),
            scopes: record.scopes.clone(),
            owner_id: record.owner,
            created_by: record.created_by.clone(),
            created_at: record.created_at,
            expires_at: record.expires_at,
            revoked_at: record.revoked_at,
            revoke_reason: record.revoke_reason,
            ip_allowlist: record.ip_allowlist.to_strings(),
            rate_limit: record.rate_limit,
            lineage_id: record.lineage,
            rotated_from: record.rotated_from,
            replaced_by: record.replaced_by,
            deleted_at: record.deleted_at,
            last_used_at: record.last_used_at,
            last_used_ip: record.last_used_ip.clone(),
            last_used_agent: record.last_used_agent.clone(),
        }
    }
}

/// Asks for a new key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "name": "billing worker",
    "environment": "live",
    "scopes": ["reports:read", "audit:read"],
    "expiresInDays": 90,
    "ipAllowlist": ["203.0.113.0/24"],
    "rateLimit": {"limit": 100, "windowSeconds": 60}
}))]
pub struct CreateKey {
    /// The service that will use it.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Description>)]
    pub description: Option<String>,
    /// Where it will be valid.
    #[schema(value_type = schema::Environment)]
    pub environment: Environment,
    /// What it may do. Bare, unknown, wildcard and settings scopes are refused.
    #[schema(value_type = schema::ScopeNames)]
    pub scopes: Vec<String>,
    /// The member or service account who will own it; the caller when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::UserId>)]
    pub owner_id: Option<UserId>,
    /// When it stops by itself; not together with `expiresInDays`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Instant>)]
    pub expires_at: Option<Timestamp>,
    /// Days until it stops by itself; not together with `expiresAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::KeyDays>)]
    pub expires_in_days: Option<u32>,
    /// Where it may be used from; every address when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Networks>)]
    pub ip_allowlist: Option<Vec<String>>,
    /// Its own rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RateLimit>)]
    pub rate_limit: Option<RateLimit>,
}

impl Bounded for CreateKey {
    fn check(&self) -> Result<()> {
        bounds::name("name", &self.name)?;
        check_description(self.description.as_deref())?;
        bounds::scopes("scopes", &self.scopes)?;
        if self.expires_at.is_some() && self.expires_in_days.is_some() {
            let text = "Give either expiresAt or expiresInDays";
            return Err(Error::validation("expiresInDays", text));
        }
        bounds::optional(self.expires_in_days.as_ref(), |days| {
            bounds::number("expiresInDays", *days, 1, bounds::MAX_KEY_DAYS)
        })?;
        bounds::optional(self.ip_allowlist.as_deref(), check_networks)?;
        bounds::optional(self.rate_limit.as_ref(), check_rate_limit)
    }
}

fn check_description(description: Option<&str>) -> Result<()> {
    bounds::optional(description, |text| {
        bounds::text("description", text, bounds::MAX_DESCRIPTION_CHARS)
    })
}

fn check_networks(networks: &[String]) -> Result<()> {
    bounds::count("ipAllowlist", networks.len(), 0, bounds::MAX_NETWORKS)?;
    networks
        .iter()
        .try_for_each(|network| bounds::bytes("ipAllowlist", network, bounds::MAX_NETWORK_BYTES))
}

fn check_rate_limit(limit: &RateLimit) -> Result<()> {
    bounds::number("rateLimit.limit", limit.limit, 1, bounds::MAX_RATE_LIMIT)?;
    let window = limit.window_seconds;
    bounds::number("rateLimit.windowSeconds", window, 1, bounds::MAX_RATE_WINDOW_SECONDS)?;
    bounds::optional(limit.burst.as_ref(), |burst| {
        bounds::number("rateLimit.burst", *burst, 1, bounds::MAX_RATE_LIMIT)
    })
}

/// A key with its secret: the answer of a creation or a re-issue.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyWithSecret {
    /// The record.
    pub key: Key,
    /// The whole token, once; `null` when an idempotent request is answered again.
    #[schema(required)]
    pub secret: Option<ShownOnce>,
    /// Whether this is such an answer again, which cannot show the secret. A key that was never
    /// used can get a new secret within one hour.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret_not_replayable: bool,
    /// From when on every node refuses the secret before this one; only when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
}

impl KeyWithSecret {
    /// The first answer.
    pub fn first(key: Key, secret: ShownOnce) -> Self {
        Self { key, secret: Some(secret), secret_not_replayable: false, fence: None }
    }

    /// The answer to keep for a repetition of the request.
    pub fn replay(key: Key) -> Self {
        Self { key, secret: None, secret_not_replayable: true, fence: None }
    }
}
