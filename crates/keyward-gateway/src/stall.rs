//! What stands still for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Runs only while a body stands still, so that a body that never waits costs no timer.
pub(crate) struct IdleTimer {
    after: Duration,
    /// When it is over however much moves.
    until: Option<Instant>,
    armed: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    pub(crate) const fn new(after: Duration) -> Self {
        Self::within(after, None)
    }

    /// One that also ends what moves for too long in all.
    pub(crate) const fn within(after: Duration, until: Option<Instant>) -> Self {
        Self { after, until, armed: false, sleep: None }
    }

    /// Something moved.
    pub(crate) fn rest(&mut self) {
        self.armed = false;
    }

    /// Whether it took too long in all.
    pub(crate) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// Leaves a timer of another runtime behind.
    pub(crate) fn forget(&mut self) {
        self.armed = false;
        self.sleep = None;
    }

    /// Passes on what came of moving something, or fails when nothing has moved for too long.
    pub(crate) fn settle<T>(
        &mut self,
        cx: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.rest();
            return moved;
        }
        ready!(self.poll_expired(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Nothing moves: ready when that has lasted for too long.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.armed {
            self.armed = true;
            let idle = Instant::now() + self.after;
            let deadline = self.until.map_or(idle, |until| idle.min(until));
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(deadline),
                none => *none = Some(Box::pin(sleep_until(deadline))),
            }
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// A connection that fails when the other side takes nothing for too long.
pub(crate) struct Stalling<S> {
    stream: S,
    stall: IdleTimer,
}

impl<S> Stalling<S> {
    pub(crate) const fn new(stream: S, idle: Duration) -> Self {
        Self { stream, stall: IdleTimer::new(idle) }
    }

    /// What it is built on.
    pub(crate) const fn inner(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let it = self.get_mut();
        let written = Pin::new(&mut it.stream).poll_write(cx, bytes);
        it.stall.settle(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let it = self.get_mut();
        let written = Pin::new(&mut it.stream).poll_write_vectored(cx, parts);
        it.stall.settle(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let it = self.get_mut();
        // what encryption keeps back is written here
        let flushed = Pin::new(&mut it.stream).poll_flush(cx);
        it.stall.settle(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let it = self.get_mut();
        let ended = Pin::new(&mut it.stream).poll_shutdown(cx);
        it.stall.settle(cx, ended)
    }
}
