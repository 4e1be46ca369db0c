//! A request of the product's API, stage by stage:
//! `authenticate → route → authorize → forward → record`.

mod builtin;
mod exposing;
mod lasting;
mod vouch;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use http::header::{HOST, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Body as _;

use keyward_core::authority::Wanted;
use keyward_core::catalog::RouteMatch;
use keyward_core::decision::{Credential, Permit, RequestFacts, TenantHeader, decide};
use keyward_core::denial::DenialContext;
use keyward_core::environment::EnvironmentSet;
use keyward_core::error::{Error, ErrorCode};
use keyward_core::id::KeyId;
use keyward_core::key::Exposure;
use keyward_core::lease::Lease;
use keyward_core::path::Target;

use crate::answer::{Refusal, mark};
use crate::authority::unavailable;
use crate::carrier::{self, Carried};
use crate::keyset::Recognized;
use crate::lookup::find;
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::proxy::{Passage, check_headers, forward};
use crate::record::{Ending, Matched, Outcome, Record};
use crate::request_id::{self, TRACEPARENT, received_traceparent};
use crate::server::{Arrival, ArrivingBody, ArrivingRequest, ListenerEnvironments, Stage};

pub(crate) use exposing::key_in_address;
pub(crate) use vouch::{Addressee, vouch};

/// Says on an answer that it comes from what may be out of date.
static DEGRADED: HeaderName = HeaderName::from_static("keyward-degraded");
const STALE: &str = "stale-authority";

pub(crate) type Staged<T> = Result<T, Refusal>;

/// Answers one request. Whatever happens, it is recorded.
pub(crate) async fn serve(
    plane: &DataPlane,
    arrival: &Arrival,
    request: &mut ArrivingRequest,
) -> Response<PlaneBody> {
    let entrance = Entrance {
        environments: &arrival.listener.environments,
        client: plane.policy.trusted_proxies.client(arrival.peer, &request.head.headers),
        contract: None,
    };
    let mut exchange = Exchange::begin(plane, arrival, entrance, &request.head);
    // what a fault of ours leaves behind is dropped with the request and its connection
    let outcome = AssertUnwindSafe(exchange.answer(request)).catch_unwind().await;
    exchange.finish(outcome.unwrap_or_else(|_| Err(Refusal::closing(panicked()))))
}

fn panicked() -> Error {
    let text = "Keyward failed at this request; give its request id to whoever runs it";
    Error::new(ErrorCode::Internal, text).because("a panic")
}

/// How a request came to be decided about.
#[derive(Clone, Copy)]
pub(crate) struct Entrance<'p> {
    /// The environments served where it arrived.
    pub(crate) environments: &'p ListenerEnvironments,
    /// Who made it.
    pub(crate) client: IpAddr,
    /// How the proxy asks that would forward it; `None` for the gateway itself.
    pub(crate) contract: Option<&'static str>,
}

/// Who calls, as far as the credential tells.
#[derive(Clone, Copy)]
enum Caller {
    Missing,
    Ambiguous,
    Malformed,
    /// Failed too often; for this many milliseconds more.
    Withheld(i64),
    /// An id that this deployment never made.
    Forged,
    /// An id that this deployment made and memory does not know.
    Absent(KeyId),
    Unknown,
    /// The key is in the record.
    Known,
}

/// One request on its way through the stages.
pub(crate) struct Exchange<'p> {
    plane: &'p DataPlane,
    arrival: &'p Arrival,
    environments: &'p ListenerEnvironments,
    pub(crate) record: Record<'p>,
    pub(crate) id: HeaderValue,
    /// Whether the answer comes from what may be out of date.
    stale: bool,
    recorded: bool,
}

impl<'p> Exchange<'p> {
    pub(crate) fn begin(
        plane: &'p DataPlane,
        arrival: &'p Arrival,
        entrance: Entrance<'p>,
        parts: &Parts,
    ) -> Self {
        let at = plane.clock.now();
        let request_id = request_id::next(plane.clock.as_ref(), at);
        let header = |name: &HeaderName| find(&parts.headers, name).cloned();
        Self {
            plane,
            arrival,
            environments: entrance.environments,
            record: Record {
                request_id,
                contract: entrance.contract,
                trace: header(&TRACEPARENT).filter(|it| received_traceparent(it).is_some()),
                agent: header(&USER_AGENT),
                method: parts.method.clone(),
                client: entrance.client,
                at,
                started_ns: plane.clock.monotonic_ns(),
                matched: None,
                key: None,
                permitted: false,
            },
            id: request_id::header(request_id),
            stale: false,
            recorded: false,
        }
    }

    async fn answer(&mut self, request: &mut ArrivingRequest) -> Staged<Response<PlaneBody>> {
        let ArrivingRequest { head: parts, body } = request;
        if self.arrival.is_in_clear_text(&self.plane.policy.trusted_proxies, &parts.headers) {
            self.refuse_clear_text(parts)?;
        }
        let target = self.read(parts)?;
        let permit = self.permit(parts, target).await?;
        match &permit.route().builtin {
            // rare and large, so not a part of every request's state
            Some(name) => Box::pin(self.answer_builtin(name, parts, target, body.take())).await,
            None => self.forward(permit, parts, body).await,
        }
    }

    /// The request as it will be decided about, if it reads one way only.
    pub(crate) fn read<'u>(&self, parts: &'u Parts) -> Staged<Target<'u>> {
        self.arrival.admit()?;
        let target = self.read_target(parts)?;
        check_headers(&parts.headers, self.plane.product.tenant_header.as_ref())?;
        Ok(target)
    }

    /// Stages 1 to 3.
    pub(crate) async fn permit(&mut self, parts: &Parts, target: Target<'_>) -> Staged<Permit<'p>> {
        let route = self.route(parts, target);
        let permit = match self.decide(parts, target, route) {
            Some(decision) => decision?,
            // rare: this node must ask the authority first
            None => Box::pin(self.decide_with_authority(parts, target, route)).await?,
        };
        self.record.permitted = true;
        Ok(permit)
    }

    pub(crate) fn finish(&mut self, outcome: Staged<Response<PlaneBody>>) -> Response<PlaneBody> {
        let (mut response, error) = match outcome {
            Ok(response) => (response, None),
            Err(mut refusal) => {
                refusal.scheme = self.plane.product.scheme;
                let code = refusal.error.code();
                let internal = refusal.error.internal_context().map(str::to_owned);
                let docs_base = &self.plane.product.docs_base;
                let response = refusal.into_response(self.record.request_id, docs_base);
                (response, Some((code, internal)))
            }
        };
        self.mark(response.headers_mut());
        self.close(Ending {
            outcome: Outcome::Answered,
            status: response.status().as_u16(),
            code: error.as_ref().map(|(code, _)| *code),
            internal: error.as_ref().and_then(|(_, internal)| internal.as_deref()),
        });
        response
    }

    /// Says on an answer which request it belongs to, and what it rests on.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        let accepted = self
            .record
            .matched
            .and_then(|matched| self.plane.product.accepted.get(matched.position));
        mark(headers, self.id.clone(), accepted);
        if self.stale {
            headers.insert(&DEGRADED, HeaderValue::from_static(STALE));
        }
    }

    /// Stage 5.
    pub(crate) fn close(&mut self, ending: Ending<'_>) {
        self.recorded = true;
        self.record.close(self.plane, ending);
    }

    /// The path as it will be matched and forwarded.
    fn read_target<'u>(&self, parts: &'u Parts) -> Staged<Target<'u>> {
        let text = parts.uri.path_and_query().map_or("", |whole| whole.as_str());
        // first: a key is exposed whatever else is wrong with the address
        self.refuse_key_in(text, &parts.headers)?;
        let target = Target::parse(text).map_err(Error::from)?;
        let uri = &parts.uri;
        let named = find(&parts.headers, &HOST).map(HeaderValue::as_bytes);
        let differs = |host: &str| named.is_none_or(|it| !it.eq_ignore_ascii_case(host.as_bytes()));
        if uri.authority().is_some_and(|authority| differs(authority.as_str())) {
            let text = "The address names another host than the Host header";
            return Err(Error::new(ErrorCode::InvalidPath, text).into());
        }
        Ok(target)
    }

    /// Stages 1 to 3 from memory; `None` when memory is not enough.
    ///
    /// The lease is read first, memory next and the clock last: whatever was changed with effect
    /// before this request was sent is in the memory that such a lease vouches for.
    fn decide(
        &mut self,
        parts: &Parts,
        target: Target<'_>,
        route: RouteMatch<'p>,
    ) -> Option<Staged<Permit<'p>>> {
        let plane = self.plane;
        let ((caller, decision), vouched) = plane.recall(|| {
            let caller = self.authenticate(parts);
            (caller, self.authorize(parts, target, caller, route))
        });
        match caller {
            Caller::Missing
            | Caller::Ambiguous
            | Caller::Malformed
            | Caller::Withheld(_)
            | Caller::Forged => Some(decision),
            Caller::Absent(_) => None,
            Caller::Unknown | Caller::Known => {
                let strict = matches!(route, RouteMatch::Route(route) if route.strict);
                (!strict && vouched).then_some(decision)
            }
        }
    }

    /// Stages 1 to 3 once everything is in memory that was committed before now.
    async fn decide_with_authority(
        &mut self,
        parts: &Parts,
        target: Target<'_>,
        route: RouteMatch<'p>,
    ) -> Staged<Permit<'p>> {
        let lease = self.plane.authority.lease.read();
        if let Caller::Absent(key) = self.authenticate(parts) {
            self.plane.look_up(Wanted::Key(key)).await?;
            if let Some(decision) = self.decide(parts, target, route) {
                return decision;
            }
        }
        let withdrawals = self.plane.authority.lease.withdrawals();
        if let Err(error) = self.plane.catch_up().await {
            return self.decide_stale(parts, target, route, lease).unwrap_or(Err(error.into()));
        }
        let caller = self.authenticate(parts);
        if matches!(caller, Caller::Absent(_)) {
            // it was found, and has made room for others since
            return Err(unavailable().into());
        }
        let decision = self.authorize(parts, target, caller, route);
        self.plane.unless_emptied(withdrawals)?;
        decision
    }

    /// Stages 1 to 3 while the authority is away, as far as the deployment allows it: safe methods
    /// only, and the answer says so.
    fn decide_stale(
        &mut self,
        parts: &Parts,
        target: Target<'_>,
        route: RouteMatch<'p>,
        lease: Lease,
    ) -> Option<Staged<Permit<'p>>> {
        let RouteMatch::Route(found) = route else { return None };
        if found.strict || !found.method.is_safe() {
            return None;
        }
        let caller = self.authenticate(parts);
        let decision = self.authorize(parts, target, caller, route);
        let known = matches!(caller, Caller::Known);
        // a lease that was taken back is not even good for this
        let until_ns = lease.stale_until_ns.min(self.plane.authority.lease.read().stale_until_ns);
        let holds = self.plane.clock.monotonic_ns() < until_ns;
        self.stale = known && holds;
        self.stale.then_some(decision)
    }

    /// Stage 1: reads the credential, holds back callers that fail too often, and finds the key.
    fn authenticate(&mut self, parts: &Parts) -> Caller {
        self.record.key = None;
        let text = match carrier::credential(&parts.headers, &self.plane.product.carriers) {
            Carried::Nothing => return Caller::Missing,
            Carried::Several => return Caller::Ambiguous,
            Carried::One(text) => Some(text),
            Carried::Unreadable => None,
        };
        let keys = &self.plane.authority.keys;
        let presented = text.and_then(|text| keys.keyring().format().parse(text).ok());
        let failed = &self.plane.authority.failed_callers;
        let now_ms = self.record.at.as_millis();
        let Some(presented) = presented else {
            failed.failed(self.record.client, now_ms);
            return Caller::Malformed;
        };
        if let Some(left_ms) = failed.held_back_ms(self.record.client, now_ms) {
            return Caller::Withheld(left_ms);
        }
        match keys.recognize(&presented) {
            Recognized::Known(key) => {
                self.record.key = Some(key);
                Caller::Known
            }
            Recognized::Unknown(key) if !self.plane.is_absent(key) => Caller::Absent(key),
            recognized => {
                failed.failed(self.record.client, now_ms);
                if recognized.is_remembered() { Caller::Unknown } else { Caller::Forged }
            }
        }
    }

    /// Stage 2: finds the route on the allowlist.
    fn route(&mut self, parts: &Parts, target: Target<'_>) -> RouteMatch<'p> {
        let catalog = &self.plane.product.catalog;
        let found = catalog.route(parts.method.as_str(), target.path);
        if let RouteMatch::Route(route) = found {
            let position = catalog.routes().element_offset(route);
            self.record.matched = position.map(|position| Matched { route, position });
        }
        found
    }

    /// Stage 3: the one decision.
    fn authorize(
        &self,
        parts: &Parts,
        target: Target<'_>,
        caller: Caller,
        route: RouteMatch<'p>,
    ) -> Staged<Permit<'p>> {
        let product = &self.plane.product;
        let key = self.record.key.as_ref();
        let credential = match (caller, key) {
            (Caller::Missing, _) => Credential::Missing,
            (Caller::Ambiguous, _) => Credential::Ambiguous,
            (Caller::Malformed, _) => Credential::Malformed,
            (Caller::Withheld(_), _) => Credential::Withheld,
            (Caller::Known, Some(key)) => Credential::Known(key.facts(&product.catalog)),
            (Caller::Forged | Caller::Absent(_) | Caller::Unknown | Caller::Known, _) => {
                Credential::Unknown
            }
        };
        let header = product.tenant_header.as_ref();
        let facts = RequestFacts {
            environments: self.environments(parts),
            ip: Some(self.record.client),
            from_browser: carrier::is_from_browser(&parts.headers),
            tenant: key.map_or(TenantHeader::NotRequired, |key| {
                carrier::tenant_header(&parts.headers, header, key.tenant)
            }),
        };
        let decision = decide(&credential, route, &facts, self.record.at);
        decision.map_err(|denial| {
            if let (ErrorCode::BrowserOriginRefused, Some(key)) = (denial.code, key) {
                self.expose(key, Exposure::Browser);
            }
            let context = DenialContext {
                catalog: &product.catalog,
                method: parts.method.as_str(),
                path: target.path,
                route,
                key: match &credential {
                    Credential::Known(facts) => Some(facts),
                    _ => None,
                },
                role: key.map_or("-", |key| key.role_name(&product.catalog)),
                environments: facts.environments,
                carriers: &product.carriers_text,
                tenant_header: header.map(HeaderName::as_str),
            };
            Refusal {
                retry_after: match caller {
                    Caller::Withheld(left_ms) => Some(left_ms.unsigned_abs().div_ceil(1_000)),
                    _ => None,
                },
                ..Refusal::from(denial.to_error(&context))
            }
        })
    }

    fn environments(&self, parts: &Parts) -> EnvironmentSet {
        let environments = self.environments;
        let host = if environments.vary() { find(&parts.headers, &HOST) } else { None };
        environments.of(host.and_then(|host| host.to_str().ok()).unwrap_or_default())
    }

    /// Stage 4: the upstream's answer.
    async fn forward(
        &self,
        permit: Permit<'p>,
        parts: &Parts,
        body: &mut ArrivingBody,
    ) -> Staged<Response<PlaneBody>> {
        let product = &self.plane.product;
        let Some(key) = &self.record.key else {
            return Err(Error::internal("a permit without a key").into());
        };
        let route = self.record.matched.map_or(usize::MAX, |matched| matched.position);
        let Some(upstream) = self.plane.upstreams.of(key.environment, route) else {
            let text = format!("There is no API behind this gateway for {} keys", key.environment);
            return Err(Error::new(ErrorCode::Unavailable, text).into());
        };
        let passage = Passage {
            plane: self.plane,
            catalog: &product.catalog,
            key,
            tenant_header: product.tenant_header.as_ref(),
            client: self.record.client,
            scheme: self.arrival.listener.public_scheme,
            request_id: self.record.request_id,
            request_id_header: &self.id,
            max_body_bytes: self.arrival.listener.max_body_bytes,
            now: self.record.at,
            now_ns: self.record.started_ns,
            standing: &self.arrival.standing,
        };
        let has_body = !body.is_end_stream();
        forward(permit, upstream, &passage, parts, body).await.map_err(|refusal| {
            // what is left of a refused body is never read, unless it is the upstream that failed
            let gives_up = refusal.error.code() != ErrorCode::UpstreamUnreachable;
            Refusal { close: has_body && gives_up, ..refusal }
        })
    }
}

impl Drop for Exchange<'_> {
    /// Records a request that ends without an answer: its caller may be gone, but the upstream may
    /// have got it.
    fn drop(&mut self) {
        if self.recorded {
            return;
        }
        let stopped = *self.arrival.listener.stage.borrow() == Stage::Stopped;
        let ending = match (std::thread::panicking(), stopped) {
            (true, _) => Ending::PANICKED,
            (false, true) => Ending::CUT,
            (false, false) => Ending::CLIENT_GONE,
        };
        self.record.close(self.plane, ending);
    }
}
