//! Public operations of the product that Keyward answers itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, header};
use keyward_api::audit::ListAuditEventsQuery;
use keyward_core::{Error, ErrorCode, Result};
use keyward_gateway::{BuiltinCall, Builtins};
use keyward_store::Store;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::control;

/// Reads of the store that callers of the product's API may have running at once; the store's
/// other connections stay free for changes.
const MAX_CONCURRENT_READS: usize = 2;
/// How long such a read waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// What the members begin with that only the sandbox reads.
const HIDDEN_MEMBERS: &str = "x-sandbox";

/// The built-in operation that reads the tenant's audit trail.
pub(super) const AUDIT_EVENTS: &str = "audit.events.list";

/// The built-in operations of a node.
pub(crate) fn builtins(store: Store, document: &Value) -> Builtins {
    let document = Bytes::from(public(document.clone()).to_string());
    let turns = Arc::new(Semaphore::new(MAX_CONCURRENT_READS));
    Builtins::default()
        .with(
            "openapi.get",
            Box::new(move |_| {
                let document = document.clone();
                Box::pin(async move { Ok(json(document)) })
            }),
        )
        .with(
            AUDIT_EVENTS,
            Box::new(move |call| {
                let (store, turns) = (store.clone(), Arc::clone(&turns));
                Box::pin(async move {
                    let turn = timeout(TURN_TIMEOUT, turns.acquire()).await;
                    let _turn = turn.ok().and_then(std::result::Result::ok).ok_or_else(busy)?;
                    audit_events(store, call).await
                })
            }),
        )
}

fn busy() -> Error {
    Error::new(ErrorCode::Unavailable, "Too many such reads run just now; try again shortly")
}

/// The tenant's own audit trail, as the control plane lists it.
async fn audit_events(store: Store, call: BuiltinCall) -> Result<Response<Bytes>> {
    let query: ListAuditEventsQuery = control::read_query(&call.query)?;
    let tx = store.read(call.caller.tenant).await?;
    let page = control::audit_page(tx, &query).await?;
    let body = serde_json::to_vec(&page)
        .map_err(|e| Error::internal(format!("a page was not written: {e}")))?;
    Ok(json(Bytes::from(body)))
}

fn json(body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The document without the members that only the sandbox reads.
fn public(mut document: Value) -> Value {
    match &mut document {
        Value::Object(members) => {
            members.retain(|name, _| !name.starts_with(HIDDEN_MEMBERS));
            for value in members.values_mut() {
                *value = public(value.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = public(item.take());
            }
        }
        _ => {}
    }
    document
}
