//! The body of an answer on its way into `h2`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::streams::Pace;
use crate::proxy::body::BodyError;
use crate::server::connection::InFlight;

/// Bytes of an answer that are given away at a time. What is given away waits for the caller's
/// windows, out of reach.
const PIECE_BYTES: usize = 16 * 1024;
/// Bytes of an answer that are read while its caller takes nothing of it. When that is all there
/// is, its upstream is free again.
const AHEAD_BYTES: usize = 16 * 1024;
/// What is kept back of an answer until its caller has room for it. Without that, the stream would
/// be over for everybody but `h2`, which keeps a whole piece for as long as the caller likes.
const TAIL_BYTES: usize = 1;
/// What `h2` may keep, rather than that every small answer is said twice.
const UNDIVIDED_BYTES: usize = 256;

/// An answer, given away piece by piece.
pub(super) struct Answer {
    body: InFlight,
    /// What is left of the frame that is given away.
    rest: Bytes,
    /// What was read behind that, and what follows it.
    ahead: Vec<u8>,
    behind: Option<Result<Frame<Bytes>, BodyError>>,
    /// Whether all was read.
    over: bool,
}

impl Answer {
    pub(super) const fn new(body: InFlight) -> Self {
        Self { body, rest: Bytes::new(), ahead: Vec::new(), behind: None, over: false }
    }

    /// Sees to the other side while the caller takes nothing: sends what is left of the request,
    /// and then reads what is left of a small answer. Not before: one that was read ends both.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) {
        if self.over || !self.body.send_on(cx) {
            return;
        }
        while !self.over && self.rest.len() + self.ahead.len() < AHEAD_BYTES {
            if self.poll_read(cx).is_pending() {
                return;
            }
        }
    }

    /// Reads another frame, behind what was read already.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match next.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                if self.rest.is_empty() && self.ahead.is_empty() {
                    self.rest = data;
                } else {
                    self.ahead.extend_from_slice(&data);
                }
                self.over = self.body.is_end_stream();
            }
            Some(Ok(Err(trailers))) => {
                self.behind = Some(Ok(trailers));
                self.over = true;
            }
            Some(Err(error)) => {
                self.behind = Some(Err(error));
                self.over = true;
            }
            None => self.over = true,
        }
        Poll::Ready(())
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while self.rest.is_empty() {
            if !self.ahead.is_empty() {
                self.rest = std::mem::take(&mut self.ahead).into();
            } else if self.over {
                return Poll::Ready(self.behind.take());
            } else {
                ready!(self.poll_read(cx));
            }
        }
        // of an answer without a length only what follows says whether this is the last of it
        let fits = self.rest.len() <= PIECE_BYTES && self.ahead.is_empty();
        if fits && !self.over && self.body.size_hint().exact().is_none() {
            let _ = self.poll_read(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(self.cut()))))
    }

    /// The next piece of what is left of a frame. The last one is copied, so that what the caller
    /// does not take keeps no large buffer alive.
    fn cut(&mut self) -> Bytes {
        let mut length = self.rest.len().min(PIECE_BYTES);
        let is_last = self.over && self.ahead.is_empty() && length == self.rest.len();
        if is_last && length > UNDIVIDED_BYTES {
            length -= TAIL_BYTES;
        }
        let piece = self.rest.split_to(length);
        if self.rest.len() > TAIL_BYTES {
            return piece;
        }
        self.rest = Bytes::copy_from_slice(&self.rest);
        Bytes::copy_from_slice(&piece)
    }

    fn is_given(&self) -> bool {
        let nothing_kept = self.rest.is_empty() && self.ahead.is_empty() && self.behind.is_none();
        nothing_kept && (self.over || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let kept = (self.rest.len() + self.ahead.len()) as u64;
        let left = if self.over { SizeHint::with_exact(0) } else { self.body.size_hint() };
        let mut whole = SizeHint::new();
        whole.set_lower(left.lower() + kept);
        if let Some(upper) = left.upper() {
            whole.set_upper(upper + kept);
        }
        whole
    }
}

/// The answer of a stream as hyper takes it. It stays with the stream, which sees to it also while
/// nobody asks for it.
pub(super) struct Pieces(Arc<Pace>);

impl Pieces {
    pub(super) fn new(body: InFlight, pace: Arc<Pace>) -> Self {
        *pace.answer.lock() = Some(Answer::new(body));
        Self(pace)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut answer = self.0.answer.lock();
        let polled = answer.as_mut().map_or(Poll::Ready(None), |answer| answer.poll_piece(cx));
        self.0.note(matches!(polled, Poll::Ready(Some(Ok(_)))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.answer.lock().as_ref().is_none_or(Answer::is_given)
    }

    fn size_hint(&self) -> SizeHint {
        let answer = self.0.answer.lock();
        answer.as_ref().map_or_else(|| SizeHint::with_exact(0), Answer::size_hint)
    }
}

impl Drop for Pieces {
    /// The stream is over, and with it what is left of its answer.
    fn drop(&mut self) {
        *self.0.answer.lock() = None;
    }
}
