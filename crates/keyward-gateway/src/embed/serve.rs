//! A request of an application behind the layer, by the stages of the gateway.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use tower_service::Service;

use keyward_core::Caller;
use keyward_core::decision::Permit;
use keyward_core::error::{Error, ErrorCode};
use keyward_layer::Gate;

use super::body::{BoxError, EmbeddedBody};
use super::layer::Embedded;
use super::strip::{strip_claims, strip_signs};
use super::watch::Watch;
use crate::answer::Refusal;
use crate::lent::Peer;
use crate::pipeline::{Entrance, Exchange, Staged};
use crate::proxy::Loss;
use crate::proxy::body::PlaneBody;
use crate::record::{Ending, Outcome};
use crate::request_id::X_REQUEST_ID;
use crate::server::Arrival;

/// What comes of a request before the application sees it.
enum Admitted<B> {
    /// It is the application's.
    Passed(Watch, B),
    /// It is answered already.
    Answered(Response<PlaneBody>),
}

impl<S, B, R> Gate<S, Request<B>> for Embedded
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<EmbeddedBody<R>>;

    /// Answers one request. Whatever happens, it is recorded.
    async fn pass(
        self: Arc<Self>,
        mut ready: S,
        request: Request<B>,
    ) -> Result<Self::Response, S::Error> {
        let (mut parts, body) = request.into_parts();
        name_host(&mut parts);
        let peer = (self.peer)(&parts);
        let arrival = Arrival {
            peer: peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            listener: Arc::clone(&self.listener),
            bad_head: None,
            standing: OnceLock::new(),
        };
        let entrance = Entrance {
            environments: &self.listener.environments,
            client: self.plane.policy.trusted_proxies.client(arrival.peer, &parts.headers),
            contract: None,
        };
        let mut exchange = Exchange::begin(&self.plane, &arrival, entrance, &parts);
        let admitted = match peer {
            Some(peer) => admit(&self, &mut exchange, peer, &mut parts, body).await,
            None => Err(unknown_peer().into()),
        };
        let (mut watch, body) = match admitted {
            Ok(Admitted::Passed(watch, body)) => (watch, body),
            Ok(Admitted::Answered(response)) => {
                return Ok(exchange.finish(Ok(response)).map(EmbeddedBody::ours));
            }
            Err(refusal) => return Ok(exchange.finish(Err(refusal)).map(EmbeddedBody::ours)),
        };
        let path = parts.uri.path().to_owned();
        let mut call = pin!(ready.call(Request::from_parts(parts, body)));
        let called = poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(Ok(answered)),
            Poll::Pending => watch.poll_lost(cx).map(Err),
        });
        match called.await {
            Ok(Ok(response)) => Ok(answered(&mut exchange, response, watch)),
            Ok(Err(error)) => {
                exchange.close(FAILED);
                Err(error)
            }
            Err(loss) => {
                let refusal = lost(&self, &watch, loss, &path);
                Ok(exchange.finish(Err(refusal)).map(EmbeddedBody::ours))
            }
        }
    }
}

/// The ending of a request whose service failed without an answer.
const FAILED: Ending<'static> = Ending {
    outcome: Outcome::Answered,
    status: 500,
    code: Some(ErrorCode::Internal),
    internal: Some("the application failed"),
};

/// Requests of HTTP/2 name their host in the address alone.
pub(super) fn name_host(parts: &mut Parts) {
    if parts.headers.contains_key(HOST) {
        return;
    }
    let named = parts.uri.authority().and_then(|it| HeaderValue::try_from(it.as_str()).ok());
    if let Some(host) = named {
        parts.headers.insert(HOST, host);
    }
}

fn unknown_peer() -> Error {
    Error::internal("the application does not tell where its requests come from")
}

/// Stages 1 to 3, and all that a built-in operation of the product takes.
async fn admit<'p, B>(
    embedded: &'p Embedded,
    exchange: &mut Exchange<'p>,
    peer: IpAddr,
    parts: &mut Parts,
    body: B,
) -> Staged<Admitted<B>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    // of peers that are no trusted proxy nothing is known: the application may end TLS itself
    if embedded.plane.policy.trusted_proxies.came_in_clear_text(peer, &parts.headers) {
        exchange.refuse_clear_text(parts)?;
    }
    let target = exchange.read(parts)?;
    let permit = exchange.permit(parts, target).await?;
    if let Some(name) = &permit.route().builtin {
        let answered = Box::pin(exchange.answer_builtin(name, parts, target, body));
        return answered.await.map(Admitted::Answered);
    }
    let watch = introduce(embedded, exchange, permit, parts)?;
    Ok(Admitted::Passed(watch, body))
}

/// Tells the application who calls, and takes away whatever else could.
fn introduce(
    embedded: &Embedded,
    exchange: &Exchange<'_>,
    permit: Permit<'_>,
    parts: &mut Parts,
) -> Staged<Watch> {
    let product = &embedded.plane.product;
    let Some(key) = &exchange.record.key else {
        return Err(Error::internal("a permit without a key").into());
    };
    let Some(standing) = exchange.standing(&permit) else {
        return Err(Error::internal("a permit for no route").into());
    };
    strip_claims(&mut parts.headers, product.tenant_header.as_ref());
    parts.headers.insert(&X_REQUEST_ID, exchange.id.clone());
    let scopes = product.catalog.scope_names(key.scopes).map(Box::from);
    parts.extensions.insert(Peer(exchange.record.client));
    parts.extensions.insert(Caller {
        tenant: key.tenant.id,
        environment: key.environment,
        key: key.id,
        key_name: Some(key.name.as_str().into()),
        scopes: scopes.collect(),
        role: key.role_name(&product.catalog).into(),
        actor: key.owner,
        request_id: exchange.record.request_id,
    });
    Ok(Watch::new(Arc::clone(&embedded.plane), standing))
}

/// The application's answer, marked and recorded.
fn answered<R>(
    exchange: &mut Exchange<'_>,
    mut response: Response<R>,
    watch: Watch,
) -> Response<EmbeddedBody<R>> {
    strip_signs(response.headers_mut());
    exchange.mark(response.headers_mut());
    let status = response.status().as_u16();
    exchange.close(Ending { outcome: Outcome::Answered, status, code: None, internal: None });
    response.map(|body| EmbeddedBody::theirs(body, watch))
}

/// The answer to a request whose key lost its authority before there was an answer.
fn lost(embedded: &Embedded, watch: &Watch, loss: Loss, path: &str) -> Refusal {
    Refusal::closing(watch.standing().refusal(&embedded.plane, loss, path))
}
