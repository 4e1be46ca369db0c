//! Looks after the addresses of upstreams.

use std::convert::Infallible;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri, Version};
use http_body_util::Empty;
use hyper::body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::proxy::health::Turn;
use crate::proxy::target::{Socket, Target, Wire};
use crate::proxy::upstream::{Upstream, Upstreams};

static AGENT: HeaderValue = HeaderValue::from_static("keyward-health-check");

/// Checks all addresses for ever, each in its interval.
pub(crate) async fn check(upstreams: &Upstreams) -> Infallible {
    for upstream in upstreams.all() {
        upstream.is_checked.store(true, Ordering::Relaxed);
    }
    let addresses = upstreams
        .all()
        .iter()
        .flat_map(|upstream| upstream.targets.iter().map(move |target| (upstream, target)));
    join_all(addresses.map(|(upstream, target)| check_one(upstream, target))).await;
    std::future::pending().await
}

async fn check_one(upstream: &Upstream, target: &Target) {
    let policy = &upstream.config.health;
    let mut due = interval(policy.interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if policy.path.is_none() && !target.health.is_down() {
            continue;
        }
        let checked = timeout(policy.timeout, ask(upstream, target)).await;
        let outcome = checked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let turn = target.health.note(outcome.is_ok());
        tell(upstream, target, turn, outcome.err().as_deref());
    }
}

/// Says in the log that an address was taken out or in again.
pub(super) fn tell(upstream: &Upstream, target: &Target, turn: Option<Turn>, why: Option<&str>) {
    let (upstream, address) = (upstream.config.label(), target.address.text.as_str());
    match turn {
        Some(Turn::Down) => tracing::warn!(upstream, address, why, "an address is down"),
        Some(Turn::Up) => tracing::info!(upstream, address, "an address is up again"),
        None => {}
    }
}

/// Asks an address whether it is healthy; without a path, whether it takes connections.
async fn ask(upstream: &Upstream, target: &Target) -> Result<(), String> {
    let (socket, wire) = target.reach_any().await.map_err(|error| error.to_string())?;
    let Some(path) = &upstream.config.health.path else {
        return Ok(());
    };
    let request = request(target, wire, path)?;
    let status = match socket {
        Socket::Tcp(socket) => status(socket, wire, request).await,
        Socket::Unix(socket) => status(socket, wire, request).await,
        Socket::Tls(socket) => status(socket, wire, request).await,
    };
    match status.map_err(|error| error.to_string())? {
        200..=399 => Ok(()),
        other => Err(format!("it answered {other}")),
    }
}

fn request(target: &Target, wire: Wire, path: &str) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::new(Empty::new());
    let wrong = |error: http::Error| error.to_string();
    let uri = path.parse::<Uri>().map_err(|error| error.to_string())?;
    request.headers_mut().insert(USER_AGENT, AGENT.clone());
    match wire {
        Wire::Http1 => {
            *request.uri_mut() = uri;
            request.headers_mut().insert(HOST, target.host.clone());
        }
        Wire::Http2 => {
            let builder = Uri::builder().scheme(target.address.scheme.clone());
            let builder = builder.authority(target.address.authority.clone());
            let uri = builder.path_and_query(path).build().map_err(wrong)?;
            *request.uri_mut() = uri;
            *request.version_mut() = Version::HTTP_2;
        }
    }
    Ok(request)
}

/// The status of an answer on a connection of its own.
async fn status<S>(socket: S, wire: Wire, request: Request<Empty<Bytes>>) -> hyper::Result<u16>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(socket);
    match wire {
        Wire::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await?;
            driven(sender.send_request(request), connection).await
        }
        Wire::Http2 => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            driven(sender.send_request(request), connection).await
        }
    }
}

/// Drives a connection only for as long as its answer takes.
async fn driven<B: Body>(
    answer: impl Future<Output = hyper::Result<http::Response<B>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> hyper::Result<u16> {
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    let mut ended = false;
    std::future::poll_fn(|cx| {
        if !ended {
            // what went wrong is told by the answer
            ended = connection.as_mut().poll(cx).is_ready();
        }
        answer.as_mut().poll(cx).map(|answer| answer.map(|it| it.status().as_u16()))
    })
    .await
}
