//! What the internal listener serves beside verify: health, metrics and the public signing keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{StatusCode, header};
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
        .with_state(Arc::new(state))
}

/// Ready means: not about to stop, deciding, and the store answers.
async fn ready(State(state): State<Arc<InternalState>>) -> Response {
    if state.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    if state.plane.may_decide().is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not deciding\n").into_response();
    }
    let answers = async {
        state.store.read_system("tell whether the store answers").await?.epoch().await
    };
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
