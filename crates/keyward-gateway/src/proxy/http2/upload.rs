//! The body of a request on a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::body::ForwardBody;

/// It is sent on.
const FLOWING: u8 = 0;
/// It was handed over whole, or nobody asks for it any more.
const OVER: u8 = 1;
/// It broke off on the caller's side.
const FAILED: u8 = 2;
/// Nothing more is taken from the caller, and its stream is left open.
const HELD: u8 = 3;
/// Its stream is to be reset.
const RESET: u8 = 4;

/// What becomes of a body: shared by the connection that sends it and the exchange it belongs to,
/// because only the latter may reset the stream.
#[derive(Default)]
pub(super) struct Upload {
    state: AtomicU8,
    /// Whether the sender waits for more of it, where it learns what it shall do.
    is_awaited: AtomicBool,
    /// Whether the sender is done with it.
    is_released: AtomicBool,
    sender: AtomicWaker,
    exchange: AtomicWaker,
}

impl Upload {
    /// Whether it needs nothing more.
    pub(super) fn is_over(&self) -> bool {
        self.state() == OVER
    }

    /// Whether the sender has a piece of it that the upstream does not take. Until it does, or ends
    /// the stream, nothing can be told to the sender.
    pub(super) fn is_stuck(&self) -> bool {
        !self.is_awaited.load(Ordering::Acquire) && !self.is_released()
    }

    /// Whether the sender is done with it.
    pub(super) fn is_released(&self) -> bool {
        self.is_released.load(Ordering::Acquire)
    }

    /// Whether it broke off; when not yet, the task is woken when it does.
    pub(super) fn has_failed(&self, cx: &Context<'_>) -> bool {
        self.exchange.register(cx.waker());
        self.state() == FAILED
    }

    /// Takes nothing more from the caller, and leaves the stream open: without an end, whatever of
    /// it is still on its way.
    pub(super) fn hold(&self) {
        self.end(HELD);
    }

    /// Resets the stream, unless the body is over.
    pub(super) fn reset(&self) {
        self.end(RESET);
    }

    fn end(&self, how: u8) {
        let unless_over = |state| (state != OVER).then_some(how);
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, unless_over).is_ok() {
            self.sender.wake();
        }
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    /// Notes what the sending side has seen, unless the exchange has decided meanwhile.
    fn note(&self, seen: u8) {
        let noted = self.state.compare_exchange(FLOWING, seen, Ordering::AcqRel, Ordering::Acquire);
        if noted.is_ok() {
            self.exchange.wake();
        }
    }
}

/// A body as a connection sends it. One that fails does not reset its stream by itself.
pub(in crate::proxy) struct StreamBody {
    body: ForwardBody,
    upload: Option<Arc<Upload>>,
}

impl StreamBody {
    /// The body, and what becomes of it unless it is empty.
    pub(super) fn new(body: ForwardBody) -> (Self, Option<Arc<Upload>>) {
        let upload = match body {
            ForwardBody::Empty => None,
            ForwardBody::Streaming(_) => Some(Arc::<Upload>::default()),
        };
        (Self { body, upload: upload.clone() }, upload)
    }

    /// The body of a request that was not sent.
    pub(super) fn into_unsent(mut self) -> ForwardBody {
        std::mem::replace(&mut self.body, ForwardBody::Empty)
    }

    fn poll_next(
        body: &mut ForwardBody,
        upload: &Upload,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        upload.is_awaited.store(true, Ordering::Release);
        upload.sender.register(cx.waker());
        match upload.state() {
            FLOWING | OVER => {}
            RESET => return Poll::Ready(Some(Err(h2::Reason::CANCEL.into()))),
            _ => {
                // nobody waits for what its caller still sends
                *body = ForwardBody::Empty;
                return Poll::Pending;
            }
        }
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                upload.is_awaited.store(false, Ordering::Release);
                if frame.is_trailers() || body.is_end_stream() {
                    upload.note(OVER);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                upload.note(OVER);
                Poll::Ready(None)
            }
            Some(Err(_)) => {
                // why is known to whoever watches the body
                upload.note(FAILED);
                Self::poll_next(body, upload, cx)
            }
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Self { body, upload } = self.get_mut();
        upload.as_ref().map_or(Poll::Ready(None), |upload| Self::poll_next(body, upload, cx))
    }

    fn is_end_stream(&self) -> bool {
        let may_end = self.upload.as_ref().is_none_or(|it| matches!(it.state(), FLOWING | OVER));
        may_end && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.is_released.store(true, Ordering::Release);
            upload.note(OVER);
        }
    }
}
