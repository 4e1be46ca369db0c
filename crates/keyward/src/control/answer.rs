//! What a handler answers, and how errors look.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use keyward_api::error::{DEFAULT_DOCS_BASE, Envelope, status};
use keyward_api::fence::{Fence, FenceStatus, HasFence};
use keyward_core::id::RequestId;
use keyward_core::{Error, ErrorCode, Result, Timestamp};
use serde::Serialize;
use serde_json::Value;

/// The answer of a handler: a JSON body and, where it differs from the operation's, a status.
pub(crate) struct Answer {
    status: Option<StatusCode>,
    body: Vec<u8>,
    replayed: bool,
}

impl Answer {
    /// An answer with the operation's own status.
    pub(crate) fn json<T: Serialize>(value: &T) -> Result<Self> {
        let body = serde_json::to_vec(value)
            .map_err(|e| Error::internal(format!("an answer could not be written: {e}")))?;
        Ok(Self { status: None, body, replayed: false })
    }

    /// The answer of a fenced write: 202 while some node may still decide without it.
    pub(crate) fn fenced<T: Serialize + HasFence>(value: &T) -> Result<Self> {
        let propagating = value.fence().is_some_and(|it| it.status == FenceStatus::Propagating);
        let status = propagating.then_some(StatusCode::ACCEPTED);
        Ok(Self { status, ..Self::json(value)? })
    }

    /// The body to keep for a repeated request. The value holds no secret.
    pub(crate) fn kept<T: Serialize>(value: &T) -> Result<String> {
        serde_json::to_string(value)
            .map_err(|e| Error::internal(format!("an answer could not be kept: {e}")))
    }

    /// The answer kept for a repeated request.
    pub(crate) fn replay(body: String) -> Self {
        Self { status: None, body: body.into_bytes(), replayed: true }
    }

    /// This answer with another fence, made from the instant of the revocation in the one it has.
    pub(crate) fn fenced_anew(
        self,
        fence: impl FnOnce(Option<Timestamp>) -> Fence,
    ) -> Result<Self> {
        let unreadable = |e: serde_json::Error| Error::internal(format!("a kept answer: {e}"));
        let mut body: Value = serde_json::from_slice(&self.body).map_err(unreadable)?;
        let kept = body.get("fence").cloned().unwrap_or_default();
        let kept: Option<Fence> = serde_json::from_value(kept).map_err(unreadable)?;
        let fence = fence(kept.and_then(|fence| fence.revoked_at));
        let propagating = fence.status == FenceStatus::Propagating;
        if let Some(members) = body.as_object_mut() {
            members.insert("fence".to_owned(), serde_json::to_value(&fence).map_err(unreadable)?);
        }
        let status = propagating.then_some(StatusCode::ACCEPTED);
        Ok(Self { status, replayed: self.replayed, ..Self::json(&body)? })
    }

    /// The HTTP response; `status` is the operation's.
    pub(super) fn into_response(self, status: u16, request_id: RequestId) -> Response {
        let status = self.status.or_else(|| StatusCode::from_u16(status).ok());
        let mut response = json_response(status.unwrap_or(StatusCode::OK), self.body, request_id);
        if self.replayed {
            let headers = response.headers_mut();
            headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

/// The envelope of an error as a response.
pub(super) fn error_response(error: &Error, request_id: RequestId) -> Response {
    let body = Envelope::new(error, request_id, DEFAULT_DOCS_BASE).to_bytes();
    let mut response = json_response(status(error.code()), body, request_id);
    if response.status() == StatusCode::UNAUTHORIZED {
        // RFC 6750 §3: no error code when no credential was sent
        let challenge = match error.code() {
            ErrorCode::MissingApiKey => "Bearer realm=\"keyward\"",
            _ => "Bearer realm=\"keyward\", error=\"invalid_token\"",
        };
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if matches!(error.code(), ErrorCode::Unavailable | ErrorCode::IdempotencyInProgress) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn json_response(status: StatusCode, body: Vec<u8>, request_id: RequestId) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        headers.insert("x-request-id", id);
    }
    response
}
