//! What the internal listener serves beside verify: health, metrics and the public signing keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderName, Method, StatusCode, header};
use keyward_api::error::DEFAULT_DOCS_BASE;
use keyward_core::id::RequestId;
use keyward_core::{Clock, Error, ErrorCode};
use keyward_gateway::DataPlane;
use keyward_store::Store;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

/// What the internal routes look at.
pub(crate) struct InternalState {
    /// Where state lives.
    pub(crate) store: Store,
    /// The data plane, which may be suspended.
    pub(crate) plane: Arc<DataPlane>,
    /// Whether it decides anything.
    pub(crate) decides: bool,
    /// Time and randomness.
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether the node is about to stop.
    pub(crate) draining: Arc<AtomicBool>,
    /// The metrics of this node.
    pub(crate) registry: Registry,
    /// The public halves of the keys that sign assertions, as a JWK set.
    pub(crate) jwks: Value,
}

/// The routes of the internal listener beside verify.
pub(crate) fn router(state: InternalState) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/metrics", get(metrics))
        .route("/.well-known/jwks.json", get(jwks))
        .fallback(unknown)
        .method_not_allowed_fallback(other_method)
        .with_state(Arc::new(state))
}

async fn unknown(State(state): State<Arc<InternalState>>) -> Response {
    refusal(&state, &Error::new(ErrorCode::NotFound, "There is nothing at this path"))
}

async fn other_method(State(state): State<Arc<InternalState>>, method: Method) -> Response {
    let text = format!("This path does not accept {method}");
    refusal(&state, &Error::new(ErrorCode::MethodNotAllowed, text))
}

fn refusal(state: &InternalState, error: &Error) -> Response {
    let id = RequestId::generate(&*state.clock);
    let (status, body) = keyward_api::error::render(error, id, DEFAULT_DOCS_BASE);
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (HeaderName::from_static("x-request-id"), id.to_string()),
    ];
    (status, headers, body).into_response()
}

/// Ready means: not about to stop, deciding if that is its work, and the store answers.
async fn ready(State(state): State<Arc<InternalState>>) -> Response {
    if state.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    if state.decides && !state.plane.is_deciding() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not deciding\n").into_response();
    }
    let answers =
        async { state.store.read_system("tell whether the store answers").await?.epoch().await };
    match answers.await {
        Ok(_) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response()
        }
    }
}

async fn metrics(State(state): State<Arc<InternalState>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &state.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn jwks(State(state): State<Arc<InternalState>>) -> Response {
    let body = json!({ "keys": state.jwks }).to_string();
    let headers = [
        (header::CONTENT_TYPE, "application/jwk-set+json"),
        (header::CACHE_CONTROL, "max-age=300"),
    ];
    (headers, body).into_response()
}
