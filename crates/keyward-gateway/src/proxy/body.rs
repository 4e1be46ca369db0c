//! Bodies on their way through: counted, watched, never kept.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::Instant;

use crate::proxy::answer::UpstreamBody;
use crate::proxy::slowness::{BodyRate, Slowness};
use crate::proxy::trailers::Of;
use crate::server::ArrivingBody;

/// The error of a body that did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The sender was silent for too long, or too slow.
    #[error("the body stood still for too long or came too slowly")]
    TimedOut,
    /// Larger than the limit.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// The connection broke, or the framing is wrong.
    #[error("the body broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// The answer was complete before the body was.
    #[error("the answer came before the end of the body")]
    Abandoned,
    /// The source of the body failed.
    #[error("the source of the body failed: {0}")]
    Source(Box<dyn std::error::Error + Send + Sync>),
}

impl BodyError {
    pub(crate) fn broken(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Broken(why.into())
    }
}

impl From<io::Error> for BodyError {
    fn from(error: io::Error) -> Self {
        Self::broken(error)
    }
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self::broken(error)
    }
}

/// A body whose type was left behind, as the rest of the internal listener answers with.
pub type BoxedBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// The body of an answer.
pub(crate) enum PlaneBody {
    /// Bytes in memory; `None` when they have been sent or there are none.
    Whole(Option<Bytes>),
    /// An upstream's body as it arrives. Boxed, because every answer is moved about.
    Upstream(Box<UpstreamBody>),
    /// Any other.
    Boxed(BoxedBody),
}

impl From<Vec<u8>> for PlaneBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole((!bytes.is_empty()).then(|| Bytes::from(bytes)))
    }
}

impl PlaneBody {
    /// Sees to what is left of the request while its caller takes nothing of the answer: a caller
    /// may well read only when it has sent everything. True when nothing is left.
    pub(crate) fn send_on(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Upstream(body) => body.send_on(cx),
            Self::Whole(_) | Self::Boxed(_) => true,
        }
    }
}

impl Body for PlaneBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::Source),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upstream(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
        }
    }
}

/// How the body of a request is doing, as the forwarding side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Progress {
    /// It has not ended yet.
    Flowing = 0,
    /// Every byte was handed on.
    Finished = 1,
    /// It grew past the limit.
    TooLarge = 2,
    /// The caller was silent for too long, or too slow.
    TimedOut = 3,
    /// The caller broke off or framed it wrongly.
    Broken = 4,
    /// The answer came whole before the body did; nobody wants the rest.
    Abandoned = 5,
}

/// Shared between a request's body and whoever waits for the answer.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Watched>);

#[derive(Default)]
struct Watched {
    progress: AtomicU8,
    /// Frames that were handed on.
    taken: AtomicU32,
    /// Whether the caller is waited for.
    waits: AtomicBool,
    /// Whether the answer has begun.
    answered: AtomicBool,
    finished_at: OnceLock<Instant>,
    body: AtomicWaker,
}

impl Watch {
    pub(crate) fn progress(&self) -> Progress {
        match self.0.progress.load(Ordering::Acquire) {
            1 => Progress::Finished,
            2 => Progress::TooLarge,
            3 => Progress::TimedOut,
            4 => Progress::Broken,
            5 => Progress::Abandoned,
            _ => Progress::Flowing,
        }
    }

    /// When the last byte was handed on.
    pub(crate) fn finished_at(&self) -> Option<Instant> {
        self.0.finished_at.get().copied()
    }

    /// How many frames were taken, unless it is the caller that is waited for.
    pub(crate) fn taken_while_more_is_there(&self) -> Option<u32> {
        let waits = self.0.waits.load(Ordering::Relaxed);
        (!waits).then(|| self.0.taken.load(Ordering::Relaxed))
    }

    /// The answer has begun.
    pub(crate) fn answered(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }

    fn finish(&self) {
        // the last frame and the end behind it both say so
        let _ = self.0.finished_at.set(Instant::now());
        self.set(Progress::Finished);
    }

    fn set(&self, progress: Progress) {
        self.0.progress.store(progress as u8, Ordering::Release);
    }

    /// Stops a body that still flows. False when it had ended by itself.
    pub(super) fn abandon(&self) -> bool {
        if self.progress() == Progress::Finished {
            return false;
        }
        self.set(Progress::Abandoned);
        self.0.body.wake();
        true
    }
}

/// The bounds of a request's body.
#[derive(Clone, Copy)]
pub(crate) struct BodyBounds {
    pub(crate) max_bytes: u64,
    pub(crate) idle: Duration,
    pub(crate) rate: BodyRate,
}

/// The body of a forwarded request.
pub(crate) enum ForwardBody {
    /// None.
    Empty,
    /// The caller's body as it arrives.
    /// Boxed, because most requests have none and every request is moved about.
    Streaming(Box<RequestBody>),
}

pub(crate) struct RequestBody {
    incoming: ArrivingBody,
    left: u64,
    slowness: Slowness,
    watch: Watch,
    tenant_header: Option<HeaderName>,
}

impl RequestBody {
    pub(crate) fn new(
        incoming: ArrivingBody,
        bounds: BodyBounds,
        tenant_header: Option<HeaderName>,
    ) -> (Self, Watch) {
        let watch = Watch::default();
        let body = Self {
            incoming,
            left: bounds.max_bytes,
            slowness: Slowness::new(bounds.idle, bounds.rate),
            watch: watch.clone(),
            tenant_header,
        };
        (body, watch)
    }

    fn fail(&self, progress: Progress, error: BodyError) -> Result<Frame<Bytes>, BodyError> {
        self.watch.set(progress);
        Err(error)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            self.watch.0.waits.store(true, Ordering::Relaxed);
            self.watch.0.body.register(cx.waker());
            if self.watch.progress() == Progress::Abandoned {
                return Poll::Ready(Some(Err(BodyError::Abandoned)));
            }
            let answered = self.watch.0.answered.load(Ordering::Relaxed);
            ready!(self.slowness.poll_over(cx, answered));
            return Poll::Ready(Some(self.fail(Progress::TimedOut, BodyError::TimedOut)));
        };
        self.watch.0.waits.store(false, Ordering::Relaxed);
        self.watch.0.taken.fetch_add(1, Ordering::Relaxed);
        let frame = match next {
            Some(Ok(frame)) => frame.into_trailers().map_or_else(Some, |trailers| {
                self.watch.finish();
                let passing = Of::Request(self.tenant_header.as_ref()).passing(trailers);
                passing.map(Frame::trailers)
            }),
            Some(Err(error)) => {
                return Poll::Ready(Some(self.fail(Progress::Broken, error)));
            }
            None => None,
        };
        let Some(frame) = frame else {
            self.watch.finish();
            return Poll::Ready(None);
        };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(left) = self.left.checked_sub(bytes) else {
            return Poll::Ready(Some(self.fail(Progress::TooLarge, BodyError::TooLarge)));
        };
        self.left = left;
        if self.incoming.is_end_stream() {
            self.watch.finish();
        } else {
            self.slowness.earn(bytes);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for ForwardBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(body) => body.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(body) => body.incoming.size_hint(),
        }
    }
}
