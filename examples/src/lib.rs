//! What the examples share: a product's own API, which knows its callers by nothing but [`Caller`].
#![deny(missing_docs)]

use std::net::SocketAddr;

use axum::extract::Path;
use axum::routing::get;
use axum::{Extension, Json, Router};
use keyward_upstream::Caller;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Two operations of the product whose profile is `profiles/asiri`. Each chooses its data by the
/// tenant and environment of the caller.
pub fn product() -> Router {
    Router::new().route("/v1/reports", get(reports)).route("/v1/reports/{id}", get(report))
}

async fn reports(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({ "data": [{ "id": "rep_1", "tenant": caller.tenant }], "nextCursor": null }))
}

async fn report(Extension(caller): Extension<Caller>, Path(id): Path<String>) -> Json<Value> {
    let environment = caller.environment.as_str();
    Json(json!({ "id": id, "tenant": caller.tenant, "environment": environment }))
}

/// Serves until Ctrl-C or SIGTERM, and lets requests under way end.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(listen: &str, application: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("{}", json!({ "listening": listener.local_addr()?.to_string() }));
    // the peer's address is a part of the decision: keys may be bound to networks
    let service = application.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stopped()).await?;
    Ok(())
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}
