//! `POST /v1/verify`: the decision of the gateway, for callers that forward requests themselves.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response};

use keyward_api::Bounded as _;
use keyward_api::verify::{
    Refusal as VerifyRefusal, TraceStep, VALID, VerifyRequest, VerifyResponse,
};
use keyward_core::catalog::{Catalog, RouteMatch};
use keyward_core::decision::{
    Credential, Denial, RequestFacts, Step, TenantHeader, decide, decide_scopes, trace,
};
use keyward_core::denial::DenialContext;
use keyward_core::environment::EnvironmentSet;
use keyward_core::error::{Error, ErrorCode, Result};
use keyward_core::path::Target;
use keyward_core::time::Timestamp;

use crate::admin_tokens::AdminCaller;
use crate::answer::{Refusal, mark};
use crate::builtin::read_whole;
use crate::keyset::KnownKey;
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::recall::{Found, recognize};
use crate::request_id;
use crate::server::{Arrival, ArrivingRequest};

/// The path of the operation.
pub const VERIFY_PATH: &str = "/v1/verify";
/// The scope of Keyward's own API that its callers need.
pub const VERIFY_SCOPE: &str = "verify";
/// Bytes that hold nearly every answer.
const USUAL_ANSWER_BYTES: usize = 768;
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
    let outcome = answer(plane, arrival, request, now).await;
    let mut response =
        outcome.unwrap_or_else(|refusal| refusal.into_response(id, &plane.product.docs_base));
    mark(response.headers_mut(), &request_id::header(id), None);
    response
}

async fn answer(
    plane: &DataPlane,
    arrival: &Arrival,
    request: &mut ArrivingRequest,
    now: Timestamp,
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
    let body = read_whole(request.body.take(), MAX_VERIFY_BODY_BYTES, within)
        .await
        .map_err(Refusal::closing)?;
    let asked = read_question(&body)?;
    let found = recognize(plane, &asked.key, || is_strict(plane, &asked)).await?;
    // the body took its time: a key may have expired meanwhile
    let answer = decide_question(plane, caller.as_ref(), &asked, found, plane.clock.now())?;
    let mut bytes = Vec::with_capacity(USUAL_ANSWER_BYTES);
    serde_json::to_writer(&mut bytes, &answer).map_err(|e| Error::internal(e.to_string()))?;
    let mut response = Response::new(PlaneBody::from(bytes));
    let headers = response.headers_mut();
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
    let Some(value) = headers.get(AUTHORIZATION) else {
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
    let caller = plane.admit(token).await.inspect_err(|error| {
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
    let sent = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
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
    let asked: VerifyRequest<'_> = serde_json::from_slice(body).map_err(|e| {
        // the parser's own text may quote the body, and a key stands in it
        let place = format!("line {}, column {}", e.line(), e.column());
        Error::new(ErrorCode::InvalidRequest, text).with("at", place)
    })?;
    asked.check()?;
    Ok(asked)
}

/// Whether the route that is asked about is never decided from memory alone.
fn is_strict(plane: &DataPlane, asked: &VerifyRequest<'_>) -> bool {
    let (Some(method), Some(path)) = (&asked.method, &asked.path) else { return false };
    let target = Target::parse(path);
    target.is_ok_and(|target| match plane.product.catalog.route(method, target.path) {
        RouteMatch::Route(route) => route.strict,
        _ => false,
    })
}

fn decide_question<'a>(
    plane: &'a DataPlane,
    caller: Option<&AdminCaller>,
    asked: &VerifyRequest<'_>,
    found: Found,
    now: Timestamp,
) -> Result<VerifyResponse<'a>> {
    let catalog = &*plane.product.catalog;
    let ip = asked.ip.as_deref().map(parse_ip).transpose()?;
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
        ip,
        from_browser: false,
        tenant: known.as_ref().map_or(TenantHeader::NotRequired, |key| named(asked, key)),
    };
    let denial = decide_both(catalog, asked, &credential, &facts, now)?;
    let answer = response(plane, known.as_ref(), denial, asked.explain);
    let refusal = denial.filter(|_| asked.explain);
    let refusal = refusal.map(|denial| refusal_of(plane, asked, known.as_ref(), &facts, denial));
    Ok(VerifyResponse { refusal, ..answer })
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
    asked: &VerifyRequest<'_>,
    key: Option<&KnownKey>,
    request: &RequestFacts,
    denial: Denial,
) -> VerifyRefusal {
    let product = &plane.product;
    let (method, path) = (asked.method.as_deref(), asked.path.as_deref());
    let target = path.and_then(|path| Target::parse(path).ok());
    let route = method
        .zip(target)
        .map_or(RouteMatch::None, |(method, target)| product.catalog.route(method, target.path));
    let facts = key.map(|key| key.facts(&product.catalog));
    let error = denial.to_error(&DenialContext {
        catalog: &product.catalog,
        method: method.unwrap_or("-"),
        path: target.map_or("-", |target| target.path),
        route,
        key: facts.as_ref(),
        role: key.map_or("-", |key| key.role_name(&product.catalog)),
        environments: request.environments,
        carriers: &product.carriers_text,
        tenant_header: product.tenant_header.as_ref().map(http::HeaderName::as_str),
    });
    VerifyRefusal { message: error.public().to_owned(), details: error.details().clone() }
}

/// The route, when one is named, then the scopes that are asked for besides.
fn decide_both(
    catalog: &Catalog,
    asked: &VerifyRequest<'_>,
    credential: &Credential<'_>,
    facts: &RequestFacts,
    now: Timestamp,
) -> Result<Option<Denial>> {
    let needed = catalog.requirement(&asked.scopes).ok_or_else(|| {
        let unknown = asked.scopes.iter().find(|scope| catalog.requirement(&[scope]).is_none());
        let text = format!("There is no scope {}", unknown.map_or("", |scope| scope.as_ref()));
        Error::validation("scopes", text)
    })?;
    if let (Some(method), Some(path)) = (&asked.method, &asked.path) {
        let target = Target::parse(path)?;
        let route = catalog.route(method, target.path);
        if let Err(denial) = decide(credential, route, facts, now) {
            return Ok(Some(denial));
        }
    }
    Ok(decide_scopes(credential, needed, facts, now).err())
}

fn parse_ip(text: &str) -> Result<IpAddr> {
    let parsed = text.parse();
    parsed.map_err(|_| Error::validation("ip", "ip is an IPv4 or IPv6 address"))
}

fn response<'a>(
    plane: &'a DataPlane,
    key: Option<&KnownKey>,
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
        name: key.map(|key| Cow::Owned(key.name.to_string())),
        tenant_id: key.map(|key| key.tenant.id),
        environment: key.map(|key| key.environment),
        scopes: scopes.unwrap_or_default(),
        role: key.filter(|key| key.role.is_some()).map(|key| key.role_name(catalog).into()),
        actor: key.map(|key| Cow::Owned(key.owner.to_string())),
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
