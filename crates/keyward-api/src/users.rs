//! Users: people, known to the whole deployment.

use keyward_core::id::UserId;
use keyward_core::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bounds::{self, Bounded};
use crate::schema;

/// What kind of user it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum UserKind {
    /// Somebody.
    Person,
    /// A service account of one tenant.
    Service,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Its id.
    #[schema(value_type = schema::UserId)]
    pub id: UserId,
    /// A person or a service account.
    pub kind: UserKind,
    /// The address of a person; service accounts have none.
    #[schema(required, value_type = Option<schema::Email>)]
    pub email: Option<String>,
    /// The name people read.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// When it was made.
    #[schema(value_type = schema::Instant)]
    pub created_at: Timestamp,
}

/// Asks for a new person.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "name": "Ada Obi"}))]
pub struct CreateUser {
    /// The address, unique in the deployment whatever its case.
    #[schema(value_type = schema::Email)]
    pub email: String,
    /// The name people read.
    #[schema(value_type = schema::Name)]
    pub name: String,
}

impl Bounded for CreateUser {
    fn check(&self) -> Result<()> {
        bounds::email("email", &self.email)?;
        bounds::name("name", &self.name)
    }
}
