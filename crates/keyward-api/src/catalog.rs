//! The catalogue: the product's scopes, routes and roles, as configured.

use keyward_core::Result;
use keyward_core::catalog::{Catalog, Role, Route, Scope};
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
    #[schema(required)]
    pub level: Option<String>,
    /// The product area it belongs to.
    pub area: String,
}

impl CatalogScope {
    /// The scope as callers see it.
    pub fn new(scope: &Scope) -> Self {
        Self {
            name: scope.name.to_string(),
            description: scope.description.clone(),
            level: scope.level.clone(),
            area: scope.area.clone(),
        }
    }
}

/// All scopes of the product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CatalogScopes {
    /// The scopes, in the order of their names.
    pub data: Vec<CatalogScope>,
    /// What a key for a demonstration carries.
    #[schema(value_type = Vec<schema::ScopeName>)]
    pub demo_scopes: Vec<String>,
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

impl CatalogRoute {
    /// The route as callers see it, with the roles that have what one of its alternatives needs.
    pub fn new(route: &Route, catalog: &Catalog) -> Self {
        let mut areas: Vec<String> = route
            .alternatives
            .iter()
            .flat_map(|alternative| catalog.area_names(alternative.areas))
            .map(str::to_owned)
            .collect();
        areas.sort_unstable();
        areas.dedup();
        let may_call = |role: &&Role| {
            route.alternatives.iter().any(|alternative| role.areas.contains_all(alternative.areas))
        };
        Self {
            operation_id: route.operation_id.clone(),
            method: route.method.as_str().to_owned(),
            path: route.template.clone(),
            summary: route.summary.clone(),
            required_scopes: required_scopes(route, catalog),
            areas,
            roles: catalog.roles().iter().filter(may_call).map(|role| role.name.clone()).collect(),
            builtin: route.builtin.is_some(),
        }
    }
}

/// The names of accepted scopes: any one list, and within it all.
pub fn required_scopes(route: &Route, catalog: &Catalog) -> Vec<Vec<String>> {
    let names = |scopes| catalog.scope_names(scopes).map(str::to_owned).collect();
    route.alternatives.iter().map(|alternative| names(alternative.scopes)).collect()
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

impl CatalogRole {
    /// The role as callers see it.
    pub fn new(role: &Role, catalog: &Catalog) -> Self {
        let all = ManagementScope::ALL.iter().copied();
        Self {
            name: role.name.clone(),
            title: role.title.clone(),
            areas: catalog.area_names(role.areas).map(str::to_owned).collect(),
            operations: all.filter(|scope| role.may_use(scope.as_str())).collect(),
        }
    }
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
        self.calls.iter().try_for_each(|call| bounds::bytes("calls", call, longest))
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
    /// The route it meets.
    pub route: String,
    /// Accepted scopes: any one list, and within it all.
    #[schema(value_type = Vec<Vec<schema::ScopeName>>)]
    pub required_scopes: Vec<Vec<String>>,
}
