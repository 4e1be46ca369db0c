//! Suggest the fewest scopes that allow some calls.

use keyward_api::catalog::{SuggestScopes, SuggestedCall, SuggestedScopes, required_scopes};
use keyward_core::catalog::{Route, RouteMatch};
use keyward_core::{Catalog, Error, Result};

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<SuggestScopes>) -> Result<Answer> {
    let catalog = ctx.catalog();
    let routes: Vec<&Route> =
        body.calls.iter().map(|call| route(catalog, call)).collect::<Result<_>>()?;
    let chosen = catalog.fewest_scopes(&routes);
    let may = |role: &&keyward_core::catalog::Role| {
        routes.iter().all(|route| catalog.opens_for(role, chosen, route))
    };
    let roles = catalog.roles().iter().filter(may).map(|role| role.name.clone()).collect();
    let needs = |(call, route): (String, &&Route)| SuggestedCall {
        call,
        route: format!("{} {}", route.method, route.template),
        required_scopes: required_scopes(route, catalog),
    };
    Answer::json(&SuggestedScopes {
        scopes: catalog.scope_names(chosen).map(str::to_owned).collect(),
        roles,
        calls: body.calls.into_iter().zip(&routes).map(needs).collect(),
    })
}

/// The route a call meets.
fn route<'a>(catalog: &'a Catalog, call: &str) -> Result<&'a Route> {
    let refuse = |text: String| Err(Error::validation("calls", text).with("call", call));
    let Some((method, target)) = call.trim().split_once(' ') else {
        return refuse(format!("{call:?} is not a call; write a method and a path: GET /v1/x"));
    };
    let method = method.to_ascii_uppercase();
    let path = target.trim().split('?').next().unwrap_or_default();
    match catalog.route(&method, path) {
        RouteMatch::Route(route) => Ok(route),
        RouteMatch::None => refuse(format!("No key may call {call}: the path is not public")),
        RouteMatch::OtherMethods(methods) => {
            let methods: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
            let known = methods.join(", ");
            refuse(format!("No key may call {call}: the path is public for {known} only"))
        }
    }
}
