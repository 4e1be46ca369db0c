//! Setup: the first administrator, made with a single-use link.

use keyward_core::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin_tokens::AdminToken;
use crate::bounds::{self, Bounded};
use crate::schema;
use crate::secret::{PastedSecret, ShownOnce};
use crate::users::User;

/// Asks to become the first administrator.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteSetup {
    /// The token of the setup link; it works once.
    pub token: PastedSecret,
    /// The administrator's address.
    #[schema(value_type = schema::Email)]
    pub email: String,
    /// The administrator's name.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// The administrator's password.
    #[schema(value_type = schema::Password)]
    pub password: PastedSecret,
}

impl Bounded for CompleteSetup {
    fn check(&self) -> Result<()> {
        bounds::bytes("token", self.token.expose(), bounds::MAX_SECRET_BYTES)?;
        bounds::email("email", &self.email)?;
        bounds::name("name", &self.name)?;
        let characters = self.password.expose().chars().count();
        if (bounds::MIN_PASSWORD_CHARS..=bounds::MAX_PASSWORD_CHARS).contains(&characters) {
            return Ok(());
        }
        let (min, max) = (bounds::MIN_PASSWORD_CHARS, bounds::MAX_PASSWORD_CHARS);
        let text = format!("password needs {min} to {max} characters");
        Err(Error::validation("password", text))
    }
}

/// The first administrator, with an admin token to go on with.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletedSetup {
    /// The administrator.
    pub administrator: User,
    /// The record of the admin token.
    pub admin_token: AdminToken,
    /// The whole admin token, once.
    pub secret: ShownOnce,
}
