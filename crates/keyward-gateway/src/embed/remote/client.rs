//! The connections to the node that verifies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{InvalidVerify, VerifyConfig};
use crate::verify::VERIFY_PATH;

/// Bytes of the longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// For how long an idle connection is kept; shorter than the node keeps it.
const IDLE: Duration = Duration::from_secs(30);

/// Why the node did not answer; for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    #[error("no answer in time")]
    Late,
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    #[error("its answer broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered {0}; look at the admin token and at internal.verify-from")]
    Status(StatusCode),
    #[error("its answer is not one of verify")]
    Unreadable,
}

/// The node that verifies.
pub(super) struct Node {
    uri: Uri,
    token: Option<HeaderValue>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    turns: Semaphore,
    timeout: Duration,
}

impl Node {
    pub(super) fn new(config: &VerifyConfig) -> Result<Self, InvalidVerify> {
        let uri = verify_uri(&config.node).ok_or(InvalidVerify::Node)?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust(&uri)?)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(config.max_questions)
            .build(connector);
        Ok(Self {
            uri,
            token: config.token.as_ref().map(|token| token.0.clone()),
            client,
            turns: Semaphore::new(config.max_questions),
            timeout: config.timeout,
        })
    }

    /// The body of the node's answer to a question.
    pub(super) async fn ask(&self, question: Vec<u8>) -> Result<Bytes, NodeError> {
        let answered = timeout(self.timeout, self.exchange(question)).await;
        answered.unwrap_or(Err(NodeError::Late))
    }

    async fn exchange(&self, question: Vec<u8>) -> Result<Bytes, NodeError> {
        // it is never closed, so this is the end of a turn at most
        let _turn = self.turns.acquire().await.map_err(|_| NodeError::Late)?;
        let mut request = Request::new(Full::from(question));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        let response = self.client.request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(NodeError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        Ok(body.map_err(NodeError::Broken)?.to_bytes())
    }
}

/// What is believed of the node's certificate: the authorities of this machine. A node without TLS
/// needs none of them.
fn trust(node: &Uri) -> Result<ClientConfig, InvalidVerify> {
    let mut roots = RootCertStore::empty();
    if node.scheme_str() == Some("https") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(InvalidVerify::Tls("no certificate authority is known".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidVerify::Tls(error.to_string()))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

fn verify_uri(node: &Uri) -> Option<Uri> {
    let (scheme, authority) = (node.scheme_str()?, node.authority()?);
    let whole = matches!(scheme, "http" | "https") && matches!(node.path(), "" | "/");
    if !whole || node.query().is_some() {
        return None;
    }
    format!("{scheme}://{authority}{VERIFY_PATH}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_an_address_and_nothing_more() {
        let uri = |text: &str| verify_uri(&text.parse().unwrap()).map(|uri| uri.to_string());
        let found = uri("http://127.0.0.1:8789");
        assert_eq!(found.as_deref(), Some("http://127.0.0.1:8789/v1/verify"));
        assert_eq!(uri("https://node/").as_deref(), Some("https://node/v1/verify"));
        for other in ["/v1/verify", "ftp://node", "http://node/v1/verify", "http://node?a"] {
            assert_eq!(uri(other), None, "{other}");
        }
    }
}
