//! Envoy's gRPC contract: one unary call, `envoy.service.auth.v3.Authorization/Check`.
//!
//! Every decision is an answer with gRPC status 0. Another status would be an error to Envoy, which
//! may be set up to let requests pass then.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;

use keyward_core::error::{Error, ErrorCode};

use crate::builtin::read_whole;
use crate::forward_auth::asked::Asked;
use crate::forward_auth::check::{
    Allowed, CheckRequest, CheckResponse, Denied, HeaderOption, HttpStatus, Status,
};
use crate::forward_auth::{ForwardAuth, admit_proxy, decide, refused, removed_headers};
use crate::identity;
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::proxy::speaks_of_caller;
use crate::server::{Arrival, ArrivingRequest};

/// The path of the call.
pub const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// The most bytes in a question: the head of a request, and what Envoy knows of its connection.
const MAX_CHECK_BYTES: usize = 256 * 1024;
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
const CONTRACT: &str = "envoy-grpc";
const GRPC: &str = "application/grpc";
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Codes of gRPC and of `google.rpc.Status`, which are the same.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// Answers one call.
pub(crate) async fn check(
    plane: &DataPlane,
    forward_auth: &ForwardAuth,
    arrival: &Arrival,
    request: &mut ArrivingRequest,
) -> Response<PlaneBody> {
    let (parts, body) = request.take().into_parts();
    let is_grpc = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes()));
    if parts.method != Method::POST || !is_grpc {
        let text = "This path takes gRPC calls: POST with application/grpc, over HTTP/2";
        return refused(plane, CONTRACT, Error::new(ErrorCode::UnsupportedMediaType, text));
    }
    if let Err(error) = admit_proxy(plane, forward_auth, arrival.peer, &parts.headers) {
        return answered(&denied(refused(plane, CONTRACT, error)));
    }
    let within = arrival.listener.whole_body_timeout;
    let question = match read_whole(body, MAX_CHECK_BYTES, within).await {
        Ok(bytes) => read_question(&bytes),
        Err(_) => Err((code::INVALID_ARGUMENT, "the message did not arrive, or is too large")),
    };
    let question = match question {
        Ok(question) => question,
        Err((code, why)) => return failed(code, why),
    };
    let asked = Asked::checked(question, &plane.policy.trusted_proxies);
    let sent = asked.as_ref().map_or_else(|_| HeaderMap::new(), |it| it.parts.headers.clone());
    let response = decide(plane, forward_auth, arrival, CONTRACT, asked).await;
    if response.status() == StatusCode::OK {
        answered(&allowed(plane, &sent, response.headers()))
    } else {
        answered(&denied(response))
    }
}

/// `application/grpc`, also with the name of its encoding behind it.
fn is_grpc(kind: &[u8]) -> bool {
    let rest = kind.strip_prefix(GRPC.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest == b"+proto" || rest.starts_with(b";"))
}

/// The one message of a call, or the status that the call fails with.
fn read_question(bytes: &Bytes) -> Result<CheckRequest, (i32, &'static str)> {
    let (prefix, message) =
        bytes.split_at_checked(PREFIX_BYTES).ok_or((code::INVALID_ARGUMENT, "no message"))?;
    let (compressed, length) = match *prefix {
        [compressed, a, b, c, d] => (compressed, u32::from_be_bytes([a, b, c, d])),
        _ => return Err((code::INVALID_ARGUMENT, "no message")),
    };
    if compressed != 0 {
        return Err((code::UNIMPLEMENTED, "messages are not taken compressed"));
    }
    if usize::try_from(length) != Ok(message.len()) {
        return Err((code::INVALID_ARGUMENT, "not exactly one message"));
    }
    CheckRequest::decode(message)
        .map_err(|_| (code::INVALID_ARGUMENT, "not a message of envoy.service.auth.v3"))
}

/// What Envoy is to set and to remove before it forwards a request with these headers.
fn allowed(plane: &DataPlane, sent: &HeaderMap, answer: &HeaderMap) -> CheckResponse {
    let identity = identity::NAMES.into_iter().filter_map(|name| option(name, answer.get(name)?));
    let is_set = |name: &HeaderName| identity::NAMES.contains(&name);
    let spoken = sent.keys().filter(|name| speaks_of_caller(name.as_str()) && !is_set(name));
    let mut removed: Vec<String> = removed_headers(plane).map(str::to_owned).collect();
    removed.extend(spoken.map(|name| name.as_str().to_owned()));
    removed.sort_unstable();
    removed.dedup();
    let told = answer.iter().filter(|(name, _)| is_for_client(name.as_str()));
    CheckResponse {
        status: Some(Status { code: code::OK }),
        denied: None,
        ok: Some(Allowed {
            headers: identity.collect(),
            headers_to_remove: removed,
            response_headers_to_add: told.filter_map(|(name, it)| option(name, it)).collect(),
        }),
    }
}

/// What a client is told about a request that passed.
fn is_for_client(name: &str) -> bool {
    matches!(name, "x-request-id" | "keyward-accepted-scopes" | "keyward-degraded")
}

/// What Envoy is to answer instead of forwarding.
fn denied(response: Response<PlaneBody>) -> CheckResponse {
    let (parts, body) = response.into_parts();
    let passing = parts.headers.iter().filter(|(name, _)| **name != CONTENT_LENGTH);
    let body = match &body {
        PlaneBody::Whole(Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    let unauthenticated = parts.status == StatusCode::UNAUTHORIZED;
    let code = if unauthenticated { code::UNAUTHENTICATED } else { code::PERMISSION_DENIED };
    CheckResponse {
        status: Some(Status { code }),
        denied: Some(Denied {
            status: Some(HttpStatus { code: parts.status.as_u16().into() }),
            headers: passing.filter_map(|(name, value)| option(name, value)).collect(),
            body,
        }),
        ok: None,
    }
}

/// A header for Envoy. All of ours are text.
fn option(name: &HeaderName, value: &HeaderValue) -> Option<HeaderOption> {
    let value = value.to_str().ok()?;
    Some(HeaderOption::replacing(name.as_str(), value.to_owned()))
}

/// The answer to a call that was understood.
fn answered(message: &CheckResponse) -> Response<PlaneBody> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // the buffer grows, so that encoding cannot fail
    let _ = message.encode(&mut frame);
    let mut trailers = HeaderMap::new();
    trailers.insert(&GRPC_STATUS, HeaderValue::from(code::OK));
    let frames = [Frame::data(frame.freeze()), Frame::trailers(trailers)];
    let frames = stream::iter(frames.map(Ok::<_, Infallible>));
    let body = StreamBody::new(frames).map_err(|never| match never {});
    let mut response = Response::new(PlaneBody::Boxed(body.boxed_unsync()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

/// The answer to a call that was not understood: a head alone.
fn failed(code: i32, why: &'static str) -> Response<PlaneBody> {
    let mut response = Response::new(PlaneBody::Whole(None));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(&GRPC_STATUS, HeaderValue::from(code));
    headers.insert(&GRPC_MESSAGE, HeaderValue::from_static(why));
    response
}
