//! What would happen to a call with this key? The decision of the gateway, made in thought.

use std::net::IpAddr;

use keyward_api::catalog::required_scopes;
use keyward_api::keys::{ExplainKey, Explanation};
use keyward_api::verify::TraceStep;
use keyward_core::catalog::RouteMatch;
use keyward_core::decision::{
    Credential, KeyFacts, RequestFacts, Step, TenantHeader, decide, trace,
};
use keyward_core::denial::DenialContext;
use keyward_core::environment::EnvironmentSet;
use keyward_core::id::KeyId;
use keyward_core::key::ApiKey;
use keyward_core::{Error, Result};

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<ExplainKey>) -> Result<Answer> {
    let id: KeyId = ctx.parameter("keyId", "key")?;
    let mut tx = ctx.read().await?;
    let key = tx.find_key(id).await?.ok_or_else(|| Error::not_found("key"))?;
    let tenant = tx.find_tenant().await?.ok_or_else(|| Error::not_found("tenant"))?;
    let role = tx.role_of(key.owner).await?;
    let catalog = ctx.catalog();
    let facts = KeyFacts {
        environment: key.environment,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
        suspect: key.suspect_since.is_some(),
        tenant_suspended: tenant.suspended_at.is_some(),
        scopes: catalog.scope_set(&key.scopes),
        ceiling: role.as_deref().and_then(|r| catalog.role(r)).map(|role| role.areas),
        ip_allowlist: &key.ip_allowlist,
    };
    let names = [key.tenant.to_string(), tenant.slug];
    let request = request_facts(&ctx, &body, &key, &names)?;
    Answer::json(&explanation(&ctx, &body, &key, &facts, &request, role))
}

fn explanation(
    ctx: &Ctx,
    body: &ExplainKey,
    key: &ApiKey,
    facts: &KeyFacts<'_>,
    request: &RequestFacts,
    role: Option<String>,
) -> Explanation {
    let catalog = ctx.catalog();
    let route = catalog.route(&body.method, &body.path);
    let at = body.at.unwrap_or_else(|| ctx.now());
    let denial = decide(&Credential::Known(*facts), route, request, at).err();
    let context = DenialContext {
        catalog,
        method: &body.method,
        path: &body.path,
        route,
        key: Some(facts),
        role: role.as_deref().unwrap_or("-"),
        environments: request.environments,
        carriers: "",
        tenant_header: ctx.state().product.profile.tenant.header.as_deref(),
    };
    let refusal = denial.map(|denial| denial.to_error(&context));
    let matched = if let RouteMatch::Route(route) = route { Some(route) } else { None };
    Explanation {
        allowed: denial.is_none(),
        code: refusal.as_ref().map(|error| error.code().as_str().to_owned()),
        message: refusal.as_ref().map(|error| error.public().to_owned()),
        failed: denial.map(|denial| denial.step.as_str().to_owned()),
        suspect_since: key.suspect_since,
        route: matched.map(|route| format!("{} {}", route.method, route.template)),
        required_scopes: matched.map(|r| required_scopes(r, catalog)).unwrap_or_default(),
        role,
        trace: steps(denial.map(|denial| denial.step)),
    }
}

/// The trace up to the scope: what follows depends on traffic and cannot be told in thought.
fn steps(failed: Option<Step>) -> Vec<TraceStep> {
    let told = trace(failed).take_while(|(step, _)| *step <= Step::Scope);
    told.map(|(step, outcome)| TraceStep::new(step, outcome)).collect()
}

/// The facts of the request; what the caller does not name is as the key needs it.
fn request_facts(
    ctx: &Ctx,
    body: &ExplainKey,
    key: &ApiKey,
    names: &[String],
) -> Result<RequestFacts> {
    let ip: Option<IpAddr> = match &body.ip {
        None => key.ip_allowlist.first_address(),
        Some(text) => {
            let wrong = |_| Error::validation("ip", format!("{text:?} is not an address"));
            Some(text.parse().map_err(wrong)?)
        }
    };
    let tenant = match (&ctx.state().product.profile.tenant.header, &body.tenant_header) {
        (None, _) => TenantHeader::NotRequired,
        (Some(_), None) => TenantHeader::Matches,
        (Some(_), Some(value)) if names.contains(value) => TenantHeader::Matches,
        (Some(_), Some(_)) => TenantHeader::Differs,
    };
    let environment = body.environment.unwrap_or(key.environment);
    Ok(RequestFacts {
        environments: EnvironmentSet::from_iter([environment]),
        ip,
        from_browser: body.browser_origin.is_some(),
        tenant,
    })
}
