//! Confirming keys after a restore.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Key;

/// The most keys that one call confirms.
pub const MAX_CONFIRMED: u32 = 1_000;

/// A key that works again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmedKey {
    /// The record as it is now.
    pub key: Key,
}

/// What a call that confirms all suspect keys of a tenant has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmedKeys {
    /// How many keys work again.
    #[schema(maximum = 1000)]
    pub confirmed: u32,
    /// How many active keys are still suspect: more than one call confirms, or keys whose owner
    /// has left or has a role that allows more than the caller's.
    pub remaining: u64,
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema as _;

    use super::*;

    #[test]
    fn the_documented_limit_is_the_constant() {
        let text = serde_json::to_string(&ConfirmedKeys::schema()).unwrap();
        assert!(text.contains(&format!("\"maximum\":{MAX_CONFIRMED}")), "{text}");
    }
}
