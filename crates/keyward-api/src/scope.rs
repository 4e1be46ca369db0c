//! Keyward's own scopes: what admin tokens may do. Scopes of the product live in API keys only.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// The most characters of a wrong scope that are quoted back.
const MAX_QUOTED_CHARS: usize = 64;
/// From which Jaro-Winkler similarity on a wrong scope is taken for a misspelt one.
const LIKENESS_OF_A_TYPO: f64 = 0.85;

macro_rules! scopes {
    ($($name:ident = $text:literal, $description:literal;)*) => {
        /// One right on Keyward's own API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ManagementScope {
            $(#[doc = $description] $name,)*
        }

        impl ManagementScope {
            /// Every scope.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the wire and in profiles.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it allows, in one sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }
        }
    };
}

scopes! {
    TenantsRead = "tenants:read", "See tenants.";
    TenantsWrite = "tenants:write", "Create, suspend and resume tenants.";
    UsersRead = "users:read", "See users.";
    UsersWrite = "users:write", "Create users.";
    MembersRead = "members:read", "See the members of a tenant and their roles.";
    MembersWrite = "members:write", "Add and offboard members and change their roles.";
    ServiceAccountsRead = "service-accounts:read", "See the service accounts of a tenant.";
    ServiceAccountsWrite = "service-accounts:write", "Create service accounts.";
    KeysRead = "keys:read", "See, identify and explain API keys.";
    KeysWrite = "keys:write", "Create, edit, rotate, revoke and delete API keys.";
    AuditRead = "audit:read", "Read the audit trail and verify its chain.";
    CatalogRead = "catalog:read", "See the product's scopes, routes and roles.";
    AdminTokensRead = "admin-tokens:read", "See admin tokens.";
    AdminTokensWrite = "admin-tokens:write", "Create and revoke admin tokens.";
    NodesRead = "nodes:read", "See the nodes of the deployment and how far a change has reached.";
    RevocationsRead = "revocations:read", "Export what a restored backup must take away again.";
    Verify = "verify", "Ask whether a presented key may make a call.";
}

impl fmt::Display for ManagementScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names none of Keyward's own scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownManagementScope {
    text: String,
    nearest: Option<ManagementScope>,
}

impl UnknownManagementScope {
    fn new(text: &str) -> Self {
        let text: String = text.chars().take(MAX_QUOTED_CHARS).collect();
        let likeness = |scope: &ManagementScope| strsim::jaro_winkler(scope.as_str(), &text);
        let nearest = ManagementScope::ALL
            .iter()
            .copied()
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
            .filter(|scope| likeness(scope) >= LIKENESS_OF_A_TYPO);
        Self { text, nearest }
    }
}

impl fmt::Display for UnknownManagementScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a scope of the management API", self.text)?;
        if let Some(near) = self.nearest {
            return write!(f, "; did you mean {near}?");
        }
        for (position, scope) in ManagementScope::ALL.iter().enumerate() {
            let separator = if position == 0 { ": use " } else { ", " };
            write!(f, "{separator}{scope}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownManagementScope {}

impl FromStr for ManagementScope {
    type Err = UnknownManagementScope;

    fn from_str(text: &str) -> Result<Self, UnknownManagementScope> {
        let mut known = Self::ALL.iter().copied();
        known.find(|scope| scope.as_str() == text).ok_or_else(|| UnknownManagementScope::new(text))
    }
}

impl Serialize for ManagementScope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ManagementScope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl PartialSchema for ManagementScope {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A right on Keyward's own API."))
            .enum_values(Some(Self::ALL.iter().map(|scope| scope.as_str())))
            .into()
    }
}

impl ToSchema for ManagementScope {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_scope_gets_the_nearest_name() {
        let message = |text: &str| text.parse::<ManagementScope>().unwrap_err().to_string();
        let expected =
            r#""key:read" is not a scope of the management API; did you mean keys:read?"#;
        assert_eq!(message("key:read"), expected);
        assert!(message("*").contains(": use tenants:read, "));
        assert!(message(&"x".repeat(9_999)).len() < 500);
    }
}
