//! The one place that grants: [`decide`].

use std::net::IpAddr;

use crate::catalog::{Alternative, AreaSet, Route, RouteMatch};
use crate::environment::{Environment, EnvironmentSet};
use crate::error::ErrorCode;
use crate::ip::IpAllowlist;
use crate::key::KeyState;
use crate::scope::ScopeSet;
use crate::time::Timestamp;

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The checks, in the order in which they are made. Nothing is charged before the last.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step { $($(#[$doc])* $name,)* }

        impl Step {
            /// Every step, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word in `details.failed` and in traces.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

steps! {
    /// One key was sent, with the right shape and checksum.
    Credential = "credential",
    /// The caller did not fail too often.
    FailedCaller = "failed_caller",
    /// The key is known and its secret is right.
    Lookup = "lookup",
    /// The key is active and not suspect, and its tenant is active.
    State = "state",
    /// The key belongs to an environment served here.
    Environment = "environment",
    /// The caller's address is on the key's list.
    Ip = "ip",
    /// The call does not come from a browser.
    BrowserOrigin = "browser_origin",
    /// The tenant header names the key's tenant.
    Tenant = "tenant",
    /// The route is on the public allowlist.
    Route = "route",
    /// The role of the key's owner may use the product area now.
    Role = "role",
    /// The key carries one of the route's required scopes.
    Scope = "scope",
    /// No rate limit is exceeded.
    RateLimit = "rate_limit",
    /// The quota is not used up.
    Quota = "quota",
    /// The idempotency key is free or replays.
    Idempotency = "idempotency",
}

/// Why a step failed, where the code alone does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The code says it all.
    Plain,
    /// The text is not one of our keys.
    Malformed,
    /// Well-formed, but nobody has it.
    Unknown,
    /// The caller presented too many wrong keys.
    TooManyFailures,
    /// Revoked by somebody.
    Revoked,
    /// The tenant is suspended.
    TenantSuspended,
    /// The deployment was restored from a backup and nobody has confirmed the key since.
    Suspect,
    /// The tenant header is missing.
    TenantHeaderMissing,
    /// The tenant header names another tenant.
    TenantHeaderDiffers,
    /// The path is public, the method is not.
    MethodNotPublic,
    /// The key's owner left the tenant.
    OwnerLeft,
}

impl Reason {
    /// The word in `details.reason`, if there is more to say than the code.
    pub const fn as_str(self) -> Option<&'static str> {
        Some(match self {
            Self::Plain => return None,
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::TooManyFailures => "too_many_failures",
            Self::Revoked => "revoked",
            Self::TenantSuspended => "tenant_suspended",
            Self::Suspect => "suspect",
            Self::TenantHeaderMissing => "tenant_header_missing",
            Self::TenantHeaderDiffers => "tenant_header_differs",
            Self::MethodNotPublic => "method_not_public",
            Self::OwnerLeft => "owner_left",
        })
    }
}

/// What a decision needs to know about a key.
#[derive(Clone, Copy, Debug)]
pub struct KeyFacts<'a> {
    /// Where it is valid.
    pub environment: Environment,
    /// When it stops by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Whether it waits to be confirmed after a restore.
    pub suspect: bool,
    /// Whether its tenant is suspended.
    pub tenant_suspended: bool,
    /// Its scopes.
    pub scopes: ScopeSet,
    /// The areas its owner's role may use now; `None` when the owner has left the tenant.
    pub ceiling: Option<AreaSet>,
    /// Where it may be used from.
    pub ip_allowlist: &'a IpAllowlist,
}

/// What was presented, after the look-up.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// No key.
    Missing,
    /// More than one key.
    Ambiguous,
    /// A text that is not one of our keys.
    Malformed,
    /// A key of a caller that failed too often; it was not looked up.
    Withheld,
    /// A well-formed key that nobody has, or a wrong secret.
    Unknown,
    /// A key whose secret was right.
    Known(KeyFacts<'a>),
}

/// What the tenant header of a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantHeader {
    /// The product has no such header.
    NotRequired,
    /// It is required and absent.
    Missing,
    /// It names the key's tenant.
    Matches,
    /// It names another tenant.
    Differs,
}

/// What a decision needs to know about a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts {
    /// The environments served where it arrived.
    pub environments: EnvironmentSet,
    /// The caller's address, when it is known.
    pub ip: Option<IpAddr>,
    /// Whether it carries the marks of a browser's cross-origin call.
    pub from_browser: bool,
    /// What its tenant header says.
    pub tenant: TenantHeader,
}

/// A granted request. Only [`decide`] makes one, and only one of these can be forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Permit<'a> {
    route: &'a Route,
    alternative: Alternative,
}

impl<'a> Permit<'a> {
    /// The route that was granted.
    pub const fn route(&self) -> &'a Route {
        self.route
    }

    /// The alternative that was satisfied.
    pub const fn alternative(&self) -> Alternative {
        self.alternative
    }
}

/// A refused request: the first check that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The check that failed; those before it passed, those behind it were not made.
    pub step: Step,
    /// What the caller is told.
    pub code: ErrorCode,
    /// Why, where the code does not say.
    pub reason: Reason,
}

/// How one check of a decision went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not hold.
    Failed,
    /// It was not made, because an earlier one failed.
    Skipped,
}

impl Outcome {
    /// The word in traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// The checks in order with how each went. `failed` is the step of a denial.
pub fn trace(failed: Option<Step>) -> impl Iterator<Item = (Step, Outcome)> {
    Step::ALL.iter().map(move |step| {
        let outcome = match failed {
            Some(failed) if *step == failed => Outcome::Failed,
            Some(failed) if *step > failed => Outcome::Skipped,
            _ => Outcome::Passed,
        };
        (*step, outcome)
    })
}

/// Decides a request, up to and including its scope. Limits, quota and idempotency follow, in this
/// order, for a permitted request only.
pub fn decide<'a>(
    credential: &Credential<'_>,
    route: RouteMatch<'a>,
    request: &RequestFacts,
    now: Timestamp,
) -> Result<Permit<'a>, Denial> {
    let key = admit(credential, request, now)?;
    let route = match route {
        RouteMatch::Route(route) => route,
        RouteMatch::OtherMethods(_) => {
            return deny(Step::Route, ErrorCode::MethodNotAllowed, Reason::MethodNotPublic);
        }
        RouteMatch::None => return deny(Step::Route, ErrorCode::Forbidden, Reason::Plain),
    };
    let alternative = authorize(key, &route.alternatives)?;
    Ok(Permit { route, alternative })
}

/// The same checks for a caller that names no route: those of the key, then that it has all of
/// these scopes and its owner's role their areas. It grants nothing that can be forwarded.
pub fn decide_scopes(
    credential: &Credential<'_>,
    needed: Alternative,
    request: &RequestFacts,
    now: Timestamp,
) -> Result<(), Denial> {
    let key = admit(credential, request, now)?;
    authorize(key, &[needed]).map(|_| ())
}

/// The checks of the key, from its shape to its tenant.
fn admit<'k>(
    credential: &'k Credential<'_>,
    request: &RequestFacts,
    now: Timestamp,
) -> Result<&'k KeyFacts<'k>, Denial> {
    let key = admit_credential(credential)?;
    check_state(key, now)?;
    if !request.environments.contains(key.environment) {
        return deny(Step::Environment, ErrorCode::EnvironmentMismatch, Reason::Plain);
    }
    let allowed = request.ip.map_or(key.ip_allowlist.is_open(), |ip| key.ip_allowlist.allows(ip));
    if !allowed {
        return deny(Step::Ip, ErrorCode::IpNotAllowed, Reason::Plain);
    }
    if request.from_browser {
        return deny(Step::BrowserOrigin, ErrorCode::BrowserOriginRefused, Reason::Plain);
    }
    check_tenant(request.tenant)?;
    Ok(key)
}

/// The first alternative within both the role's areas and the key's scopes.
fn authorize(key: &KeyFacts<'_>, alternatives: &[Alternative]) -> Result<Alternative, Denial> {
    let Some(ceiling) = key.ceiling else {
        return deny(Step::Role, ErrorCode::RbacDenied, Reason::OwnerLeft);
    };
    let within = |alternative: &&Alternative| ceiling.contains_all(alternative.areas);
    if !alternatives.iter().any(|alternative| within(&alternative)) {
        return deny(Step::Role, ErrorCode::RbacDenied, Reason::Plain);
    }
    let mut within_ceiling = alternatives.iter().filter(within);
    match within_ceiling.find(|alternative| key.scopes.contains_all(alternative.scopes)) {
        Some(alternative) => Ok(*alternative),
        None => deny(Step::Scope, ErrorCode::Forbidden, Reason::Plain),
    }
}

fn admit_credential<'k>(credential: &'k Credential<'_>) -> Result<&'k KeyFacts<'k>, Denial> {
    match credential {
        Credential::Missing => deny(Step::Credential, ErrorCode::MissingApiKey, Reason::Plain),
        Credential::Ambiguous => deny(Step::Credential, ErrorCode::AmbiguousApiKey, Reason::Plain),
        Credential::Malformed => {
            deny(Step::Credential, ErrorCode::InvalidApiKey, Reason::Malformed)
        }
        Credential::Withheld => {
            deny(Step::FailedCaller, ErrorCode::RateLimited, Reason::TooManyFailures)
        }
        Credential::Unknown => deny(Step::Lookup, ErrorCode::InvalidApiKey, Reason::Unknown),
        Credential::Known(key) => Ok(key),
    }
}

fn check_state(key: &KeyFacts<'_>, now: Timestamp) -> Result<(), Denial> {
    match KeyState::at(now, key.expires_at, key.revoked_at) {
        KeyState::Revoked => deny(Step::State, ErrorCode::Unauthorized, Reason::Revoked),
        KeyState::Expired => deny(Step::State, ErrorCode::ExpiredApiKey, Reason::Plain),
        KeyState::Active if key.tenant_suspended => {
            deny(Step::State, ErrorCode::Unauthorized, Reason::TenantSuspended)
        }
        KeyState::Active if key.suspect => {
            deny(Step::State, ErrorCode::Unauthorized, Reason::Suspect)
        }
        KeyState::Active => Ok(()),
    }
}

const fn check_tenant(header: TenantHeader) -> Result<(), Denial> {
    match header {
        TenantHeader::NotRequired | TenantHeader::Matches => Ok(()),
        TenantHeader::Missing => {
            deny(Step::Tenant, ErrorCode::TenantMismatch, Reason::TenantHeaderMissing)
        }
        TenantHeader::Differs => {
            deny(Step::Tenant, ErrorCode::TenantMismatch, Reason::TenantHeaderDiffers)
        }
    }
}

const fn deny<T>(step: Step, code: ErrorCode, reason: Reason) -> Result<T, Denial> {
    Err(Denial { step, code, reason })
}

#[cfg(test)]
mod tests;
