//! The way of a request's body from its connection to whoever takes it, in the same task or in
//! another: one piece at a time, and none before it is asked for.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use crate::proxy::body::BodyError;

/// The connection's side of a pipe.
pub(super) struct Pipe(Arc<Mutex<State>>);

/// A body that comes through a pipe.
pub(in crate::server) struct PipedBody(Arc<Mutex<State>>);

struct State {
    next: Option<Frame<Bytes>>,
    end: Option<End>,
    /// Bytes that were not taken yet, where their number is known.
    left: Option<u64>,
    /// Whether it was ever asked for.
    wanted: bool,
    /// Whether nobody takes any more.
    abandoned: bool,
    taker: Option<Waker>,
    giver: Option<Waker>,
}

/// What follows the last piece.
enum End {
    Whole,
    Failed(BodyError),
}

/// What a pipe has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// The next piece.
    Free,
    /// Nothing before what is in it was taken, or before it is asked for the first time.
    None,
    /// Nothing ever.
    Abandoned,
}

/// A body of so many bytes, where that is known.
pub(super) fn pipe(bytes: Option<u64>) -> (Pipe, PipedBody) {
    let state = Arc::new(Mutex::new(State {
        next: None,
        end: None,
        left: bytes,
        wanted: false,
        abandoned: false,
        taker: None,
        giver: None,
    }));
    (Pipe(Arc::clone(&state)), PipedBody(state))
}

impl Pipe {
    /// Whether there is room. If there is none, the task is woken when there is.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Room {
        let mut state = self.0.lock();
        if state.abandoned {
            return Room::Abandoned;
        }
        if state.wanted && state.next.is_none() {
            return Room::Free;
        }
        remember(&mut state.giver, cx);
        Room::None
    }

    /// Whether the body was ever asked for.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.lock().wanted
    }

    /// Puts a piece in, the last one or not, or the end alone. There must be room.
    pub(super) fn give(&self, piece: Option<Frame<Bytes>>, is_last: bool, cx: &Context<'_>) {
        let mut state = self.0.lock();
        state.next = piece;
        if is_last {
            state.end = Some(End::Whole);
        }
        wake(state.taker.take(), cx);
    }

    /// The body does not end as it should.
    pub(super) fn fail(&self, error: BodyError, cx: &Context<'_>) {
        let mut state = self.0.lock();
        state.end = Some(End::Failed(error));
        wake(state.taker.take(), cx);
    }
}

impl Drop for Pipe {
    /// A body that outlives its connection must not be waited for.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.end.is_none() {
            state.end = Some(End::Failed(BodyError::broken("the connection ended")));
        }
        if let Some(taker) = state.taker.take() {
            taker.wake();
        }
    }
}

impl PipedBody {
    pub(in crate::server) fn poll_frame(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.lock();
        state.wanted = true;
        if let Some(piece) = state.next.take() {
            let bytes = piece.data_ref().map_or(0, |data| data.len() as u64);
            state.left = state.left.map(|left| left.saturating_sub(bytes));
            wake(state.giver.take(), cx);
            return Poll::Ready(Some(Ok(piece)));
        }
        match state.end.replace(End::Whole) {
            Some(End::Failed(error)) => Poll::Ready(Some(Err(error))),
            Some(End::Whole) => Poll::Ready(None),
            None => {
                state.end = None;
                remember(&mut state.taker, cx);
                wake(state.giver.take(), cx);
                Poll::Pending
            }
        }
    }

    pub(in crate::server) fn is_end_stream(&self) -> bool {
        let state = self.0.lock();
        state.next.is_none() && matches!(state.end, Some(End::Whole))
    }

    pub(in crate::server) fn size_hint(&self) -> SizeHint {
        self.0.lock().left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for PipedBody {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        if let Some(giver) = state.giver.take() {
            giver.wake();
        }
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if slot.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

/// Wakes the other side, unless it is in this task: then it is polled next anyway.
fn wake(other: Option<Waker>, cx: &Context<'_>) {
    if let Some(other) = other.filter(|other| !other.will_wake(cx.waker())) {
        other.wake();
    }
}
