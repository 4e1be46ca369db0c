//! What every connection needs, whatever it speaks, and the answers under way on it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::task::unconstrained;

use crate::internal;
use crate::lent;
use crate::pipeline;
use crate::plane::DataPlane;
use crate::proxy::Standing;
use crate::proxy::body::{BodyError, BoxedBody, PlaneBody};
use crate::server::arriving::{ArrivingBody, ArrivingRequest};
use crate::server::lookout::Stream;
use crate::server::{Arrival, ConnectionLimits, Listener, Protocols, Stage};

/// Answers what the data plane does not: the rest of the internal listener.
pub type Fallback =
    Arc<dyn Fn(Request<ArrivingBody>) -> BoxFuture<'static, Response<BoxedBody>> + Send + Sync>;

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
        request: &mut ArrivingRequest,
    ) -> Response<PlaneBody> {
        let plane = &self.plane;
        match &self.task {
            Task::Gateway => pipeline::serve(plane, arrival, request).await,
            Task::Internal(fallback) => internal::serve(plane, arrival, fallback, request).await,
            Task::Lent(fallback) => lent::serve(plane, arrival, fallback, request).await,
        }
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
pub(super) struct Flight(pub(super) Arc<Stream>);

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
    /// Sees to what is left of the request while its caller takes nothing of the answer; true when
    /// nothing is.
    pub(super) fn send_on(&mut self, cx: &mut Context<'_>) -> bool {
        self.body.send_on(cx)
    }

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
                self.flight.0.begin(standing);
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
