//! A denial in words: what was refused, why, and what to do about it. One text for every plane.

use serde_json::{Value, json};

use crate::catalog::{Alternative, AreaSet, Catalog, Method, Route, RouteMatch};
use crate::decision::{Denial, KeyFacts, Reason, Step};
use crate::environment::{Environment, EnvironmentSet};
use crate::error::{Error, ErrorCode};
use crate::key::Exposure;
use crate::time::Timestamp;

/// What a denial may tell a caller who has proven that the key is theirs.
#[derive(Clone, Copy)]
pub struct DenialContext<'a> {
    /// The product.
    pub catalog: &'a Catalog,
    /// The request's method.
    pub method: &'a str,
    /// The request's path.
    pub path: &'a str,
    /// What the allowlist says.
    pub route: RouteMatch<'a>,
    /// The key, when its secret was right.
    pub key: Option<&'a KeyFacts<'a>>,
    /// The role of the key's owner, `-` when there is none.
    pub role: &'a str,
    /// The environments served where the request arrived.
    pub environments: EnvironmentSet,
    /// How the product expects the key to be sent, such as `Authorization: Bearer …`.
    pub carriers: &'a str,
    /// The tenant header of the product, if it has one.
    pub tenant_header: Option<&'a str>,
}

impl Denial {
    /// The error for the caller.
    pub fn to_error(self, context: &DenialContext<'_>) -> Error {
        let error = self.with_particulars(Error::new(self.code, self.text(context)), context);
        let error = error.with("failed", self.step.as_str());
        match self.reason.as_str() {
            Some(reason) => error.with("reason", reason),
            None => error,
        }
    }

    fn text(self, context: &DenialContext<'_>) -> String {
        let DenialContext { method, path, .. } = context;
        match self.code {
            ErrorCode::MissingApiKey => {
                format!("No API key was sent; send it as {}", context.carriers)
            }
            ErrorCode::AmbiguousApiKey => "More than one API key was sent; send one".to_owned(),
            ErrorCode::InvalidApiKey if self.reason == Reason::Malformed => {
                "API key is invalid: it is not a whole key of this product; copy it again"
                    .to_owned()
            }
            ErrorCode::InvalidApiKey => "API key is invalid".to_owned(),
            ErrorCode::ExpiredApiKey => {
                "The API key has expired; make a new one, or use the one that replaced it"
                    .to_owned()
            }
            ErrorCode::Unauthorized if self.reason == Reason::TenantSuspended => {
                "The tenant of this API key is suspended".to_owned()
            }
            ErrorCode::Unauthorized if self.reason == Reason::Suspect => {
                "This deployment was restored from a backup, and the API key must be confirmed \
                 before it works again; ask whoever manages it"
                    .to_owned()
            }
            ErrorCode::Unauthorized => "The API key is revoked; make a new one".to_owned(),
            ErrorCode::EnvironmentMismatch => environment_text(context),
            ErrorCode::IpNotAllowed => {
                "The API key may not be used from this address; see its IP list".to_owned()
            }
            ErrorCode::TlsRequired => Exposure::ClearText.advice().to_owned(),
            ErrorCode::CredentialInUrl => Exposure::Url.advice().to_owned(),
            ErrorCode::BrowserOriginRefused => Exposure::Browser.advice().to_owned(),
            ErrorCode::TenantMismatch => tenant_text(self.reason, context),
            ErrorCode::MethodNotAllowed => format!("{path} does not accept {method}"),
            ErrorCode::RbacDenied if self.reason == Reason::OwnerLeft => {
                "The owner of this API key has left the tenant; use a key of a current member"
                    .to_owned()
            }
            ErrorCode::RbacDenied => {
                format!("The role {} of the key's owner may not use this", context.role)
            }
            ErrorCode::Forbidden if self.step == Step::Scope => {
                format!("The API key lacks a scope that {method} {path} requires")
            }
            ErrorCode::Forbidden => format!("{method} {path} is not open to API keys"),
            ErrorCode::RateLimited => {
                "Too many wrong API keys came from this address; wait and try again".to_owned()
            }
            _ => "The request was refused".to_owned(),
        }
    }

    fn with_particulars(self, error: Error, context: &DenialContext<'_>) -> Error {
        match (self.step, context.route) {
            (Step::Scope, RouteMatch::Route(route)) => {
                let granted = context.key.map(|key| context.catalog.scope_names(key.scopes));
                let granted: Vec<&str> = granted.into_iter().flatten().collect();
                error
                    .with("requiredScopes", required(context, route))
                    .with("grantedScopes", granted)
            }
            (Step::Role, RouteMatch::Route(route)) => {
                let areas = route.alternatives.iter().map(|alternative| alternative.areas);
                let areas = areas.fold(AreaSet::EMPTY, AreaSet::union);
                let areas: Vec<&str> = context.catalog.area_names(areas).collect();
                error.with("role", context.role).with("areas", areas)
            }
            (Step::Route, RouteMatch::OtherMethods(methods)) => {
                let methods: Vec<&str> = methods.iter().copied().map(Method::as_str).collect();
                error.with("allowedMethods", methods)
            }
            (Step::Environment, _) => {
                let served: Vec<&str> =
                    context.environments.iter().map(Environment::as_str).collect();
                let key = context.key.map_or("-", |key| key.environment.as_str());
                error.with("keyEnvironment", key).with("servedEnvironments", served)
            }
            (Step::State, _) => {
                let instant = |at: Option<Timestamp>| at.map_or(Value::Null, |at| json!(at));
                let key = context.key;
                match self.reason {
                    Reason::Revoked => {
                        error.with("revokedAt", instant(key.and_then(|key| key.revoked_at)))
                    }
                    Reason::Plain => {
                        error.with("expiredAt", instant(key.and_then(|key| key.expires_at)))
                    }
                    _ => error,
                }
            }
            _ => error,
        }
    }
}

/// The alternatives of a route as lists of names.
fn required(context: &DenialContext<'_>, route: &Route) -> Value {
    let names = |alternative: &Alternative| -> Value {
        context.catalog.scope_names(alternative.scopes).collect::<Vec<_>>().into()
    };
    route.alternatives.iter().map(names).collect::<Vec<_>>().into()
}

fn environment_text(context: &DenialContext<'_>) -> String {
    let key = context.key.map_or("-", |key| key.environment.as_str());
    let served: Vec<&str> = context.environments.iter().map(Environment::as_str).collect();
    format!("This is a {key} key, and this address serves {}", served.join(", "))
}

fn tenant_text(reason: Reason, context: &DenialContext<'_>) -> String {
    let header = context.tenant_header.unwrap_or("tenant");
    match reason {
        Reason::TenantHeaderMissing => {
            format!("The {header} header is missing; send the id of the key's tenant")
        }
        _ => format!("The {header} header does not name the tenant of this API key"),
    }
}
