//! Secrets on the wire: out once, in when pasted. Neither has a formatter; both are wiped on drop.

use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret on its way to the caller, in the one response that shows it.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct ShownOnce(String);

impl ShownOnce {
    /// Takes the text of a secret for its response.
    pub fn new(secret: &str) -> Self {
        Self(secret.to_owned())
    }

    /// The text, for the client that received it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialSchema for ShownOnce {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A secret. It stands in this response only; store it now."))
            .read_only(true)
            .into()
    }
}

impl ToSchema for ShownOnce {}

/// A secret that a caller pastes: a key to identify, a password, the token of a setup link.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct PastedSecret(String);

impl PastedSecret {
    /// A secret a client is about to send.
    pub fn new(secret: &str) -> Self {
        Self(secret.to_owned())
    }

    /// The text, for the one check it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialSchema for PastedSecret {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A secret, never shown or logged."))
            .min_length(Some(1))
            .max_length(Some(crate::bounds::MAX_SECRET_BYTES))
            .write_only(true)
            .into()
    }
}

impl ToSchema for PastedSecret {}
