//! The streams of one connection: counted, looked after one by one, and cut one by one.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use parking_lot::Mutex;

use crate::plane::DataPlane;
use crate::proxy::body::BodyError;
use crate::server::connection::InFlight;
use crate::server::lookout::{Lookout, Stream};
use crate::stall::IdleTimer;

/// Bytes of an answer that are given away at a time. What is given away waits for the caller's
/// windows, out of reach.
const PIECE_BYTES: usize = 16 * 1024;
/// An answer that is said to be no longer is read whole before any of it is given away. Its
/// upstream is free again then, however long the caller leaves it.
const WHOLE_BYTES: u64 = PIECE_BYTES as u64;

/// How far the answer of a stream has got.
pub(super) struct Pace {
    pub(super) stream: Arc<Stream>,
    /// Pieces that were given away.
    pieces: AtomicU64,
    /// Whether the next one waits until the caller takes the last.
    waits_for_caller: AtomicBool,
}

/// What a connection knows of its streams.
pub(super) struct Streams {
    open: AtomicUsize,
    begun: AtomicU64,
    /// The stream that was begun and is about to be run. hyper does one right behind the other.
    next: Mutex<Option<Arc<Pace>>>,
    plane: Arc<DataPlane>,
    write_timeout: Duration,
}

impl Streams {
    pub(super) fn new(plane: Arc<DataPlane>, write_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            next: Mutex::new(None),
            plane,
            write_timeout,
        })
    }

    /// A request was read.
    pub(super) fn begin(&self) -> Arc<Pace> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let pace = Arc::new(Pace {
            stream: Arc::default(),
            pieces: AtomicU64::new(0),
            waits_for_caller: AtomicBool::new(false),
        });
        *self.next.lock() = Some(Arc::clone(&pace));
        pace
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
    let mut stall = IdleTimer::new(streams.write_timeout);
    let mut seen = 0;
    poll_fn(|cx| {
        // asked before the next piece is given away, and again once the first one was
        let ended = lookout.poll_lost(&streams.plane, cx).is_ready()
            || stream.as_mut().poll(cx).is_ready()
            || lookout.poll_lost(&streams.plane, cx).is_ready();
        if ended {
            return Poll::Ready(());
        }
        let pieces = pace.pieces.load(Ordering::Relaxed);
        if pieces != seen || !pace.waits_for_caller.load(Ordering::Relaxed) {
            seen = pieces;
            stall.rest();
        }
        if pace.waits_for_caller.load(Ordering::Relaxed) {
            return stall.poll_expired(cx);
        }
        Poll::Pending
    })
    .await;
}

/// The body of an answer, given away piece by piece.
pub(super) struct Pieces {
    body: InFlight,
    pace: Arc<Pace>,
    rest: Bytes,
    /// Whether the answer is given away in one piece, what there is of that, and what follows it.
    whole: bool,
    gathered: Vec<u8>,
    behind: Option<Frame<Bytes>>,
}

impl Pieces {
    pub(super) fn new(body: InFlight, pace: Arc<Pace>) -> Self {
        let whole = body.size_hint().exact().is_some_and(|bytes| bytes <= WHOLE_BYTES);
        let (rest, gathered) = (Bytes::new(), Vec::new());
        Self { body, pace, rest, whole, gathered, behind: None }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(behind) = self.behind.take() {
            return Poll::Ready(Some(Ok(behind)));
        }
        loop {
            let next = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
            if !self.whole {
                return Poll::Ready(next.map(Ok));
            }
            match next.map(Frame::into_data) {
                Some(Ok(data)) if self.gathered.is_empty() && self.body.is_end_stream() => {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Ok(data)) => {
                    self.gathered.extend_from_slice(&data);
                    if self.body.is_end_stream() {
                        return Poll::Ready(self.take_gathered());
                    }
                }
                Some(Err(behind)) if self.gathered.is_empty() => {
                    return Poll::Ready(Some(Ok(behind)));
                }
                Some(Err(behind)) => {
                    self.behind = Some(behind);
                    return Poll::Ready(self.take_gathered());
                }
                None => return Poll::Ready(self.take_gathered()),
            }
        }
    }

    fn take_gathered(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let bytes = std::mem::take(&mut self.gathered);
        (!bytes.is_empty()).then(|| Ok(Frame::data(bytes.into())))
    }

    /// The next piece of what is left of a frame. The last one is copied, so that what the caller
    /// does not take keeps no large buffer alive.
    fn cut(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        Some(if self.rest.is_empty() { Bytes::copy_from_slice(&piece) } else { piece })
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let it = self.get_mut();
        let polled = match it.cut() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => match it.poll_next(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.len() > PIECE_BYTES => {
                        it.rest = data;
                        Poll::Ready(it.cut().map(|piece| Ok(Frame::data(piece))))
                    }
                    Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(frame) => Poll::Ready(Some(Ok(frame))),
                },
                other => other,
            },
        };
        let given = matches!(polled, Poll::Ready(Some(Ok(_))));
        it.pace.waits_for_caller.store(given, Ordering::Relaxed);
        if given {
            it.pace.pieces.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let nothing_kept = self.rest.is_empty() && self.gathered.is_empty();
        nothing_kept && self.behind.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        let rest = (self.rest.len() + self.gathered.len()) as u64;
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}
