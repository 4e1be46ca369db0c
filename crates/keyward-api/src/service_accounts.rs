//! Service accounts: users without a person, of one tenant, to own the keys of machines.

use keyward_core::id::{TenantId, UserId};
use keyward_core::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bounds::{self, Bounded};
use crate::schema;

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// Its id as a user.
    #[schema(value_type = schema::UserId)]
    pub id: UserId,
    /// Its tenant.
    #[schema(value_type = schema::TenantId)]
    pub tenant_id: TenantId,
    /// The name people read.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// The role: the ceiling of every key it owns.
    #[schema(value_type = schema::RoleName)]
    pub role: String,
    /// When it was made.
    #[schema(value_type = schema::Instant)]
    pub created_at: Timestamp,
    /// When it was offboarded.
    #[schema(required, value_type = Option<schema::Instant>)]
    pub offboarded_at: Option<Timestamp>,
}

/// Asks for a new service account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "billing worker", "role": "developer"}))]
pub struct CreateServiceAccount {
    /// The name people read.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// The role.
    #[schema(value_type = schema::RoleName)]
    pub role: String,
}

impl Bounded for CreateServiceAccount {
    fn check(&self) -> Result<()> {
        bounds::name("name", &self.name)?;
        bounds::bytes("role", &self.role, bounds::MAX_ROLE_BYTES)
    }
}
