//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::unconstrained;

use crate::internal;
use crate::lent;
use crate::pipeline;
use crate::plane::DataPlane;
use crate::proxy::body::{BodyError, BoxedBody, PlaneBody};
use crate::proxy::{Opened, Standing, Tunnel, TunnelEnd};
use crate::record;
use crate::server::guard::{Guard, Turn};
use crate::server::lookout::Lookout;
use crate::server::transport::Transport;
use crate::server::{Arrival, ConnectionLimits, Listener, Protocols, Stage};

/// Answers what the data plane does not: the rest of the internal listener.
pub type Fallback =
    Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<BoxedBody>> + Send + Sync>;

/// What a listener does with a request.
#[derive(Clone)]
pub(super) enum Task {
    /// The product's API.
    Gateway,
    /// Verify, forward-auth, and what the binary serves beside them.
    Internal(Fallback),
    /// What the binary serves, and nothing of the data plane.
    Lent(Fallback),
}

/// What every connection of a listener needs.
pub(super) struct Serving {
    pub(super) plane: Arc<DataPlane>,
    pub(super) listener: Arc<Listener>,
    pub(super) limits: ConnectionLimits,
    pub(super) protocols: Protocols,
    pub(super) task: Task,
}

impl Serving {
    /// Answers one request, whatever carried it.
    pub(super) async fn answer(
        &self,
        arrival: &Arrival,
        request: Request<Incoming>,
    ) -> Response<PlaneBody> {
        let plane = &self.plane;
        match &self.task {
            Task::Gateway => pipeline::serve(plane, arrival, request).await,
            Task::Internal(fallback) => internal::serve(plane, arrival, fallback, request).await,
            Task::Lent(fallback) => lent::serve(plane, arrival, fallback, request).await,
        }
    }
}

/// Serves a connection until it ends, or until it is idle while the listener drains.
/// `first` was read from the stream before.
pub(super) async fn serve<S: Transport>(
    serving: Arc<Serving>,
    stream: S,
    first: Vec<u8>,
    peer: std::net::IpAddr,
) {
    let turn = Turn::new();
    let guard = Guard::new(stream, first, Arc::clone(&turn), &serving.limits);
    let mut stage = serving.listener.stage.clone();
    let service = service_fn(|request| {
        let bad_head = turn.begin();
        let flight = Flight(Arc::clone(&turn));
        let serving = Arc::clone(&serving);
        async move {
            let listener = Arc::clone(&serving.listener);
            let arrival = Arrival { peer, listener, bad_head, standing: OnceLock::new() };
            let mut response = serving.answer(&arrival, request).await;
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if switches && let Some(opened) = response.extensions_mut().remove::<Opened>() {
                flight.0.switch(opened);
            }
            let standing = arrival.standing.into_inner();
            let mut response = response.map(|body| InFlight::new(body, standing, flight));
            if serving.listener.is_leaving() && !switches {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    // the guard bounds heads, lengths and waiting more strictly than hyper would
    let connection = http1::Builder::new().serve_connection(TokioIo::new(guard), service);
    let connection = connection.with_upgrades();
    let connection = std::pin::pin!(connection);
    let lookout = Lookout::new(Arc::clone(&turn));
    let mut watched = Watched { connection, lookout, plane: &serving.plane };
    // a broken connection has nobody left to tell
    while let Some(changed) = next_stage(Pin::new(&mut watched), &mut stage).await {
        let reached = *stage.borrow_and_update();
        if reached < Stage::Draining && changed.is_ok() {
            continue;
        }
        watched.connection.as_mut().graceful_shutdown();
        if reached == Stage::Stopped {
            break;
        }
        if changed.is_err() {
            // the server was dropped without a drain: no deadline will come
            watched.await;
            break;
        }
    }
    if let Some(tunnel) = turn.take_tunnel() {
        // rare and large, so not a part of every connection's state
        Box::pin(carry(tunnel, &serving.plane, &turn, stage)).await;
    }
}

/// Carries the bytes of a connection that was handed over, until this node stops.
async fn carry(tunnel: Tunnel, plane: &DataPlane, turn: &Turn, mut stage: watch::Receiver<Stage>) {
    let stopped = async {
        if stage.wait_for(|stage| *stage == Stage::Stopped).await.is_err() {
            // the server was dropped without a drain: no deadline will come
            std::future::pending::<()>().await;
        }
    };
    let passed = tunnel.run(plane, stopped, |end| {
        // an end that was not meant must not look like one that was
        if end != TunnelEnd::Closed {
            turn.stream.cut();
        }
    });
    record::tunnel_closed(plane, &passed.await);
}

/// A connection that ends also when its stream loses its authority.
struct Watched<'c, C> {
    connection: Pin<&'c mut C>,
    lookout: Lookout,
    plane: &'c DataPlane,
}

impl<C: Future> Future for Watched<'_, C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let it = self.get_mut();
        if it.connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        it.lookout.poll_lost(it.plane, cx)
    }
}

/// Drives a connection until the listener's next stage; `None` when the connection ends first.
pub(super) async fn next_stage(
    mut connection: Pin<&mut impl Future>,
    stage: &mut watch::Receiver<Stage>,
) -> Option<Result<(), watch::error::RecvError>> {
    let seen = stage.clone();
    // without a budget: a poll that has used its own up would return without having registered
    let mut changed = std::pin::pin!(unconstrained(stage.changed()));
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
pub(super) struct Flight(pub(super) Arc<Turn>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The most bytes of a first frame that surely leave room for asking for the next one.
const SMALL_FRAME_BYTES: usize = 16 * 1024;

/// What was seen of a body so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// A small frame that was at hand, as nearly all there are.
    Some,
    /// It has to be waited for: it is looked after.
    Lasting,
}

/// The body of an answer under way.
pub(super) struct InFlight {
    body: PlaneBody,
    standing: Option<Standing>,
    seen: Seen,
    flight: Flight,
}

impl InFlight {
    pub(super) fn new(body: PlaneBody, standing: Option<Standing>, flight: Flight) -> Self {
        Self { body, standing, seen: Seen::Nothing, flight }
    }

    fn note(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, BodyError>>>) {
        let small = match polled {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(frame))) => {
                frame.data_ref().is_none_or(|data| data.len() <= SMALL_FRAME_BYTES)
            }
            Poll::Ready(_) => return,
        };
        if self.seen == Seen::Nothing && small {
            self.seen = Seen::Some;
        } else if !self.body.is_end_stream() {
            self.seen = Seen::Lasting;
            if let Some(standing) = self.standing {
                self.flight.0.stream.begin(standing);
            }
        }
    }
}

impl Body for InFlight {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let it = self.get_mut();
        let polled = Pin::new(&mut it.body).poll_frame(cx);
        if it.seen != Seen::Lasting {
            it.note(&polled);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
