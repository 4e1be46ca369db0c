//! Stands between the socket and `h2`: ends floods, heads that take for ever, and callers that take
//! nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::{Frames, HEAD_BYTES};
use crate::metrics::Metrics;
use crate::server::ConnectionLimits;
use crate::server::linger::Ending;
use crate::server::transport::Transport;
use crate::stall::{IdleTimer, Stalling};

/// A ping without its eight bytes. In place of the frame that is one too many `h2` reads this, and
/// ends the connection by the rules, with a GOAWAY.
const POISON: [u8; HEAD_BYTES] = [0, 0, 0, 6, 0, 0, 0, 0, 0];

pub(super) struct Gate<S: Transport> {
    stream: Stalling<S>,
    first: Vec<u8>,
    frames: Frames,
    flooded: bool,
    metrics: Arc<Metrics>,
    /// Runs while a head has begun and has not ended, and before the first one.
    head: IdleTimer,
    ending: Ending,
}

impl<S: Transport> Gate<S> {
    /// `first` was read from the stream before.
    pub(super) fn new(
        stream: S,
        first: Vec<u8>,
        limits: &ConnectionLimits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            stream: Stalling::new(stream, limits.write_timeout),
            first,
            frames: Frames::new(Instant::now()),
            flooded: false,
            metrics,
            head: IdleTimer::new(limits.header_timeout),
            ending: Ending::new(true),
        }
    }

    /// Looks at what was read behind `before`.
    fn look(&mut self, out: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let read = out.filled().get(before..).unwrap_or_default();
        let looked = self.frames.look(read, Instant::now);
        if !self.frames.awaits_head() {
            self.head.rest();
        }
        let Err(flood) = looked else {
            return Ok(());
        };
        self.metrics.count_flood();
        self.flooded = true;
        match flood.before {
            // its place in what was read is large enough for as many bytes
            Some(good) if out.capacity() - before - good >= POISON.len() => {
                out.set_filled(before + good);
                out.put_slice(&POISON);
                Ok(())
            }
            // the frame has begun already, and cannot be taken back
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    fn sent(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.frames.sent(*bytes);
        }
    }
}

impl<S: Transport> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        if gate.flooded {
            // the end comes from this side
            return Poll::Pending;
        }
        let before = out.filled().len();
        if gate.first.is_empty() {
            if Pin::new(&mut gate.stream).poll_read(cx, out)?.is_pending() {
                if gate.frames.awaits_head() {
                    ready!(gate.head.poll_expired(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                return Poll::Pending;
            }
        } else {
            let count = gate.first.len().min(out.remaining());
            let rest = gate.first.split_off(count);
            out.put_slice(&gate.first);
            gate.first = rest;
        }
        Poll::Ready(gate.look(out, before))
    }
}

impl<S: Transport> AsyncWrite for Gate<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let written = Pin::new(&mut gate.stream).poll_write(cx, bytes);
        gate.sent(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let written = Pin::new(&mut gate.stream).poll_write_vectored(cx, parts);
        gate.sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        gate.ending.poll(&mut gate.stream, cx)
    }
}
