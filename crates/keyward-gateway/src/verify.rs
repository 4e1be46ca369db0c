//! `POST /v1/verify`: the decision of the gateway, for callers that forward requests themselves.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response};

use keyward_api::Bounded as _;
use keyward_api::verify::{
    Refusal as VerifyRefusal, TraceStep, VALID, VerifyRequest, VerifyResponse,
};
use keyward_core::catalog::{Alternative, Catalog, RouteMatch};
use keyward_core::decision::{
    Credential, Denial, Reason, RequestFacts, Step, TenantHeader, decide, decide_scopes, trace,
};
use keyward_core::denial::DenialContext;
use keyward_core::environment::EnvironmentSet;
use keyward_core::error::{Error, ErrorCode, Result};
use keyward_core::id::RequestId;
use keyward_core::key::{Exposed, Exposure};
use keyward_core::path::Target;
use keyward_core::time::Timestamp;

use crate::admin_tokens::AdminCaller;
use crate::answer::{Refusal, mark};
use crate::builtin::read_whole;
use crate::keyset::KnownKey;
use crate::lookup::find;
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::proxy::too_large;
use crate::recall::{Found, recognize};
use crate::request_id;
use crate::server::{Arrival, ArrivingBody, ArrivingRequest};
use crate::spare::maps;

/// The path of the operation.
pub const VERIFY_PATH: &str = "/v1/verify";
/// The scope of Keyward's own API that its callers need.
pub const VERIFY_SCOPE: &str = "verify";
/// Headers of every answer.
const ANSWER_HEADERS: usize = 3;
static JSON: HeaderValue = HeaderValue::from_static("application/json");
static NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// The most bytes in the body of a request.
pub const MAX_VERIFY_BODY_BYTES: usize = 16 * 1024;

/// Answers one question.
pub(crate) async fn serve(
    plane: &DataPlane,
    arrival: &Arrival,
    request: &mut ArrivingRequest,
) -> Response<PlaneBody> {
    let now = plane.clock.now();
    let id = request_id::next(plane.clock.as_ref(), now);
    let outcome = answer(plane, arrival, request, (id, now)).await;
    let mut response =
        outcome.unwrap_or_else(|refusal| refusal.into_response(id, &plane.product.docs_base));
    mark(response.headers_mut(), request_id::header(id), None);
    response
}

async fn answer(
    plane: &DataPlane,
    arrival: &Arrival,
    request: &mut ArrivingRequest,
    (id, now): (RequestId, Timestamp),
) -> std::result::Result<Response<PlaneBody>, Refusal> {
    arrival.admit()?;
    let parts = &request.head;
    if parts.method != Method::POST {
        let text = format!("{VERIFY_PATH} does not accept {}", parts.method);
        let error = Error::new(ErrorCode::MethodNotAllowed, text);
        return Err(error.with("allowedMethods", vec!["POST"]).into());
    }
    let caller = admit_caller(plane, arrival.peer, &parts.headers, now).await?;
    check_media_type(&parts.headers)?;
    let within = arrival.listener.whole_body_timeout;
    let body = read_body(&mut request.body, within).await.map_err(Refusal::closing)?;
    let asked = read_question(&body.bytes)?;
    let call = Call::of(&plane.product.catalog, &asked)?;
    let found = recognize(plane, &asked.key, || call.is_strict()).await?;
    // where the body took its time, a key may have expired meanwhile
    let now = if body.waited { plane.clock.now() } else { now };
    let answer = decide_question(plane, caller.as_ref(), &call, found, (id, now))?;
    let mut response = Response::new(PlaneBody::from(answer));
    let headers = response.headers_mut();
    *headers = maps::take(ANSWER_HEADERS);
    headers.insert(CONTENT_TYPE, JSON.clone());
    headers.insert(CACHE_CONTROL, NO_STORE.clone());
    Ok(response)
}

/// The holder of an admin token with the scope, or `None` for a declared proxy.
async fn admit_caller(
    plane: &DataPlane,
    peer: IpAddr,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Option<AdminCaller>> {
    let Some(value) = find(headers, &AUTHORIZATION) else {
        if plane.policy.verify_callers.contains(peer) {
            return Ok(None);
        }
        let text = "Send an admin token with the scope verify as Authorization: Bearer …";
        return Err(Error::new(ErrorCode::MissingApiKey, text));
    };
    let text = value.to_str().unwrap_or_default();
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    };
    let failed = &plane.authority.failed_callers;
    if failed.held_back_ms(peer, now.as_millis()).is_some() {
        let text = "Too many wrong admin tokens came from this address; wait and try again";
        return Err(Error::new(ErrorCode::RateLimited, text).with("failed", "failed_caller"));
    }
    let caller = plane.admit_at(now, token).await.inspect_err(|error| {
        if error.code() != ErrorCode::Unavailable {
            failed.failed(peer, now.as_millis());
        }
    })?;
    if caller.may(VERIFY_SCOPE, &plane.product.catalog) {
        Ok(Some(caller))
    } else if caller.has_scope(VERIFY_SCOPE) {
        let text = "The role of the admin token may not use verify";
        Err(Error::new(ErrorCode::RbacDenied, text).with("failed", Step::Role.as_str()))
    } else {
        let text = "The admin token lacks the scope verify";
        let error = Error::new(ErrorCode::Forbidden, text).with("failed", Step::Scope.as_str());
        Err(error.with("requiredScopes", vec![vec![VERIFY_SCOPE]]))
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<()> {
    let sent = find(headers, &CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = sent.split(|byte| *byte == b';').next().unwrap_or_default();
    if essence.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    let text = "Send the body as Content-Type: application/json";
    Err(Error::new(ErrorCode::UnsupportedMediaType, text))
}

fn read_question(body: &[u8]) -> Result<VerifyRequest<'_>> {
    let text = "The body is not the JSON object that verify expects";
    // a list would be taken for the fields in their order
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Error::new(ErrorCode::InvalidRequest, text));
    }
    // text is looked at once, and not again string by string
    let asked: serde_json::Result<VerifyRequest<'_>> = match str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    };
    let asked = asked.map_err(|e| {
        // the parser's own text may quote the body, and a key stands in it
        let place = format!("line {}, column {}", e.line(), e.column());
        Error::new(ErrorCode::InvalidRequest, text).with("at", place)
    })?;
    asked.check()?;
    Ok(asked)
}

/// The body of a question.
struct Body {
    bytes: Bytes,
    /// Whether it had to be waited for.
    waited: bool,
}

/// The whole body, which usually came with its head.
async fn read_body(body: &mut ArrivingBody, within: Duration) -> Result<Body> {
    match body.take_whole() {
        Some(bytes) if bytes.len() <= MAX_VERIFY_BODY_BYTES => Ok(Body { bytes, waited: false }),
        Some(_) => Err(too_large(MAX_VERIFY_BODY_BYTES as u64)),
        None => {
            let bytes = read_whole(body.take(), MAX_VERIFY_BODY_BYTES, within).await?;
            Ok(Body { bytes, waited: true })
        }
    }
}

/// What is asked about, as far as it does not depend on the key.
struct Call<'a> {
    asked: &'a VerifyRequest<'a>,
    /// The scopes it needs besides those of its route.
    needed: Alternative,
    /// Its path and the route there, when it has one.
    way: Option<(Target<'a>, RouteMatch<'a>)>,
    ip: Option<IpAddr>,
}

impl<'a> Call<'a> {
    fn of(catalog: &'a Catalog, asked: &'a VerifyRequest<'a>) -> Result<Self> {
        let needed = catalog.requirement(&asked.scopes).ok_or_else(|| {
            let unknown = asked.scopes.iter().find(|scope| catalog.requirement(&[scope]).is_none());
            let text = format!("There is no scope {}", unknown.map_or("", |scope| scope.as_ref()));
            Error::validation("scopes", text)
        })?;
        let way = match (&asked.method, &asked.path) {
            (Some(method), Some(path)) => {
                let target = Target::parse(path)?;
                Some((target, catalog.route(method, target.path)))
            }
            _ => None,
        };
        Ok(Self { asked, needed, way, ip: asked.ip.as_deref().map(parse_ip).transpose()? })
    }

    fn route(&self) -> RouteMatch<'a> {
        self.way.map_or(RouteMatch::None, |(_, route)| route)
    }

    /// Whether it is never decided from memory alone.
    fn is_strict(&self) -> bool {
        matches!(self.route(), RouteMatch::Route(route) if route.strict)
    }

    /// The decision about its route, when one is named, and about the scopes it asks for besides.
    fn decide(
        &self,
        credential: &Credential<'_>,
        facts: &RequestFacts,
        now: Timestamp,
    ) -> Option<Denial> {
        if let Some(by @ (Exposure::ClearText | Exposure::Url)) = self.asked.exposure {
            // whatever the key is worth
            let (step, reason) = (Step::Credential, Reason::Plain);
            return Some(Denial { step, code: by.code(), reason });
        }
        let of_route = self.way.and_then(|(_, route)| decide(credential, route, facts, now).err());
        of_route.or_else(|| decide_scopes(credential, self.needed, facts, now).err())
    }

    /// How the key was exposed, when this is why it is refused: as the gateway has it, one that
    /// was refused already before its browser was looked at is not.
    fn exposure(&self, denial: Option<Denial>) -> Option<Exposure> {
        let code = denial.map(|denial| denial.code);
        self.asked.exposure.filter(|by| code == Some(by.code()))
    }
}

/// The answer, as JSON.
fn decide_question(
    plane: &DataPlane,
    caller: Option<&AdminCaller>,
    call: &Call<'_>,
    found: Found<'_>,
    (id, now): (RequestId, Timestamp),
) -> Result<Vec<u8>> {
    let (catalog, asked) = (&*plane.product.catalog, call.asked);
    // a key of a tenant the caller may not see does not exist for them
    let known = found.key.filter(|key| caller.is_none_or(|caller| caller.may_see(key.tenant.id)));
    let credential = match &known {
        Some(key) => Credential::Known(key.facts(catalog)),
        None => found.failed,
    };
    let facts = RequestFacts {
        environments: asked
            .environment
            .map_or(EnvironmentSet::ALL, |only| std::iter::once(only).collect()),
        ip: call.ip,
        from_browser: asked.exposure == Some(Exposure::Browser),
        tenant: known.as_ref().map_or(TenantHeader::NotRequired, |key| named(asked, key)),
    };
    let denial = call.decide(&credential, &facts, now);
    if let (Some(key), Some(by)) = (&known, call.exposure(denial)) {
        plane.recorder.exposures.expose(key, Exposed { at: now, by }, id, call.ip);
    }
    let actor = known.as_ref().map(|key| key.owner.text());
    let actor = actor.as_ref().and_then(|text| str::from_utf8(text).ok());
    let answer = response(plane, known.as_ref(), actor, denial, asked.explain);
    let refusal = denial.filter(|_| asked.explain);
    let refusal = refusal.map(|denial| refusal_of(plane, call, known.as_ref(), &facts, denial));
    let written = VerifyResponse { refusal, ..answer }.to_json();
    written.map_err(|error| Error::internal(error.to_string()))
}

/// Whether the tenant that the call is for is that of the key.
fn named(asked: &VerifyRequest<'_>, key: &KnownKey) -> TenantHeader {
    if asked.tenant_id.is_none() && asked.tenant.is_none() {
        return TenantHeader::NotRequired;
    }
    let by_id = asked.tenant_id.is_none_or(|tenant| key.tenant.id == tenant);
    let by_text = asked.tenant.as_ref().is_none_or(|text| key.tenant.is_named(text.as_bytes()));
    if by_id && by_text { TenantHeader::Matches } else { TenantHeader::Differs }
}

/// The words in which the gateway would refuse the call.
fn refusal_of(
    plane: &DataPlane,
    call: &Call<'_>,
    key: Option<&KnownKey>,
    request: &RequestFacts,
    denial: Denial,
) -> VerifyRefusal {
    let product = &plane.product;
    let facts = key.map(|key| key.facts(&product.catalog));
    let error = denial.to_error(&DenialContext {
        catalog: &product.catalog,
        method: call.asked.method.as_deref().unwrap_or("-"),
        path: call.way.map_or("-", |(target, _)| target.path),
        route: call.route(),
        key: facts.as_ref(),
        role: key.map_or("-", |key| key.role_name(&product.catalog)),
        environments: request.environments,
        carriers: &product.carriers_text,
        tenant_header: product.tenant_header.as_ref().map(http::HeaderName::as_str),
    });
    VerifyRefusal { message: error.public().to_owned(), details: error.details().clone() }
}

fn parse_ip(text: &str) -> Result<IpAddr> {
    let parsed = text.parse();
    parsed.map_err(|_| Error::validation("ip", "ip is an IPv4 or IPv6 address"))
}

fn response<'a>(
    plane: &'a DataPlane,
    key: Option<&'a KnownKey<'_>>,
    actor: Option<&'a str>,
    denial: Option<Denial>,
    explain: bool,
) -> VerifyResponse<'a> {
    let catalog = &*plane.product.catalog;
    let code = denial.map_or(VALID, |denial| denial.code.as_str());
    let scopes = key.map(|key| catalog.scope_names(key.scopes).map(Cow::Borrowed).collect());
    let steps = || trace(denial.map(|denial| denial.step));
    VerifyResponse {
        valid: denial.is_none(),
        code: Cow::Borrowed(code),
        key_id: key.map(|key| key.id),
        name: key.map(|key| Cow::Borrowed(&*key.name)),
        tenant_id: key.map(|key| key.tenant.id),
        environment: key.map(|key| key.environment),
        scopes: scopes.unwrap_or_default(),
        role: key.filter(|key| key.role.is_some()).map(|key| key.role_name(catalog).into()),
        actor: actor.map(Cow::Borrowed),
        expires_at: key.and_then(|key| key.expires_at),
        suspect: key.is_some_and(|key| key.suspect),
        rate_limits: Vec::new(),
        quota: None,
        failed: denial.map(|denial| Cow::Borrowed(denial.step.as_str())),
        trace: explain.then(|| steps().map(|(step, how)| TraceStep::new(step, how)).collect()),
        refusal: None,
        epoch: plane.epoch().0,
    }
}
