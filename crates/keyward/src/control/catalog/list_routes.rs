//! List the routes that keys may call, all of them or those a scope helps to open.

use keyward_api::catalog::{CatalogRoute, ListRoutesQuery};
use keyward_api::page::Listing;
use keyward_core::catalog::Route;
use keyward_core::scope::ScopeSet;
use keyward_core::{Error, Result};

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::{Query, hint};

pub(super) async fn handle(ctx: Ctx, Query(query): Query<ListRoutesQuery>) -> Result<Answer> {
    let catalog = ctx.catalog();
    let wanted = query.scope.as_deref().map(|scope| known(&ctx, scope)).transpose()?;
    let routes = catalog.routes().iter();
    let listed = routes.filter(|route| wanted.is_none_or(|scopes| accepts(route, scopes)));
    let data = listed.map(|route| CatalogRoute::new(route, catalog)).collect();
    Answer::json(&Listing { data })
}

/// What a key with this scope has: the scope and those it implies.
fn known(ctx: &Ctx, scope: &str) -> Result<ScopeSet> {
    let scopes = ctx.catalog().scope_set(&[scope]);
    if !scopes.is_empty() {
        return Ok(scopes);
    }
    let names = ctx.catalog().scopes().iter().map(|scope| scope.name.as_str());
    let hint = hint(scope, names);
    Err(Error::validation("scope", format!("There is no scope {scope:?} in this product{hint}")))
}

fn accepts(route: &Route, scopes: ScopeSet) -> bool {
    route.alternatives.iter().any(|way| way.scopes.minus(scopes) != way.scopes)
}
