//! Stands between the socket and hyper and lets only whole, unambiguous heads and bodies through.
//!
//! What hyper would answer with a bare status or read leniently (a length beside chunks, bare line
//! feeds, chunk extensions) is found here first. In place of a bad head hyper reads a stand-in, so
//! that the refusal is an ordinary answer: in its turn, with the envelope, and recorded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http1::chunked::{Chunked, Step};
use crate::proxy::body::IdleTimer;
use crate::proxy::{Opened, Tunnel};
use crate::server::ConnectionLimits;
use crate::server::linger::Linger;
use crate::server::lookout::Stream;
use crate::server::transport::Transport;
use head::Framing;
pub use head::head_length;
pub(crate) use head::{BadHead, MAX_HEADERS};
pub(super) use head::{is_carried_verbatim, is_host};

mod head;

/// Bytes that a new connection's buffer holds; it grows up to the limit of a head.
const FIRST_BUFFER_BYTES: usize = 4 * 1024;
/// Parts of the header timeout in which a waiting connection is looked at.
const LOOKS: u32 = 2;
/// No head was refused.
const NONE: u64 = u64::MAX;

/// What guard and service of one connection know of each other.
pub(crate) struct Turn {
    calls: AtomicU64,
    refused_at: AtomicU64,
    reason: AtomicU8,
    in_flight: AtomicBool,
    /// Whether what follows is no HTTP: the connection was handed over.
    switched: AtomicBool,
    tunnel: Mutex<Option<Tunnel>>,
    pub(super) stream: Stream,
}

impl Turn {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicU64::new(0),
            refused_at: AtomicU64::new(NONE),
            reason: AtomicU8::new(0),
            in_flight: AtomicBool::new(false),
            switched: AtomicBool::new(false),
            tunnel: Mutex::default(),
            stream: Stream::default(),
        })
    }

    /// The next request was read: says whether it is the stand-in of a bad head.
    pub(crate) fn begin(&self) -> Option<BadHead> {
        self.in_flight.store(true, Ordering::Relaxed);
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        (self.refused_at.load(Ordering::Relaxed) == call)
            .then(|| BadHead::of(self.reason.load(Ordering::Relaxed)))
    }

    /// The request was answered by handing its connection over: from now on every byte passes.
    pub(crate) fn switch(&self, opened: Opened) {
        *self.tunnel.lock() = opened.take();
        self.switched.store(true, Ordering::Relaxed);
    }

    /// What the connection is handed over to, once it has ended as one of HTTP.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        let switched = self.switched.load(Ordering::Relaxed);
        if switched { self.tunnel.lock().take() } else { None }
    }

    /// The answer was sent whole, or given up.
    pub(crate) fn end(&self) {
        self.in_flight.store(false, Ordering::Relaxed);
        self.stream.end();
    }
}

#[derive(Clone, Copy)]
enum Phase {
    Head,
    Length(u64),
    Chunked(Chunked),
    /// The stand-in is all that hyper still gets; the refusal ends the connection.
    Refused,
    /// Nothing more comes.
    Ended,
    /// Whatever comes is for somebody else.
    Switched,
}

pub(crate) struct Guard<S: Transport> {
    stream: S,
    turn: Arc<Turn>,
    phase: Phase,
    heads: u64,
    /// Bytes that were read, from `start` to `end`; those before `ready` may pass.
    buffer: Vec<u8>,
    start: usize,
    ready: usize,
    end: usize,
    max_head: usize,
    waiting: Waiting,
    body_stall: IdleTimer,
    write_stall: IdleTimer,
    linger: Option<Linger>,
}

/// How long a connection has waited for a head, looked at from time to time.
struct Waiting {
    timer: IdleTimer,
    idle_looks: u32,
    heads_seen: u64,
    partial_seen: bool,
    quiet: u32,
}

impl<S: Transport> Guard<S> {
    /// `first` was read from the stream before.
    pub(crate) fn new(
        stream: S,
        first: Vec<u8>,
        turn: Arc<Turn>,
        limits: &ConnectionLimits,
    ) -> Self {
        let look = (limits.header_timeout / LOOKS).max(Duration::from_millis(1));
        let idle_looks = limits.idle_timeout.as_millis().div_ceil(look.as_millis());
        Self {
            stream,
            turn,
            phase: Phase::Head,
            heads: 0,
            end: first.len(),
            buffer: first,
            start: 0,
            ready: 0,
            max_head: limits.max_header_bytes,
            waiting: Waiting {
                timer: IdleTimer::new(look),
                idle_looks: u32::try_from(idle_looks).unwrap_or(u32::MAX),
                heads_seen: 0,
                partial_seen: false,
                quiet: 0,
            },
            body_stall: IdleTimer::new(limits.body_timeout),
            write_stall: IdleTimer::new(limits.write_timeout),
            linger: None,
        }
    }

    /// Hands out bytes that may pass.
    fn hand_out(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let count = (self.ready - self.start).min(out.remaining());
        let Some(bytes) = self.buffer.get(self.start..self.start + count) else {
            return false;
        };
        out.put_slice(bytes);
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.ready = 0;
            self.end = 0;
        }
        count > 0
    }

    /// Decides how many of the bytes that were read may pass. False: more must be read first.
    fn release(&mut self) -> io::Result<bool> {
        let waiting = self.buffer.get(self.ready..self.end).unwrap_or_default();
        if waiting.is_empty() {
            return Ok(false);
        }
        match self.phase {
            Phase::Switched => self.ready = self.end,
            Phase::Head => match head::read(waiting, self.max_head) {
                Ok(None) => return Ok(false),
                Ok(Some(head)) => {
                    self.heads += 1;
                    self.ready += head.bytes;
                    self.phase = match head.framing {
                        Framing::None => Phase::Head,
                        Framing::Length(bytes) => Phase::Length(bytes),
                        Framing::Chunked => Phase::Chunked(Chunked::new()),
                    };
                }
                Err(bad) => self.refuse(bad),
            },
            Phase::Length(left) => {
                let count = usize::try_from(left).map_or(waiting.len(), |it| it.min(waiting.len()));
                self.ready += count;
                self.phase = match left - count as u64 {
                    0 => Phase::Head,
                    left => Phase::Length(left),
                };
            }
            Phase::Chunked(mut chunked) => {
                let (count, step) = chunked.read(waiting)?;
                self.ready += count;
                self.phase = match step {
                    Step::More => Phase::Chunked(chunked),
                    Step::Ended => Phase::Head,
                };
            }
            Phase::Refused | Phase::Ended => self.end = self.ready,
        }
        Ok(true)
    }

    /// Puts the stand-in where the bad head was.
    fn refuse(&mut self, bad: BadHead) {
        self.turn.reason.store(bad as u8, Ordering::Relaxed);
        self.turn.refused_at.store(self.heads, Ordering::Relaxed);
        let waiting = self.buffer.get(self.ready..self.end).unwrap_or_default();
        let stand_in = head::stand_in(waiting);
        self.buffer.truncate(self.ready);
        self.buffer.extend_from_slice(stand_in);
        self.end = self.buffer.len();
        self.ready = self.end;
        self.phase = Phase::Refused;
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.make_room();
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let mut room = ReadBuf::new(room);
        match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
            Poll::Ready(Ok(())) => {
                let count = room.filled().len();
                self.body_stall.rest();
                self.end += count;
                Poll::Ready(Ok(count > 0))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if matches!(self.phase, Phase::Switched) => Poll::Pending,
            Poll::Pending => {
                if matches!(self.phase, Phase::Head) {
                    ready!(self.poll_waited_long(cx));
                    self.phase = Phase::Ended;
                    return Poll::Ready(Ok(false));
                }
                self.poll_body_stalled(cx).map(Err)
            }
        }
    }

    /// Moves what is left to the front, and grows the buffer while a head may still fit.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.ready -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            // one byte more than a head may have, so that its excess shows
            let most = self.max_head.max(self.end) + 1;
            let grown = (self.end * 2).max(FIRST_BUFFER_BYTES).min(most);
            self.buffer.resize(grown, 0);
        }
    }

    /// Ready when no whole head came for too long and no request is being answered.
    fn poll_waited_long(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.waiting.timer.poll_expired(cx));
            self.waiting.timer.rest();
            let partial = self.end > self.ready;
            let waiting = &mut self.waiting;
            if waiting.heads_seen != self.heads || self.turn.in_flight.load(Ordering::Relaxed) {
                waiting.heads_seen = self.heads;
                waiting.partial_seen = partial;
                waiting.quiet = 0;
                continue;
            }
            let new_partial = partial && !waiting.partial_seen;
            waiting.partial_seen = partial;
            waiting.quiet = if new_partial { 0 } else { waiting.quiet + 1 };
            let patience = if partial || self.heads == 0 { LOOKS } else { waiting.idle_looks };
            if waiting.quiet >= patience {
                return Poll::Ready(());
            }
        }
    }

    /// Ready when hyper waits for a body that stands still.
    fn poll_body_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.body_stall.poll_expired(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Whether the caller may still be sending what nobody will read.
    fn has_unread(&self) -> bool {
        match self.phase {
            // the other direction goes on, or nothing was answered that the caller could lose
            Phase::Switched | Phase::Ended => false,
            Phase::Head => self.end > self.start,
            _ => true,
        }
    }
}

impl<S: Transport> Drop for Guard<S> {
    /// A stream that is cut ends in a reset: what waits to be sent is thrown away, and an end that
    /// only the end of the connection marks is not mistaken for one that was meant.
    fn drop(&mut self) {
        if self.turn.stream.is_cut() {
            // the worst that follows is an orderly end
            let _ = self.stream.tcp().set_zero_linger();
        }
    }
}

impl<S: Transport> AsyncRead for Guard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if matches!(guard.phase, Phase::Head) && guard.turn.switched.load(Ordering::Relaxed) {
            guard.phase = Phase::Switched;
        }
        loop {
            if guard.hand_out(out) {
                return Poll::Ready(Ok(()));
            }
            if guard.release()? {
                continue;
            }
            match guard.phase {
                // an end of the input would make hyper give the refusal up; writing wakes it
                Phase::Refused => return Poll::Pending,
                Phase::Ended => return Poll::Ready(Ok(())),
                // a large body goes straight to where hyper wants it
                Phase::Length(left)
                    if guard.end == guard.start && left >= out.remaining() as u64 =>
                {
                    let before = out.filled().len();
                    let Poll::Ready(read) = Pin::new(&mut guard.stream).poll_read(cx, out) else {
                        return guard.poll_body_stalled(cx).map(Err);
                    };
                    read?;
                    guard.body_stall.rest();
                    guard.phase = match left - (out.filled().len() - before) as u64 {
                        0 => Phase::Head,
                        left => Phase::Length(left),
                    };
                    return Poll::Ready(Ok(()));
                }
                _ => {
                    if !ready!(guard.poll_fill(cx))? {
                        // a head that never ends is no request
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<S: Transport> AsyncWrite for Guard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        let written = Pin::new(&mut guard.stream).poll_write(cx, bytes);
        guard.write_stall.settle(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        let written = Pin::new(&mut guard.stream).poll_write_vectored(cx, parts);
        guard.write_stall.settle(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        // what encryption keeps back is written here
        let flushed = Pin::new(&mut guard.stream).poll_flush(cx);
        guard.write_stall.settle(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if guard.linger.is_none() {
            let ended = Pin::new(&mut guard.stream).poll_shutdown(cx);
            ready!(guard.write_stall.settle(cx, ended))?;
            guard.linger = Some(Linger::new());
        }
        if !guard.has_unread() {
            return Poll::Ready(Ok(()));
        }
        let Guard { linger: Some(linger), stream, .. } = guard else {
            return Poll::Ready(Ok(()));
        };
        linger.poll(stream, cx).map(Ok)
    }
}
