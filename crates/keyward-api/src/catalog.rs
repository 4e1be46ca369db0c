//! The catalogue: the product's scopes, routes and roles, as configured.

use keyward_core::Result;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounds::{self, Bounded};
use crate::schema;
use crate::scope::ManagementScope;

/// A scope of the product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CatalogScope {
    /// Its name.
    #[schema(value_type = schema::ScopeName)]
    pub name: String,
    /// What it allows.
    pub description: String,
    /// The level of permission the product gives it, such as `read`.
    pub level: Option<String>,
    /// The product area it belongs to.
    pub area: String,
}

/// One operation of the product's API that keys may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CatalogRoute {
    /// Its id in the product's OpenAPI document.
    pub operation_id: String,
    /// Its method.
    pub method: String,
    /// Its path, with `{names}` for the variable segments.
    pub path: String,
    /// What it does.
    pub summary: String,
    /// Accepted scopes: any one list, and within it all. No list: any key may call it.
    #[schema(value_type = Vec<Vec<schema::ScopeName>>)]
    pub required_scopes: Vec<Vec<String>>,
    /// The product areas of those scopes.
    pub areas: Vec<String>,
    /// The roles whose keys may call it.
    #[schema(value_type = Vec<schema::RoleName>)]
    pub roles: Vec<String>,
    /// Whether Keyward answers it itself instead of the product.
    pub builtin: bool,
}

/// A role of the product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CatalogRole {
    /// Its name.
    #[schema(value_type = schema::RoleName)]
    pub name: String,
    /// Its title for people.
    pub title: String,
    /// The product areas its keys may use.
    pub areas: Vec<String>,
    /// What its members may do on Keyward's own API.
    pub operations: Vec<ManagementScope>,
}

/// Which routes to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListRoutesQuery {
    /// Routes that accept this scope, alone or with others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::ScopeName>)]
    pub scope: Option<String>,
}

impl Bounded for ListRoutesQuery {
    fn check(&self) -> Result<()> {
        bounds::optional(self.scope.as_deref(), |scope| {
            bounds::bytes("scope", scope, bounds::MAX_SCOPE_BYTES)
        })
    }
}

/// Asks for the fewest scopes that allow some calls.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"calls": ["POST /v1/reports/build"]}))]
pub struct SuggestScopes {
    /// The calls, each a method, a blank and a path.
    #[schema(min_items = 1, max_items = 64)]
    pub calls: Vec<String>,
}

impl Bounded for SuggestScopes {
    fn check(&self) -> Result<()> {
        bounds::count("calls", self.calls.len(), 1, bounds::MAX_CALLS)?;
        let longest = bounds::MAX_METHOD_BYTES + 1 + bounds::MAX_PATH_BYTES;
        self.calls
            .iter()
            .try_for_each(|call| bounds::bytes("calls", call, longest))
    }
}

/// The fewest scopes that allow the calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuggestedScopes {
    /// The scopes, sorted.
    #[schema(value_type = Vec<schema::ScopeName>)]
    pub scopes: Vec<String>,
    /// The roles whose keys may make all the calls.
    #[schema(value_type = Vec<schema::RoleName>)]
    pub roles: Vec<String>,
    /// The calls, in the order they were given.
    pub calls: Vec<SuggestedCall>,
}

/// What one of the calls needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuggestedCall {
    /// The call as it was given.
    pub call: String,
    /// The route it meets; `null` when no key may make it.
    pub route: Option<String>,
    /// Accepted scopes: any one list, and within it all.
    #[schema(value_type = Vec<Vec<schema::ScopeName>>)]
    pub required_scopes: Vec<Vec<String>>,
    /// Why no key may make it.
    pub problem: Option<String>,
}
