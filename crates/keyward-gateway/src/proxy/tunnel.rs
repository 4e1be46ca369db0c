//! Connections that are handed over whole: bytes both ways, and nothing read into them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::plane::DataPlane;
use crate::proxy::Alarm;
use crate::proxy::http1::Connection;
use crate::proxy::pool::Held;
use crate::proxy::standing::{Loss, Standing, Vigil};
use crate::stall::IdleTimer;

/// For how long one side may go on when the other is done: long enough for a last word.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of each direction that wait to be taken.
const BUFFER_BYTES: usize = 16 * 1024;

/// An upstream that is about to speak with a caller directly.
pub(crate) struct Tunnel {
    /// The upstream's side, which is no longer one of HTTP.
    pub(super) upstream: Connection,
    pub(super) standing: Standing,
    /// For how long nothing may move.
    pub(super) idle: Duration,
    /// What the request holds.
    pub(super) held: Option<Box<Held>>,
}

/// A tunnel on its way to the connection of its caller, among the extensions of the answer.
#[derive(Clone)]
pub(crate) struct Opened(Arc<Mutex<Option<Tunnel>>>);

impl Opened {
    pub(super) fn new(tunnel: Tunnel) -> Self {
        Self(Arc::new(Mutex::new(Some(tunnel))))
    }

    /// The tunnel, for the first who asks.
    pub(crate) fn take(self) -> Option<Tunnel> {
        self.0.lock().take()
    }
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TunnelEnd {
    /// Both sides were done.
    Closed,
    /// A side broke off.
    Broken,
    /// Nothing moved for too long.
    Idle,
    /// The key may not make its request any more.
    Lost(Loss),
    /// This node stops.
    Stopped,
}

impl TunnelEnd {
    /// The word in the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::Lost(_) => "authority_lost",
            Self::Stopped => "stopped",
        }
    }
}

/// What passed through a tunnel.
pub(crate) struct Passed {
    pub(crate) standing: Standing,
    /// Bytes from the caller.
    pub(crate) received: u64,
    /// Bytes to the caller.
    pub(crate) sent: u64,
    pub(crate) end: TunnelEnd,
}

impl Tunnel {
    /// Carries bytes until a side is done, the key loses its authority, or the node stops.
    pub(crate) async fn run(
        self,
        caller: &mut (impl AsyncRead + AsyncWrite + Unpin),
        plane: &DataPlane,
        stopped: impl Future<Output = ()>,
    ) -> Passed {
        let Self { mut upstream, standing, idle, held } = self;
        let open = &plane.recorder.metrics.tunnels;
        open.fetch_add(1, Ordering::Relaxed);
        let (mut up, mut down) = (Direction::new(), Direction::new());
        let mut stopped = std::pin::pin!(stopped);
        let mut ends = Ends::new(standing, idle);
        let end = poll_fn(|cx| {
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(TunnelEnd::Stopped);
            }
            if let Poll::Ready(loss) = ends.poll_lost(plane, cx) {
                return Poll::Ready(TunnelEnd::Lost(loss));
            }
            let before = up.bytes + down.bytes;
            let to_upstream = up.poll(cx, caller, &mut upstream);
            let to_caller = down.poll(cx, &mut upstream, caller);
            if to_upstream.is_ready() != to_caller.is_ready() {
                ends.linger();
            }
            if let Poll::Ready(end) = both(to_upstream, to_caller) {
                return Poll::Ready(end);
            }
            ends.poll_idle(up.bytes + down.bytes != before, cx)
        })
        .await;
        drop((upstream, held));
        open.fetch_sub(1, Ordering::Relaxed);
        Passed { standing, received: up.bytes, sent: down.bytes, end }
    }
}

/// The end that two directions make: both over, or one broken.
fn both(one: Poll<io::Result<()>>, other: Poll<io::Result<()>>) -> Poll<TunnelEnd> {
    match (one, other) {
        (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(TunnelEnd::Broken),
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(TunnelEnd::Closed),
        _ => Poll::Pending,
    }
}

/// What ends a tunnel beside its two sides.
struct Ends {
    vigil: Vigil,
    alarm: Alarm,
    armed_for_ns: u64,
    idle: IdleTimer,
    lingers: bool,
}

impl Ends {
    fn new(standing: Standing, idle: Duration) -> Self {
        Self {
            vigil: Vigil::of(standing),
            alarm: Alarm::default(),
            armed_for_ns: 0,
            idle: IdleTimer::new(idle),
            lingers: false,
        }
    }

    /// One side is done.
    fn linger(&mut self) {
        if !self.lingers {
            self.lingers = true;
            self.idle = IdleTimer::new(LINGER);
        }
    }

    fn poll_lost(&mut self, plane: &DataPlane, cx: &mut Context<'_>) -> Poll<Loss> {
        loop {
            match self.vigil.look(plane) {
                Ok(left) if self.armed_for_ns != self.vigil.due_ns() => {
                    self.alarm.set(Instant::now() + left);
                    self.armed_for_ns = self.vigil.due_ns();
                }
                Ok(_) => {}
                Err(loss) => return Poll::Ready(loss),
            }
            ready!(self.alarm.poll(cx));
            self.armed_for_ns = 0;
        }
    }

    fn poll_idle(&mut self, moved: bool, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        if moved {
            self.idle.rest();
        }
        let end = if self.lingers { TunnelEnd::Closed } else { TunnelEnd::Idle };
        self.idle.poll_expired(cx).map(|()| end)
    }
}

/// One direction of a tunnel.
struct Direction {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes that were handed on.
    bytes: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more comes; that is told on.
    Closing,
    Closed,
}

impl Direction {
    fn new() -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { buffer, start: 0, end: 0, bytes: 0, state: State::Open }
    }

    /// Carries on; ready when this direction is over.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            while let Some(bytes) = self.buffer.get(self.start..self.end)
                && !bytes.is_empty()
            {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, bytes))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += count;
                self.bytes += count as u64;
            }
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Closing => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Closed;
                }
                State::Open => {
                    let mut room = ReadBuf::new(&mut self.buffer);
                    let read = Pin::new(&mut *from).poll_read(cx, &mut room);
                    if read.is_pending() {
                        // what was written so far must not wait for more
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    }
                    ready!(read)?;
                    (self.start, self.end) = (0, room.filled().len());
                    if self.end == 0 {
                        self.state = State::Closing;
                    }
                }
            }
        }
    }
}
