//! Who am I: what the presented credential is and may do.

use keyward_core::Timestamp;
use keyward_core::id::TenantId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::audit::Actor;
use crate::schema;
use crate::scope::ManagementScope;

/// The caller, as Keyward sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Whoami {
    /// Whom the audit trail will name.
    pub actor: Actor,
    /// The one tenant the caller may act in; `null` for the operator.
    #[schema(required, value_type = Option<schema::TenantId>)]
    pub tenant_id: Option<TenantId>,
    /// What the caller may do now: what the credential carries, within its role.
    pub scopes: Vec<ManagementScope>,
    /// When the credential stops by itself.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub expires_at: Option<Timestamp>,
    /// The title of the product this deployment serves.
    pub product: String,
    /// What the product calls a tenant.
    pub tenant_label: String,
}
