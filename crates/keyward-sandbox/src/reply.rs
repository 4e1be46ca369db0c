//! Answers on the wire: rows, pages, and the one envelope of every error.

use axum::response::{IntoResponse as _, Response};
use axum::{Json, body::Body};
use http::header::{ALLOW, CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use keyward_core::{Error, ErrorCode};
use serde_json::{Value, json};

const NEXT_CURSOR: HeaderName = HeaderName::from_static("keyward-next-cursor");
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
    let status = status(error.code());
    if status.is_server_error() {
        tracing::error!(request_id, cause = error.internal_context(), "sandbox failed");
    }
    let mut body = json!({
        "code": error.code().as_str(),
        "message": error.public(),
        "requestId": request_id,
    });
    if !error.details().is_empty()
        && let Some(members) = body.as_object_mut()
    {
        members.insert("details".to_owned(), Value::Object(error.details().clone()));
    }
    let mut response = (status, Json(json!({ "error": body }))).into_response();
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

const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::RbacDenied => StatusCode::FORBIDDEN,
        ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::Gone => StatusCode::GONE,
        ErrorCode::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::ValidationFailed => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // the sandbox gives no other code
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
