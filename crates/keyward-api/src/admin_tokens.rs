//! Admin tokens: credentials for Keyward's own API, made like keys.

use keyward_core::id::{AdminTokenId, TenantId};
use keyward_core::key::KeyState;
use keyward_core::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bounds::{self, Bounded};
use crate::fence::Fence;
use crate::schema;
use crate::scope::ManagementScope;
use crate::secret::ShownOnce;

/// An admin token. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminToken {
    /// Its id.
    #[schema(value_type = schema::AdminTokenId)]
    pub id: AdminTokenId,
    /// The name people read.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// The one tenant it is for; `null` for a token of the operator.
    #[schema(required, value_type = Option<schema::TenantId>)]
    pub tenant_id: Option<TenantId>,
    /// The role it acts with in that tenant.
    #[schema(required, value_type = Option<schema::RoleName>)]
    pub role: Option<String>,
    /// What it may do.
    pub scopes: Vec<ManagementScope>,
    /// The last four characters of the token.
    #[schema(min_length = 4, max_length = 4)]
    pub hint: String,
    /// Whether it works now.
    #[schema(value_type = schema::KeyState)]
    pub state: KeyState,
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
}

/// Asks for a new admin token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "name": "deploy pipeline",
    "scopes": ["keys:read", "keys:write"],
    "expiresInDays": 30,
}))]
pub struct CreateAdminToken {
    /// The name people read.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// The one tenant it is for; needs `role`. Absent: a token of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TenantId>)]
    pub tenant_id: Option<TenantId>,
    /// The role it acts with in that tenant; needs `tenantId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::RoleName>)]
    pub role: Option<String>,
    /// What it may do, no more than the caller may.
    #[schema(min_items = 1, max_items = 64)]
    pub scopes: Vec<ManagementScope>,
    /// Days until it stops by itself; 90 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::AdminTokenDays>)]
    pub expires_in_days: Option<u32>,
}

impl CreateAdminToken {
    /// Days until it stops by itself, with the default where none is named.
    pub fn days(&self) -> u32 {
        self.expires_in_days.unwrap_or(bounds::DEFAULT_ADMIN_TOKEN_DAYS)
    }
}

impl Bounded for CreateAdminToken {
    fn check(&self) -> Result<()> {
        bounds::name("name", &self.name)?;
        match (self.tenant_id, self.role.as_deref()) {
            (Some(_), None) => return Err(Error::validation("role", "tenantId needs a role too")),
            (None, Some(_)) => {
                return Err(Error::validation("tenantId", "role needs a tenantId too"));
            }
            (Some(_), Some(role)) => bounds::bytes("role", role, bounds::MAX_ROLE_BYTES)?,
            (None, None) => {}
        }
        bounds::count("scopes", self.scopes.len(), 1, bounds::MAX_SCOPES)?;
        bounds::number("expiresInDays", self.days(), 1, bounds::MAX_ADMIN_TOKEN_DAYS)
    }
}

/// An admin token with its secret.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminTokenWithSecret {
    /// The record.
    pub admin_token: AdminToken,
    /// The whole token, once; `null` when an idempotent request is answered again.
    #[schema(required)]
    pub secret: Option<ShownOnce>,
    /// Whether this is such an answer again, which cannot show the secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret_not_replayable: bool,
}

impl AdminTokenWithSecret {
    /// The first answer.
    pub fn first(admin_token: AdminToken, secret: ShownOnce) -> Self {
        Self { admin_token, secret: Some(secret), secret_not_replayable: false }
    }

    /// The answer to keep for a repetition of the request.
    pub fn replay(admin_token: AdminToken) -> Self {
        Self { admin_token, secret: None, secret_not_replayable: true }
    }
}

/// An admin token that was just revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevokedAdminToken {
    /// The record as it is now.
    pub admin_token: AdminToken,
    /// From when on it is refused everywhere.
    pub fence: Fence,
}
