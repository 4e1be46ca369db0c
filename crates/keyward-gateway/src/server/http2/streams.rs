//! The streams of one connection: counted, looked after one by one, and cut one by one.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use h2::Reason;
use hyper::rt::Executor;
use parking_lot::Mutex;

use super::pieces::Answer;
use crate::plane::DataPlane;
use crate::server::ConnectionLimits;
use crate::server::admission::{Caller, StandsStill, UnderWay};
use crate::server::lookout::{Lookout, Stream};
use crate::stall::IdleTimer;

/// An answer that its caller takes nothing of for so long stands still. A caller far away, whose
/// windows come back after a while, takes it sooner.
const STANDS_STILL_AFTER: Duration = Duration::from_millis(100);

/// How far the answer of a stream has got.
pub(super) struct Pace {
    pub(super) stream: Arc<Stream>,
    /// The answer itself while it is given away. One task has it, so nobody waits for this lock.
    pub(super) answer: Mutex<Option<Answer>>,
    under_way: UnderWay,
    /// Pieces that were given away.
    pieces: AtomicU64,
    /// Whether the next one waits until the caller takes the last.
    waits_for_caller: AtomicBool,
}

impl Pace {
    /// The answer was asked for its next piece, and gave one or not.
    pub(super) fn note(&self, given: bool) {
        self.waits_for_caller.store(given, Ordering::Relaxed);
        if given {
            self.pieces.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a connection knows of its streams.
pub(super) struct Streams {
    open: AtomicUsize,
    begun: AtomicU64,
    /// The stream that was begun and is about to be run. hyper does one right behind the other.
    next: Mutex<Option<Arc<Pace>>>,
    plane: Arc<DataPlane>,
    caller: Caller,
    limits: ConnectionLimits,
}

impl Streams {
    pub(super) fn new(
        plane: Arc<DataPlane>,
        caller: Caller,
        limits: ConnectionLimits,
    ) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            next: Mutex::new(None),
            plane,
            caller,
            limits,
        })
    }

    /// A request was read. It is refused before anything is done with it when its caller has too
    /// many already, and may be sent again (RFC 9113 §8.7).
    pub(super) fn begin(&self) -> Result<Arc<Pace>, h2::Error> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let under_way = self.caller.begin(&self.limits).map_err(|overload| {
            self.plane.recorder.metrics.count_refused_stream(overload);
            h2::Error::from(Reason::REFUSED_STREAM)
        })?;
        let pace = Arc::new(Pace {
            stream: Arc::default(),
            answer: Mutex::new(None),
            under_way,
            pieces: AtomicU64::new(0),
            waits_for_caller: AtomicBool::new(false),
        });
        *self.next.lock() = Some(Arc::clone(&pace));
        Ok(pace)
    }

    /// How many requests were read.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether no request is being answered.
    pub(super) fn is_empty(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }
}

/// Runs each stream as a task of its own.
#[derive(Clone)]
pub(super) struct Runner(pub(super) Arc<Streams>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Runner {
    fn execute(&self, stream: F) {
        let pace = self.0.next.lock().take();
        let open = Open::count(&self.0);
        tokio::spawn(async move {
            match pace {
                Some(pace) => run(stream, &pace, &open.0).await,
                None => stream.await,
            }
            drop(open);
        });
    }
}

/// A stream that is counted while it is open.
struct Open(Arc<Streams>);

impl Open {
    fn count(streams: &Arc<Streams>) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs a stream until its end, until its key loses its authority, or until its caller has taken
/// nothing for too long. A stream that is dropped before its end is reset, and no other.
async fn run(stream: impl Future<Output = ()>, pace: &Pace, streams: &Streams) {
    let mut stream = pin!(stream);
    let mut lookout = Lookout::new(Arc::clone(&pace.stream));
    let mut stall = Stall::new(streams.limits.write_timeout);
    poll_fn(|cx| {
        // asked before the next piece is given away, and again once the first one was
        let ended =
            lookout.poll_lost(&streams.plane, cx).is_ready() || stream.as_mut().poll(cx).is_ready();
        if ended {
            return Poll::Ready(());
        }
        let waits = pace.waits_for_caller.load(Ordering::Relaxed);
        if waits && let Some(answer) = pace.answer.lock().as_mut() {
            answer.go_on(cx);
        }
        if lookout.poll_lost(&streams.plane, cx).is_ready() {
            return Poll::Ready(());
        }
        if waits {
            return stall.poll_over(pace, cx);
        }
        stall.rest();
        Poll::Pending
    })
    .await;
}

/// Follows how long a caller takes nothing of its answer.
struct Stall {
    pieces_seen: u64,
    short: IdleTimer,
    long: IdleTimer,
    counted: Option<StandsStill>,
}

impl Stall {
    fn new(write_timeout: Duration) -> Self {
        Self {
            pieces_seen: 0,
            short: IdleTimer::new(STANDS_STILL_AFTER),
            long: IdleTimer::new(write_timeout),
            counted: None,
        }
    }

    /// The caller is not waited for.
    fn rest(&mut self) {
        self.short.rest();
        self.long.rest();
        self.counted = None;
    }

    /// The caller is waited for: ready when that has lasted for too long. Before that the answer is
    /// counted as one that nobody takes.
    fn poll_over(&mut self, pace: &Pace, cx: &mut Context<'_>) -> Poll<()> {
        let pieces = pace.pieces.load(Ordering::Relaxed);
        if pieces != self.pieces_seen {
            self.pieces_seen = pieces;
            self.rest();
        }
        if self.counted.is_none() && self.short.poll_expired(cx).is_ready() {
            self.counted = Some(pace.under_way.stand_still());
        }
        self.long.poll_expired(cx)
    }
}
