//! Refusals as HTTP: status, envelope and the headers that belong to a code.

use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response};
use serde_json::Value;

use keyward_core::error::{Error, ErrorCode};
use keyward_core::id::RequestId;
use keyward_core::profile::Carrier;

use crate::proxy::body::PlaneBody;
use crate::request_id::{X_REQUEST_ID, ascii_header};

static ACCEPTED_SCOPES: HeaderName = HeaderName::from_static("keyward-accepted-scopes");

/// Seconds after which a caller may try again when we cannot decide just now.
const UNAVAILABLE_RETRY_SECONDS: u64 = 1;

/// A refused request: the error, and what only HTTP knows about it.
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// Seconds after which the same request may pass.
    pub(crate) retry_after: Option<u64>,
    /// Whether the connection cannot be read any further.
    pub(crate) close: bool,
    /// The scheme that callers are asked to authenticate with (RFC 9110 §11.1).
    pub(crate) scheme: &'static str,
}

/// The scheme of callers that send `Authorization: Bearer …`.
const BEARER: &str = "Bearer";
/// The scheme named where `Bearer` is not accepted.
const API_KEY: &str = "ApiKey";

/// The scheme to ask for where a product's keys are sent like this.
pub(crate) fn scheme(carriers: &[Carrier]) -> &'static str {
    if carriers.contains(&Carrier::Bearer) { BEARER } else { API_KEY }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let retry_after =
            (error.code() == ErrorCode::Unavailable).then_some(UNAVAILABLE_RETRY_SECONDS);
        Self { error, retry_after, close: false, scheme: BEARER }
    }
}

impl Refusal {
    /// A refusal after which the connection is closed.
    pub(crate) fn closing(error: Error) -> Self {
        Self { close: true, ..Self::from(error) }
    }

    /// The answer. Nothing of it may be kept by a cache.
    pub(crate) fn into_response(self, id: RequestId, docs_base: &str) -> Response<PlaneBody> {
        let (status, body) = keyward_api::error::render(&self.error, id, docs_base);
        let mut response = Response::new(PlaneBody::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: HeaderValue| headers.insert(name, value);
        set(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        set(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            set(RETRY_AFTER, seconds.into());
        }
        if self.close {
            set(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(challenge) = challenge(self.scheme, &self.error) {
            set(WWW_AUTHENTICATE, challenge);
        }
        if let Some(methods) = allowed_methods(&self.error) {
            set(ALLOW, methods);
        }
        response
    }
}

/// RFC 6750 §3: no error code when nothing was sent; the missing scopes when that is all.
fn challenge(scheme: &str, error: &Error) -> Option<HeaderValue> {
    let more = match error.code() {
        ErrorCode::MissingApiKey => String::new(),
        ErrorCode::AmbiguousApiKey => r#", error="invalid_request""#.to_owned(),
        ErrorCode::InvalidApiKey
        | ErrorCode::ExpiredApiKey
        | ErrorCode::Unauthorized
        | ErrorCode::EnvironmentMismatch => r#", error="invalid_token""#.to_owned(),
        ErrorCode::Forbidden => {
            let first = error.details().get("requiredScopes")?.as_array()?.first()?;
            let scopes = words(first, " ")?;
            format!(r#", error="insufficient_scope", scope="{scopes}""#)
        }
        _ => return None,
    };
    Some(ascii_header(format!(r#"{scheme} realm="api"{more}"#)))
}

fn allowed_methods(error: &Error) -> Option<HeaderValue> {
    if error.code() != ErrorCode::MethodNotAllowed {
        return None;
    }
    let methods = words(error.details().get("allowedMethods")?, ", ")?;
    Some(ascii_header(methods))
}

fn words(list: &Value, separator: &str) -> Option<String> {
    let words: Vec<&str> = list.as_array()?.iter().filter_map(Value::as_str).collect();
    Some(words.join(separator))
}

/// Marks an answer with the id of its request and the scopes that would have been accepted.
pub(crate) fn mark(
    headers: &mut HeaderMap,
    request_id: HeaderValue,
    accepted: Option<&HeaderValue>,
) {
    headers.insert(&X_REQUEST_ID, request_id);
    if let Some(accepted) = accepted {
        headers.insert(&ACCEPTED_SCOPES, accepted.clone());
    }
}
