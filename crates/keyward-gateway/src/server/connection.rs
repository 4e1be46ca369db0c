//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::lent;
use crate::pipeline;
use crate::plane::DataPlane;
use crate::proxy::body::{BodyError, BoxedBody, PlaneBody};
use crate::server::guard::{Guard, Turn};
use crate::server::{Arrival, ConnectionLimits, Listener, Stage};
use crate::verify;

/// Answers what the data plane does not: the rest of the internal listener.
pub type Fallback =
    Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<BoxedBody>> + Send + Sync>;

/// What a listener does with a request.
#[derive(Clone)]
pub(super) enum Task {
    /// The product's API.
    Gateway,
    /// Verify, and what the binary serves beside it.
    Internal(Fallback),
    /// What the binary serves, and nothing of the data plane.
    Lent(Fallback),
}

/// What every connection of a listener needs.
pub(super) struct Serving {
    pub(super) plane: Arc<DataPlane>,
    pub(super) listener: Arc<Listener>,
    pub(super) limits: ConnectionLimits,
    pub(super) task: Task,
}

/// Serves a connection until it ends, or until it is idle while the listener drains.
pub(super) async fn serve(serving: Arc<Serving>, stream: TcpStream, peer: std::net::IpAddr) {
    let turn = Turn::new();
    let guard = Guard::new(stream, Arc::clone(&turn), &serving.limits);
    let mut stage = serving.listener.stage.clone();
    let service = service_fn(|request| {
        let bad_head = turn.begin();
        let flight = Flight(Arc::clone(&turn));
        let serving = Arc::clone(&serving);
        async move {
            let listener = Arc::clone(&serving.listener);
            let arrival = Arrival { peer, listener, bad_head };
            let response = match &serving.task {
                Task::Gateway => pipeline::serve(&serving.plane, &arrival, request).await,
                Task::Internal(fallback) => {
                    verify::serve(&serving.plane, &arrival, fallback, request).await
                }
                Task::Lent(fallback) => {
                    lent::serve(&serving.plane, &arrival, fallback, request).await
                }
            };
            let mut response = response.map(|body| InFlight { body, _flight: flight });
            if serving.listener.is_leaving() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    // the guard bounds heads, lengths and waiting more strictly than hyper would
    let connection = http1::Builder::new().serve_connection(TokioIo::new(guard), service);
    let mut connection = std::pin::pin!(connection);
    // a broken connection has nobody left to tell
    while let Some(changed) = next_stage(connection.as_mut(), &mut stage).await {
        let reached = *stage.borrow_and_update();
        if reached < Stage::Draining && changed.is_ok() {
            continue;
        }
        connection.as_mut().graceful_shutdown();
        if reached == Stage::Stopped {
            break;
        }
        if changed.is_err() {
            // the server was dropped without a drain: no deadline will come
            let _ = connection.as_mut().await;
            break;
        }
    }
}

/// Drives a connection until the listener's next stage; `None` when the connection ends first.
async fn next_stage(
    mut connection: Pin<&mut impl Future>,
    stage: &mut watch::Receiver<Stage>,
) -> Option<Result<(), watch::error::RecvError>> {
    let seen = stage.clone();
    let mut changed = std::pin::pin!(stage.changed());
    let mut waiting = false;
    poll_fn(|cx| {
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        // the wait is already registered for this task, and asking again takes a lock
        if waiting && matches!(seen.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        waiting = true;
        changed.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Says that an answer is over, when it is dropped.
struct Flight(Arc<Turn>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The body of an answer under way.
struct InFlight {
    body: PlaneBody,
    _flight: Flight,
}

impl Body for InFlight {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
