//! Forwards a permitted request: only a [`Permit`] gets here.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;

use keyward_core::assertion::{self, Claims};
use keyward_core::catalog::Catalog;
use keyward_core::decision::Permit;
use keyward_core::error::{Error, ErrorCode, Result};
use keyward_core::id::RequestId;
use keyward_core::time::Timestamp;

use crate::keyset::KnownKey;
use crate::proxy::body::{
    BodyBounds, ForwardBody, PlaneBody, Progress, RequestBody, UpstreamBody, Watch,
};
use crate::proxy::headers::{strip_request, strip_response};
use crate::proxy::upstream::{SendError, Upstream, outbound};
use crate::request_id::{ascii_header, received_traceparent, started_traceparent};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static SCOPES: HeaderName = HeaderName::from_static("keyward-scopes");
static TENANT: HeaderName = HeaderName::from_static("keyward-tenant");
static ENVIRONMENT: HeaderName = HeaderName::from_static("keyward-environment");
static KEY_ID: HeaderName = HeaderName::from_static("keyward-key-id");
static KEY_NAME: HeaderName = HeaderName::from_static("keyward-key-name");
static ROLE: HeaderName = HeaderName::from_static("keyward-role");
static ACTOR: HeaderName = HeaderName::from_static("keyward-actor");
static REQUEST_ID: HeaderName = HeaderName::from_static("keyward-request-id");
static ASSERTION: HeaderName = HeaderName::from_static(assertion::HEADER);

/// All the upstream is told about the caller, and all the exchange needs to know.
pub(crate) struct Passage<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) key: &'a KnownKey,
    pub(crate) tenant_header: Option<&'a HeaderName>,
    pub(crate) client: IpAddr,
    pub(crate) scheme: &'static str,
    pub(crate) request_id: RequestId,
    pub(crate) request_id_header: &'a HeaderValue,
    pub(crate) max_body_bytes: u64,
    pub(crate) now: Timestamp,
    pub(crate) now_ns: u64,
}

/// Sends the request and answers with the upstream's answer as it arrives. The permit is spent: no
/// other way leads to an upstream.
pub(crate) async fn forward(
    _permit: Permit<'_>,
    upstream: &Upstream,
    passage: &Passage<'_>,
    parts: Parts,
    body: Incoming,
) -> Result<Response<PlaneBody>> {
    let bounds =
        BodyBounds { max_bytes: passage.max_body_bytes, idle: upstream.config.body_idle_timeout };
    let (body, watch) = bounded(body, bounds)?;
    let uri = origin_form(&parts.uri)?;
    let headers = outbound_headers(upstream, passage, parts.headers, &parts.method, &uri, &body);
    let request = outbound(parts.method, uri, headers, body);
    let sent = upstream.send(request, watch.as_ref(), passage.now_ns).await;
    let (response, lease) = sent.map_err(upstream_error)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let error = Error::new(ErrorCode::UpstreamUnreachable, BAD_ANSWER);
        return Err(error.because("101 to a request that asked for no upgrade"));
    }
    let (mut head, incoming) = response.into_parts();
    strip_response(&mut head.headers);
    let unfinished = |watch: &Watch| watch.progress() != Progress::Finished;
    let cut_short = watch.as_ref().is_some_and(unfinished);
    if cut_short {
        // the rest of the request is never read, so nothing may follow it on this connection
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    head.extensions.clear();
    let body = UpstreamBody::new(incoming, lease, watch, upstream.config.body_idle_timeout);
    Ok(Response::from_parts(head, PlaneBody::Upstream(body)))
}

/// Headers that a forwarded request has besides those of its caller.
const ADDED_HEADERS: usize = 16;
const BAD_ANSWER: &str = "The API behind this gateway broke off or answered unintelligibly";

fn bounded(body: Incoming, bounds: BodyBounds) -> Result<(ForwardBody, Option<Watch>)> {
    if body.is_end_stream() {
        return Ok((ForwardBody::Empty, None));
    }
    if body.size_hint().lower() > bounds.max_bytes {
        return Err(too_large(bounds.max_bytes));
    }
    let (body, watch) = RequestBody::new(body, bounds);
    Ok((ForwardBody::Streaming(body), Some(watch)))
}

/// The refusal of a body past the limit.
pub(crate) fn too_large(max_bytes: u64) -> Error {
    let text = format!("The body is larger than {max_bytes} bytes");
    Error::new(ErrorCode::PayloadTooLarge, text).with("maxBytes", max_bytes)
}

/// The same path and query, byte for byte, without a scheme and host.
fn origin_form(uri: &Uri) -> Result<Uri> {
    let Some(path) = uri.path_and_query() else {
        return Err(Error::internal("a matched request has no path"));
    };
    Ok(Uri::from(path.clone()))
}

fn outbound_headers(
    upstream: &Upstream,
    passage: &Passage<'_>,
    mut headers: HeaderMap,
    method: &Method,
    uri: &Uri,
    body: &ForwardBody,
) -> HeaderMap {
    headers.reserve(ADDED_HEADERS);
    let host = headers.remove(HOST);
    let trace = headers.remove(&TRACEPARENT);
    strip_request(&mut headers, passage.tenant_header);
    headers.insert(HOST, upstream.host.clone());
    set_framing(&mut headers, method, body);
    set_identity(&mut headers, upstream, passage, method, uri.path());
    let mut set = |name: &HeaderName, value: HeaderValue| {
        headers.insert(name, value);
    };
    set(&X_FORWARDED_FOR, ascii_header(passage.client.to_string()));
    set(&X_FORWARDED_PROTO, HeaderValue::from_static(passage.scheme));
    set(&X_FORWARDED_HOST, host.unwrap_or_else(absent));
    set(&X_REQUEST_ID, passage.request_id_header.clone());
    let trace = trace
        .filter(|value| received_traceparent(value).is_some())
        .unwrap_or_else(|| ascii_header(started_traceparent(passage.request_id)));
    set(&TRACEPARENT, trace);
    headers
}

fn absent() -> HeaderValue {
    HeaderValue::from_static("-")
}

/// Every body is framed anew. A method that usually has a body says so also when it is empty.
fn set_framing(headers: &mut HeaderMap, method: &Method, body: &ForwardBody) {
    match (body, body.size_hint().exact()) {
        (ForwardBody::Streaming(_), Some(bytes)) => {
            headers.insert(CONTENT_LENGTH, bytes.into());
        }
        (ForwardBody::Streaming(_), None) => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        (ForwardBody::Empty, _) => {
            if matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
        }
    }
}

fn set_identity(
    headers: &mut HeaderMap,
    upstream: &Upstream,
    passage: &Passage<'_>,
    method: &Method,
    path: &str,
) {
    let Passage { catalog, key, .. } = passage;
    let environment = key.environment.as_str();
    let key_id = ascii_header(key.id.to_string());
    let actor = ascii_header(key.owner.to_string());
    let role = key.role_name(catalog);
    let scopes: Vec<&str> = catalog.scope_names(key.scopes).collect();
    let mut set = |name: &HeaderName, value: HeaderValue| {
        headers.insert(name, value);
    };
    let issued = passage.now.as_seconds();
    let claims = Claims {
        iss: assertion::ISSUER,
        aud: &upstream.config.audience,
        iat: issued,
        exp: issued + assertion::LIFETIME_SECONDS,
        sub: text(&key_id),
        tenant: text(&key.tenant.header),
        environment,
        scopes,
        role,
        actor: text(&actor),
        method: method.as_str(),
        path: path.into(),
        request_id: text(passage.request_id_header),
    };
    let mut signed = String::with_capacity(1024);
    upstream.config.assertion_key.sign_into(&claims, &mut signed);
    set(&ASSERTION, ascii_header(signed));
    set(&SCOPES, or_dash(claims.scopes.join(" ")));
    set(&TENANT, key.tenant.header.clone());
    set(&ENVIRONMENT, HeaderValue::from_static(environment));
    set(&KEY_ID, key_id);
    set(&KEY_NAME, or_dash(encoded_name(&key.name)));
    set(&ROLE, or_dash(role.to_owned()));
    set(&ACTOR, actor);
    set(&REQUEST_ID, passage.request_id_header.clone());
}

/// The text of a header value we made of ASCII.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("-")
}

fn or_dash(text: String) -> HeaderValue {
    if text.is_empty() { absent() } else { ascii_header(text) }
}

/// A name for people as header text: printable ASCII stays, everything else is percent-encoded.
fn encoded_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'%' => text.push_str("%25"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                // writing to a string cannot fail
                let _ = std::fmt::Write::write_fmt(&mut text, format_args!("%{byte:02X}"));
            }
        }
    }
    text
}

fn upstream_error(error: SendError) -> Error {
    let unreachable = "The API behind this gateway could not be reached; try again";
    let late = "The API behind this gateway did not answer in time";
    match error {
        SendError::Connect(cause) => {
            Error::new(ErrorCode::UpstreamUnreachable, unreachable).because(cause.to_string())
        }
        SendError::ConnectTimeout => {
            Error::new(ErrorCode::UpstreamTimeout, late).because("connecting took too long")
        }
        SendError::FirstByteTimeout => {
            Error::new(ErrorCode::UpstreamTimeout, late).because("no first byte in time")
        }
        SendError::UploadStalled => {
            Error::new(ErrorCode::UpstreamTimeout, late).because("it took no more of the body")
        }
        SendError::Broken(cause) => {
            Error::new(ErrorCode::UpstreamUnreachable, BAD_ANSWER).because(cause.to_string())
        }
        SendError::Body(Progress::TooLarge) => {
            Error::new(ErrorCode::PayloadTooLarge, "The body grew past the limit")
        }
        SendError::Body(Progress::TimedOut) => {
            Error::new(ErrorCode::InvalidRequest, "The body stood still for too long")
        }
        SendError::Body(_) => {
            Error::new(ErrorCode::InvalidRequest, "The body broke off or is framed wrongly")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_people_become_header_text() {
        assert_eq!(encoded_name("Nightly sync"), "Nightly sync");
        assert_eq!(encoded_name("100% é\r\n"), "100%25 %C3%A9%0D%0A");
        assert_eq!(or_dash(encoded_name("")), "-");
    }
}
