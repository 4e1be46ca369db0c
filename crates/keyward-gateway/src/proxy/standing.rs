//! Whether the key of a stream may still make its request.
//!
//! A body that outlives its decision asks again, every second: the same `decide`, over what memory
//! holds of the key by then. Most bodies end before the first time.

use std::net::IpAddr;
use std::time::Duration;

use keyward_core::catalog::{Route, RouteMatch};
use keyward_core::decision::{Credential, Denial, Reason, RequestFacts, TenantHeader, decide};
use keyward_core::denial::DenialContext;
use keyward_core::environment::{Environment, EnvironmentSet};
use keyward_core::error::{Error, ErrorCode};
use keyward_core::id::{KeyId, RequestId};

use crate::authority::unavailable;
use crate::plane::DataPlane;

/// How often a body that lasts asks whether its key may still make this request.
pub(crate) const RECHECK_EVERY: Duration = Duration::from_secs(1);
/// For how long a stream goes on after this node was last sure of what it knows.
pub(crate) const STREAM_GRACE: Duration = Duration::from_secs(20);

/// All of a permitted request that asking again needs. Every answer has one, so it is small.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) request_id: RequestId,
    pub(crate) key: KeyId,
    pub(crate) begun_ns: u64,
    pub(crate) client: IpAddr,
    pub(crate) environment: Environment,
    /// The position of its route in the catalogue.
    pub(crate) route: u32,
}

/// Why a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its key may not make this request any more.
    Denied(Denial),
    /// This node has not been sure of what it knows for [`STREAM_GRACE`].
    Unsure,
}

impl Loss {
    /// The word for the check that failed.
    pub(crate) const fn step(self) -> &'static str {
        match self {
            Self::Denied(denial) => denial.step.as_str(),
            Self::Unsure => "authority",
        }
    }

    /// The code a new request would be refused with.
    pub(crate) const fn code(self) -> ErrorCode {
        match self {
            Self::Denied(denial) => denial.code,
            Self::Unsure => ErrorCode::Unavailable,
        }
    }

    /// Why, where step and code do not say.
    pub(crate) const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Denied(denial) => denial.reason.as_str(),
            Self::Unsure => None,
        }
    }

    /// Revoked and expired keys stay so, whatever else this node may have missed.
    fn is_certain(self) -> bool {
        match self {
            Self::Denied(denial) => {
                denial.reason == Reason::Revoked || denial.code == ErrorCode::ExpiredApiKey
            }
            Self::Unsure => false,
        }
    }
}

impl Standing {
    pub(crate) fn route<'p>(&self, plane: &'p DataPlane) -> Option<&'p Route> {
        plane.product.catalog.routes().get(self.route as usize)
    }

    /// The environment and the tenant of a key never change, and a request does not either: what
    /// was in order when it was permitted is in order still.
    ///
    /// A key that had to make room for others is fetched for the next time; until then nothing is
    /// known of it, as while the authority is away.
    fn decide(&self, plane: &DataPlane) -> Result<(), Loss> {
        let key = plane.authority.keys.present(self.key);
        if key.is_none() && plane.fetch_evicted(self.key) {
            return Err(Loss::Unsure);
        }
        let credential = match &key {
            Some(key) => Credential::Known(key.facts(&plane.product.catalog)),
            None => Credential::Unknown,
        };
        let route = self.route(plane).map_or(RouteMatch::None, RouteMatch::Route);
        let request = RequestFacts {
            environments: self.environments(),
            ip: Some(self.client),
            from_browser: false,
            tenant: TenantHeader::NotRequired,
        };
        let decision = decide(&credential, route, &request, plane.clock.now());
        decision.map(|_| ()).map_err(Loss::Denied)
    }

    fn environments(&self) -> EnvironmentSet {
        [self.environment].into_iter().collect()
    }

    /// The answer to a request whose upload was cut.
    pub(crate) fn refusal(&self, plane: &DataPlane, loss: Loss, path: &str) -> Error {
        let Loss::Denied(denial) = loss else {
            return unavailable().because("the upload was cut");
        };
        let product = &plane.product;
        let key = plane.authority.keys.present(self.key);
        let facts = key.as_ref().map(|key| key.facts(&product.catalog));
        let route = self.route(plane);
        let context = DenialContext {
            catalog: &product.catalog,
            method: route.map_or("-", |route| route.method.as_str()),
            path,
            route: route.map_or(RouteMatch::None, RouteMatch::Route),
            key: facts.as_ref(),
            role: key.as_ref().map_or("-", |key| key.role_name(&product.catalog)),
            environments: self.environments(),
            carriers: &product.carriers_text,
            tenant_header: product.tenant_header.as_ref().map(http::HeaderName::as_str),
        };
        denial.to_error(&context).because("the upload was cut")
    }
}

/// Asks for one stream, each time it is due.
pub(crate) struct Vigil {
    standing: Standing,
    due_ns: u64,
    /// When this node was last sure of what it knows.
    sure_ns: u64,
}

impl Vigil {
    /// Of a request that was permitted when it began.
    pub(crate) fn of(standing: Standing) -> Self {
        let begun_ns = standing.begun_ns;
        Self { standing, due_ns: begun_ns.saturating_add(nanos(RECHECK_EVERY)), sure_ns: begun_ns }
    }

    pub(crate) const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// When it must be looked at again, on the plane's clock.
    pub(crate) const fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Asks if it is time to, and says how long it is until the next time.
    pub(crate) fn look(&mut self, plane: &DataPlane) -> Result<Duration, Loss> {
        let mut now_ns = plane.clock.monotonic_ns();
        if now_ns >= self.due_ns {
            now_ns = self.ask(plane)?;
        }
        Ok(Duration::from_nanos(self.due_ns.saturating_sub(now_ns)))
    }

    fn ask(&mut self, plane: &DataPlane) -> Result<u64, Loss> {
        // as with every decision: the lease first, memory next and the clock last
        let lease = plane.authority.lease.read();
        let decided = self.standing.decide(plane);
        // memory that was emptied meanwhile says nothing; its lease was taken back before that
        let sure_until_ns = lease.until_ns.min(plane.authority.lease.read().until_ns);
        let now_ns = plane.clock.monotonic_ns();
        let next_ns = now_ns.saturating_add(nanos(RECHECK_EVERY));
        if now_ns < sure_until_ns && decided != Err(Loss::Unsure) {
            decided?;
            self.sure_ns = now_ns;
            self.due_ns = next_ns;
            return Ok(now_ns);
        }
        decided.or_else(|loss| if loss.is_certain() { Err(loss) } else { Ok(()) })?;
        let end_ns = self.sure_ns.saturating_add(nanos(STREAM_GRACE));
        if now_ns >= end_ns {
            return Err(Loss::Unsure);
        }
        self.due_ns = next_ns.min(end_ns);
        Ok(now_ns)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_costs_an_answer_one_cache_line() {
        assert!(size_of::<Standing>() <= 64);
    }
}
