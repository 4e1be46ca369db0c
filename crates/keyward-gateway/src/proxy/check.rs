//! Looks after the addresses of upstreams.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{HOST, USER_AGENT};
use http::uri::{InvalidUri, PathAndQuery};
use http::{HeaderValue, Request, Version};
use http_body_util::Empty;
use hyper::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::identity::{Lines, Sheet as _};
use crate::proxy::body::ForwardBody;
use crate::proxy::health::Turn;
use crate::proxy::http1::{self, Fault, Socket};
use crate::proxy::outbound::Framing;
use crate::proxy::target::{Target, Wire};
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
    let path: PathAndQuery = path.parse().map_err(|error: InvalidUri| error.to_string())?;
    let status = match wire {
        Wire::Http1 => {
            let connection = http1::Connection::new(socket, upstream.config.health.timeout);
            status_of_http1(connection, target, &path).await?
        }
        Wire::Http2 => {
            let status = status_of_http2(socket, target, &path).await;
            status.map_err(|error| error.to_string())?
        }
    };
    match status {
        200..=399 => Ok(()),
        other => Err(format!("it answered {other}")),
    }
}

/// The status of an answer on a connection of its own.
async fn status_of_http1(
    mut connection: http1::Connection,
    target: &Target,
    path: &PathAndQuery,
) -> Result<u16, String> {
    connection.begin(ForwardBody::Empty, Framing::None, false, |_, out| {
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(path.as_str().as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let mut lines = Lines(out);
        lines.set(&HOST, &target.host);
        lines.set(&USER_AGENT, &AGENT);
        out.extend_from_slice(b"\r\n");
    });
    match poll_fn(|cx| connection.poll_head(cx)).await {
        Ok((status, _)) => Ok(status.as_u16()),
        Err(Fault::Silent(error) | Fault::Garbled(error)) => Err(error.to_string()),
        Err(Fault::Body | Fault::Stalled) => Err("it takes no request".to_owned()),
    }
}

/// The same where one connection is of many streams.
async fn status_of_http2(
    socket: Socket,
    target: &Target,
    path: &PathAndQuery,
) -> hyper::Result<u16> {
    let mut request = Request::new(Empty::<Bytes>::new());
    request.headers_mut().insert(USER_AGENT, AGENT.clone());
    *request.uri_mut() = target.address.uri(path);
    *request.version_mut() = Version::HTTP_2;
    let io = TokioIo::new(socket);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    driven(sender.send_request(request), connection).await
}

/// Drives a connection only for as long as its answer takes.
async fn driven<B: Body>(
    answer: impl Future<Output = hyper::Result<http::Response<B>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> hyper::Result<u16> {
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    let mut ended = false;
    poll_fn(|cx| {
        if !ended {
            // what went wrong is told by the answer
            ended = connection.as_mut().poll(cx).is_ready();
        }
        answer.as_mut().poll(cx).map(|answer| answer.map(|it| it.status().as_u16()))
    })
    .await
}
