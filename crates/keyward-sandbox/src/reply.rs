//! Answers on the wire: rows, pages, and the one envelope of every error.

use axum::response::{IntoResponse as _, Response};
use axum::{Json, body::Body};
use http::header::{ALLOW, CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use keyward_api::error::{Envelope, ErrorBody};
use keyward_core::Error;
use serde_json::Value;

const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A success.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    /// The next page of a bare array, which has no room for it.
    pub(crate) next_cursor: Option<String>,
}

/// A failure, and the methods there are if the method was the mistake.
pub(crate) struct Refusal {
    pub(crate) error: Error,
    pub(crate) allow: Option<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, allow: None }
    }
}

pub(crate) fn success(answer: Answer) -> Response {
    if answer.status == StatusCode::NO_CONTENT {
        return answer.status.into_response();
    }
    let mut response = (answer.status, Json(answer.body)).into_response();
    if let Some(cursor) = answer.next_cursor.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(NEXT_CURSOR, cursor);
    }
    response
}

pub(crate) fn refusal(refusal: &Refusal, request_id: &str) -> Response {
    let error = &refusal.error;
    let status = keyward_api::error::status(error.code());
    if status.is_server_error() {
        tracing::error!(request_id, cause = error.internal_context(), "sandbox failed");
    }
    let envelope = Envelope {
        error: ErrorBody {
            code: error.code().as_str().to_owned(),
            message: error.public().to_owned(),
            details: error.details().clone(),
            request_id: request_id.to_owned(),
        },
    };
    let mut response = (status, Json(envelope)).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Keyward-Assertion"));
    }
    if let Some(allow) = refusal.allow.as_deref().and_then(|text| text.parse().ok()) {
        headers.insert(ALLOW, allow);
    }
    response
}

/// Puts on what every answer has.
pub(crate) fn finish(mut response: Response<Body>, request_id: &str) -> Response {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().entry(CACHE_CONTROL).or_insert(no_store);
    response
}
