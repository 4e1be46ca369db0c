//! A layer that has a Keyward node decide, request by request.

mod client;
mod question;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Request, Response, Uri};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use keyward_core::Caller;
use keyward_core::clock::Clock;
use keyward_core::environment::Environment;
use keyward_core::error::{Error, ErrorCode};
use keyward_core::id::RequestId;
use keyward_core::key::TokenFormat;
use keyward_core::profile::Carrier;
use keyward_layer::{Gate, Gated};

use super::body::{BoxError, EmbeddedBody};
use super::layer::PeerOf;
use super::strip::{strip_claims, strip_signs};
use crate::answer::{Refusal, mark, scheme};
use crate::client_address::Networks;
use crate::failed_callers::FailedCallers;
use crate::lent::Peer;
use crate::pipeline::Staged;
use crate::request_id::{self, X_REQUEST_ID};

use client::{Node, NodeError};
use question::{ExposedKey, Question};

/// For how long the node may take to answer, unless the configuration says otherwise.
pub const VERIFY_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions that are under way at once, unless the configuration says otherwise.
pub const MAX_QUESTIONS: usize = 256;

/// How a [`VerifyLayer`] asks, and how its product is called.
pub struct VerifyConfig {
    /// The internal listener of a node, `http://…` or `https://…`.
    pub node: Uri,
    /// An admin token with the scope `verify`. Absent where the node's settings let this network
    /// verify without one.
    pub token: Option<VerifyToken>,
    /// How the product's keys look, by prefix and words of its profile: one that stands in an
    /// address is refused. With a format that is not the product's every request is.
    pub format: TokenFormat,
    /// Where a request may carry its key.
    pub carriers: Vec<Carrier>,
    /// The header that must name the key's tenant, if the product has one.
    pub tenant_header: Option<HeaderName>,
    /// The environment that is served here; every one when absent.
    pub environment: Option<Environment>,
    /// Where a request came from: the peer of its connection, never a header.
    pub peer: PeerOf,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Networks,
    /// For how long the node may take to answer, the wait for a turn included.
    pub timeout: Duration,
    /// Questions that are under way at once; those that come then wait for their turn.
    pub max_questions: usize,
    /// Where the error reference is served, for `docUrl` in every error.
    pub docs_base: String,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
}

/// An admin token. It has no formatter, and is marked so that no log shows it.
pub struct VerifyToken(http::HeaderValue);

impl VerifyToken {
    /// Takes the token's text.
    ///
    /// # Errors
    /// When it cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, InvalidVerify> {
        let value = http::HeaderValue::try_from(format!("Bearer {}", text.trim()));
        let mut value = value.map_err(|_| InvalidVerify::Token)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// Why a [`VerifyLayer`] cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InvalidVerify {
    /// The token cannot stand in a header.
    #[error("the admin token has characters that no token has")]
    Token,
    /// The node's address is none.
    #[error("the node's address is http:// or https:// with a host, and no path")]
    Node,
    /// The node's certificate could not be checked.
    #[error("TLS with the node: {0}")]
    Tls(String),
}

/// Lets only requests through that a Keyward node permits.
///
/// Nothing is kept: the node is asked about every request, and while it does not answer every
/// request is refused with 503. What the service gets, and what callers are told, is as with
/// [`EmbeddedLayer`](super::EmbeddedLayer); built-in operations of the product are the service's
/// own, and an answer that streams goes on although its key is revoked meanwhile. The node is told
/// of keys that others may have seen, and marks them as exposed.
#[derive(Clone)]
pub struct VerifyLayer(Arc<Verify>);

/// What all services of a layer share.
pub struct Verify {
    config: VerifyConfig,
    node: Node,
    failed: FailedCallers,
}

impl VerifyLayer {
    /// A layer that asks this node. Nothing is asked before there is a request.
    ///
    /// # Errors
    /// When the address of the node is none, or its certificate could not be checked.
    pub fn new(config: VerifyConfig) -> Result<Self, InvalidVerify> {
        let node = Node::new(&config)?;
        Ok(Self(Arc::new(Verify { config, node, failed: FailedCallers::new() })))
    }
}

impl<S> Layer<S> for VerifyLayer {
    type Service = VerifyService<S>;

    fn layer(&self, inner: S) -> VerifyService<S> {
        Gated::new(Arc::clone(&self.0), inner)
    }
}

/// An application's service behind a [`VerifyLayer`].
pub type VerifyService<S> = Gated<Verify, S>;

impl<S, B, R> Gate<S, Request<B>> for Verify
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<EmbeddedBody<R>>;

    async fn pass(
        self: Arc<Self>,
        mut ready: S,
        request: Request<B>,
    ) -> Result<Self::Response, S::Error> {
        let (mut parts, body) = request.into_parts();
        super::serve::name_host(&mut parts);
        let now = self.config.clock.now();
        let id = request_id::next(self.config.clock.as_ref(), now);
        let shown = request_id::header(id);
        if let Err(mut refusal) = self.admit(&mut parts, id).await {
            refusal.scheme = scheme(&self.config.carriers);
            let mut response = refusal.into_response(id, &self.config.docs_base);
            mark(response.headers_mut(), shown, None);
            return Ok(response.map(EmbeddedBody::ours));
        }
        parts.headers.insert(&X_REQUEST_ID, shown.clone());
        let mut response = ready.call(Request::from_parts(parts, body)).await?;
        strip_signs(response.headers_mut());
        mark(response.headers_mut(), shown, None);
        Ok(response.map(EmbeddedBody::plain))
    }
}

impl Verify {
    /// Asks the node, and tells the application who calls.
    async fn admit(&self, parts: &mut Parts, id: RequestId) -> Staged<()> {
        let peer = self.peer(parts)?;
        let client = self.config.trusted_proxies.client(peer, &parts.headers);
        if let Some(exposed) = ExposedKey::of(&self.config, parts, peer) {
            let refusal = exposed.by.refusal();
            self.tell(exposed, client).await;
            return Err(refusal.into());
        }
        let caller = self.ask(parts, client, id).await?;
        strip_claims(&mut parts.headers, self.config.tenant_header.as_ref());
        parts.extensions.insert(Peer(client));
        parts.extensions.insert(caller);
        Ok(())
    }

    fn peer(&self, parts: &Parts) -> Result<IpAddr, Error> {
        let unknown =
            || Error::internal("the application does not tell where its requests come from");
        (self.config.peer)(parts).ok_or_else(unknown)
    }

    /// Tells the node of a key that was exposed. The request is refused whatever it says to that.
    async fn tell(&self, exposed: ExposedKey<'_>, client: IpAddr) {
        let now_ms = self.config.clock.now().as_millis();
        if self.failed.held_back_ms(client, now_ms).is_some() {
            return;
        }
        let Some(question) = exposed.question(&self.config, client) else { return };
        let Ok(body) = question.to_json() else { return };
        let answer = self.node.ask(body).await;
        let known = answer.and_then(|it| Ok(question::read_answer(&it)?.key_id.is_some()));
        match known {
            Ok(true) => {}
            Ok(false) => self.failed.failed(client, now_ms),
            Err(error) => tracing::warn!(%error, "the node was not told of an exposed key"),
        }
    }

    async fn ask(&self, parts: &Parts, client: IpAddr, id: RequestId) -> Staged<Caller> {
        let question = Question::read(&self.config, parts, client)?;
        let now_ms = self.config.clock.now().as_millis();
        if let Some(left_ms) = self.failed.held_back_ms(client, now_ms) {
            return Err(held_back(left_ms));
        }
        let body = question.to_json()?;
        let answer = self.node.ask(body).await.map_err(unavailable)?;
        let answer = question::read_answer(&answer).map_err(unavailable)?;
        let decided = question.decide(&self.config, &answer, id);
        if matches!(&decided, Err(error) if error.code() == ErrorCode::InvalidApiKey) {
            self.failed.failed(client, now_ms);
        }
        Ok(decided?)
    }
}

/// The refusal of a caller that presented too many wrong keys here.
fn held_back(left_ms: i64) -> Refusal {
    let text = "Too many wrong API keys came from this address; wait and try again";
    let error = Error::new(ErrorCode::RateLimited, text).with("failed", "failed_caller");
    let error = error.with("reason", "too_many_failures");
    Refusal { retry_after: Some(left_ms.unsigned_abs().div_ceil(1_000)), ..Refusal::from(error) }
}

/// Without the node's word nothing passes.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn unavailable(error: NodeError) -> Error {
    tracing::warn!(%error, "the node that verifies did not answer");
    crate::authority::unavailable().because(error.to_string())
}
