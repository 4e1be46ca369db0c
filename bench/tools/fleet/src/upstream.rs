//! The product's API behind the gateways: it answers everything and says what it got.

use std::convert::Infallible;
use std::future::ready;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::ledger::Ledger;

/// The header that says when a request was sent, by our clock.
pub(crate) const SENT: &str = "fleet-sent";
/// The header that says to which node.
pub(crate) const NODE: &str = "fleet-node";
const KEY_ID: &str = "keyward-key-id";

/// Serves from now on; answers with the address.
pub(crate) async fn begin(ledger: Arc<Ledger>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let ledger = Arc::clone(&ledger);
            let service =
                service_fn(move |request| ready(Ok::<_, Infallible>(answer(&request, &ledger))));
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // a node that was killed leaves its connections
                let _ = serving.await;
            });
        }
    });
    Ok(address)
}

fn answer(request: &Request<Incoming>, ledger: &Ledger) -> Response<Full<Bytes>> {
    let headers = request.headers();
    let key = text(headers, KEY_ID);
    let sent = text(headers, SENT).parse().unwrap_or(0);
    let node = text(headers, NODE).parse().unwrap_or(usize::MAX);
    ledger.reached_upstream(key, sent, node);
    Response::new(Full::new(Bytes::from_static(b"{\"ok\":true}")))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
