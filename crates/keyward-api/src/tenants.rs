//! Tenants: the isolated customers of the product.

use keyward_core::id::TenantId;
use keyward_core::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bounds::{self, Bounded};
use crate::fence::Fence;
use crate::schema;

/// Whether the keys of a tenant work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TenantState {
    /// They do.
    Active,
    /// None of them does until the tenant is resumed.
    Suspended,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Its id.
    #[schema(value_type = schema::TenantId)]
    pub id: TenantId,
    /// The word that names it in commands and files.
    #[schema(value_type = schema::Slug)]
    pub slug: String,
    /// The name people read.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// Whether its keys work.
    pub state: TenantState,
    /// When it was made.
    #[schema(value_type = schema::Instant)]
    pub created_at: Timestamp,
    /// Since when it is suspended.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub suspended_at: Option<Timestamp>,
    /// Why it is suspended.
    #[schema(required)]
    pub suspend_reason: Option<String>,
}

/// Asks for a new tenant.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"slug": "acme-inc", "name": "Acme Inc"}))]
pub struct CreateTenant {
    /// The word that names it, unique in the deployment.
    #[schema(value_type = schema::Slug)]
    pub slug: String,
    /// The name people read.
    #[schema(value_type = schema::Name)]
    pub name: String,
}

impl Bounded for CreateTenant {
    fn check(&self) -> Result<()> {
        bounds::slug("slug", &self.slug)?;
        bounds::name("name", &self.name)
    }
}

/// Asks to stop all keys of a tenant.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"reason": "Payment is three months overdue"}))]
pub struct SuspendTenant {
    /// Why, for the audit trail and the tenant's administrators.
    #[schema(value_type = schema::Comment)]
    pub reason: String,
}

impl Bounded for SuspendTenant {
    fn check(&self) -> Result<()> {
        bounds::bytes("reason", self.reason.trim(), bounds::MAX_COMMENT_CHARS * 4)?;
        bounds::text("reason", &self.reason, bounds::MAX_COMMENT_CHARS)
    }
}

/// A tenant that was just suspended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuspendedTenant {
    /// The tenant as it is now.
    pub tenant: Tenant,
    /// From when on its keys are refused everywhere.
    pub fence: Fence,
}
