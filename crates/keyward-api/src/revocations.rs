//! The log of lowered authority: what a restore from a backup must take away again.

use keyward_core::id::{AdminTokenId, KeyId, TenantId, UserId};
use keyward_core::key::RevokeReason;
use keyward_core::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounds::{self, Bounded};
use crate::schema;

/// Changes read for one page when the caller names no limit.
pub const DEFAULT_REVOCATIONS_LIMIT: u32 = 500;
/// The most changes read for one page.
pub const MAX_REVOCATIONS_LIMIT: u32 = 1_000;
/// The greatest epoch there is: whole numbers of JSON are exact up to here.
pub const MAX_EPOCH: u64 = (1 << 53) - 1;

/// A key that was changed, as it stands now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoweredKey {
    /// Its tenant.
    #[schema(value_type = schema::TenantId)]
    pub tenant_id: TenantId,
    /// Its id.
    #[schema(value_type = schema::KeyId)]
    pub key_id: KeyId,
    /// When it was revoked.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub revoked_at: Option<Timestamp>,
    /// Why it was revoked.
    #[schema(required, value_type = Option<schema::RevokeReason>)]
    pub revoke_reason: Option<RevokeReason>,
    /// When it stops by itself.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub expires_at: Option<Timestamp>,
    /// The names of its scopes.
    #[schema(value_type = Vec<schema::ScopeName>)]
    pub scopes: Vec<String>,
    /// Where it may be used from; empty allows every address.
    #[schema(value_type = schema::Networks)]
    pub ip_allowlist: Vec<String>,
    /// The user or service account whose role is its ceiling.
    #[schema(value_type = schema::UserId)]
    pub owner_id: UserId,
    /// The last four characters of the token, which tell whether its secret is another one since.
    #[schema(min_length = 4, max_length = 4)]
    pub hint: String,
    /// Since when it waits to be confirmed after a restore.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub suspect_since: Option<Timestamp>,
}

/// A membership that was changed, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoweredMember {
    /// The tenant.
    #[schema(value_type = schema::TenantId)]
    pub tenant_id: TenantId,
    /// The user.
    #[schema(value_type = schema::UserId)]
    pub user_id: UserId,
    /// The role.
    #[schema(value_type = schema::RoleName)]
    pub role: String,
    /// When they left.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub offboarded_at: Option<Timestamp>,
}

/// A tenant that was changed, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoweredTenant {
    /// The tenant.
    #[schema(value_type = schema::TenantId)]
    pub tenant_id: TenantId,
    /// Since when it is suspended.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub suspended_at: Option<Timestamp>,
    /// Why it is suspended.
    #[schema(required)]
    pub suspend_reason: Option<String>,
}

/// An admin token that was changed, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoweredAdminToken {
    /// Its id.
    #[schema(value_type = schema::AdminTokenId)]
    pub admin_token_id: AdminTokenId,
    /// When it was revoked.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub revoked_at: Option<Timestamp>,
    /// When it stops by itself.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub expires_at: Option<Timestamp>,
    /// Keyward's own scopes, by name.
    pub scopes: Vec<String>,
}

/// One entry of the log: whose authority changed, and what is left of it now. Exactly one of the
/// four is there. No secret and no hash is among them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocation {
    /// The number of the last change that touched it.
    pub epoch: u64,
    /// A key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<LoweredKey>,
    /// A membership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<LoweredMember>,
    /// A tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<LoweredTenant>,
    /// An admin token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_token: Option<LoweredAdminToken>,
}

/// A part of the log, in the order of the epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationPage {
    /// Which history the epochs belong to; every restore begins another one.
    pub incarnation: u64,
    /// The newest change there is.
    pub epoch: u64,
    /// The entries. One whose change is repeated later may stand here as well as there.
    pub data: Vec<Revocation>,
    /// Send it as `after` to get the next part; `null` when this one reaches `epoch`.
    #[schema(required)]
    pub next_after: Option<u64>,
}

/// Which part of the log is wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RevocationsQuery {
    /// Changes behind this epoch; from the first one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub after: Option<u64>,
    /// Changes per part, 1 to 1000; 500 when absent. A part ends with a whole epoch, so it may
    /// hold some more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000, default = 500)]
    pub limit: Option<u32>,
}

impl Bounded for RevocationsQuery {
    fn check(&self) -> Result<()> {
        bounds::optional(self.limit.as_ref(), |limit| {
            bounds::number("limit", *limit, 1, MAX_REVOCATIONS_LIMIT)
        })?;
        if self.after.is_some_and(|epoch| epoch > MAX_EPOCH) {
            let text = "after is the epoch of an answer, at most 9007199254740991";
            return Err(keyward_core::Error::validation("after", text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_limits_are_the_checked_ones() {
        let text = serde_json::to_string(&RevocationsQuery::into_params(|| None)).unwrap();
        assert!(text.contains(&format!("\"maximum\":{MAX_REVOCATIONS_LIMIT}")), "{text}");
        assert!(text.contains(&format!("\"default\":{DEFAULT_REVOCATIONS_LIMIT}")), "{text}");
        let query = |after, limit| RevocationsQuery { after, limit }.check();
        assert!(query(Some(MAX_EPOCH), Some(1)).is_ok());
        assert!(query(Some(MAX_EPOCH + 1), None).is_err());
        assert!(query(None, Some(0)).is_err());
        assert!(query(None, Some(MAX_REVOCATIONS_LIMIT + 1)).is_err());
    }

    #[test]
    fn an_entry_holds_what_it_is_about_and_nothing_else() {
        let entry = Revocation {
            epoch: 7,
            tenant: Some(LoweredTenant {
                tenant_id: TenantId::from_bits(1),
                suspended_at: None,
                suspend_reason: None,
            }),
            ..Revocation::default()
        };
        let text = serde_json::to_string(&entry).unwrap();
        assert!(!text.contains("key") && !text.contains("member"), "{text}");
        assert_eq!(serde_json::from_str::<Revocation>(&text).unwrap(), entry);
    }
}
