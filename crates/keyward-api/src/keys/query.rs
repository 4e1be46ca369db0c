//! The filters of the key list.

use keyward_core::environment::Environment;
use keyward_core::id::UserId;
use keyward_core::key::KeyState;
use keyward_core::scope::ScopeName;
use keyward_core::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::bounds::{self, Bounded};
use crate::page::PageRequest;
use crate::schema;

/// Which keys to list. All filters must hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListKeysQuery {
    /// Keys of this environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::Environment>)]
    pub environment: Option<Environment>,
    /// Keys in this state now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::KeyState>)]
    pub state: Option<KeyState>,
    /// Keys of this user or service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::UserId>)]
    pub owner_id: Option<UserId>,
    /// Keys that carry this scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::ScopeName>)]
    pub scope: Option<String>,
    /// Keys that were not used in the last so many days, and are at least as old.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 3650)]
    pub unused_days: Option<u32>,
    /// Keys with this text in name, description, id or hint, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(max_length = 100)]
    pub text: Option<String>,
    /// Keys that wait to be confirmed after a restore, or with `false` all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect: Option<bool>,
    /// Deleted keys too; `false` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_deleted: Option<bool>,
    /// Entries per page, 1 to 200; 50 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// The `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(max_length = 512)]
    pub cursor: Option<String>,
}

impl ListKeysQuery {
    /// The page this asks for.
    pub fn page(&self) -> Result<PageRequest> {
        PageRequest::new(self.limit, self.cursor.as_deref())
    }
}

impl Bounded for ListKeysQuery {
    fn check(&self) -> Result<()> {
        // a name that the product has no longer may still be carried by old keys
        bounds::optional(self.scope.as_deref(), |scope| match scope.parse::<ScopeName>() {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::validation("scope", error.to_string())),
        })?;
        bounds::optional(self.unused_days.as_ref(), |days| {
            bounds::number("unusedDays", *days, 1, bounds::MAX_UNUSED_DAYS)
        })?;
        bounds::optional(self.text.as_deref(), |text| {
            bounds::text("text", text, bounds::MAX_SEARCH_CHARS)
        })?;
        self.page().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_limits_are_the_checked_ones() {
        let text = serde_json::to_string(&ListKeysQuery::into_params(|| None)).unwrap();
        assert!(text.contains(&format!("\"maximum\":{}", bounds::MAX_UNUSED_DAYS)), "{text}");
        assert!(text.contains(&format!("\"maxLength\":{}", bounds::MAX_SEARCH_CHARS)), "{text}");
    }
}
