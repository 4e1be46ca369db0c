//! Channels to upstreams: for each thread its own, so that taking one costs no lock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use keyward_core::id::TenantId;

use crate::proxy::alarm::Alarm;
use crate::proxy::body::BodyError;
use crate::proxy::http1;
use crate::proxy::http2::{Multiplexed, Stream};
use crate::proxy::target::{Target, UnderWay, Wire};

/// Idle connections of one thread to one address.
const MAX_IDLE: usize = 256;
/// What a request adds to the credit for sending some a second time, and what such a one costs:
/// one in ten, so that an outage is not made worse by repeating every request.
const CREDIT_OF_A_REQUEST: u32 = 1;
const COST_OF_A_REPEAT: u32 = 10;
/// The most that is saved up, by each thread for each address.
const MAX_CREDIT: u32 = 10 * COST_OF_A_REPEAT;

/// A connection that carries one request at a time, and the alarm for the answers that come on it.
pub(super) struct Connection {
    pub(super) http1: http1::Connection,
    pub(super) alarm: Alarm,
}

impl Connection {
    pub(super) fn new(http1: http1::Connection) -> Box<Self> {
        Box::new(Self { http1, alarm: Alarm::default() })
    }
}

/// What carries one exchange.
pub(super) enum Channel {
    /// HTTP/1.1. Boxed as long as it is open, because it is moved about.
    Connection(Box<Connection>),
    /// One stream among others (HTTP/2).
    Stream(Box<Stream>),
}

impl Channel {
    pub(super) const fn wire(&self) -> Wire {
        match self {
            Self::Connection(_) => Wire::Http1,
            Self::Stream(_) => Wire::Http2,
        }
    }
}

struct Idle {
    connection: Box<Connection>,
    since_ns: u64,
}

/// Idle connections that every thread may take: those of an upstream whose requests are bounded,
/// so that no thread keeps what another waits for.
#[derive(Default)]
pub(super) struct Common(Mutex<VecDeque<Idle>>);

/// What one thread keeps for one address.
struct Kept {
    idle: VecDeque<Idle>,
    multiplexed: Vec<Multiplexed>,
    credit: u32,
}

impl Kept {
    const fn new() -> Self {
        Self { idle: VecDeque::new(), multiplexed: Vec::new(), credit: MAX_CREDIT }
    }
}

thread_local! {
    static KEPT: RefCell<Vec<(u64, Kept)>> = const { RefCell::new(Vec::new()) };
}

/// Who wants a channel, and when.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    pub(super) tenant: TenantId,
    pub(super) now_ns: u64,
    /// For how long a connection may have been unused.
    pub(super) idle_ns: u64,
}

impl Wish {
    /// Connections that were last used before this are too old.
    const fn limit_ns(self) -> u64 {
        self.now_ns.saturating_sub(self.idle_ns)
    }
}

/// What a request holds where requests are counted or bounded.
#[derive(Default)]
pub(super) struct Held {
    pub(super) common: Option<Arc<Common>>,
    pub(super) _under_way: Option<UnderWay>,
    /// Last, so that whoever gets it finds the connection that was given back.
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

/// A channel in use, and how it goes back.
pub(crate) struct Lease {
    pub(super) channel: Channel,
    pub(super) held: Option<Box<Held>>,
    pub(super) target: u64,
    pub(super) now_ns: u64,
    pub(super) idle_ns: u64,
    /// Whether nothing follows on it.
    pub(super) once: bool,
}

impl Lease {
    /// The connection, if it is leased whole.
    pub(super) const fn connection_mut(&mut self) -> Option<&mut http1::Connection> {
        match &mut self.channel {
            Channel::Connection(connection) => Some(&mut connection.http1),
            Channel::Stream(_) => None,
        }
    }

    /// The next of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.channel {
            Channel::Connection(it) => it.http1.poll_frame(cx).map_err(BodyError::from),
            Channel::Stream(it) => it.exchange.poll_frame(cx),
        }
    }

    /// Whether the answer was taken whole.
    pub(super) fn is_answered(&self) -> bool {
        match &self.channel {
            Channel::Connection(it) => it.http1.is_answered(),
            Channel::Stream(it) => it.exchange.is_answered(),
        }
    }

    /// How much of the answer's body is left, as far as that is known.
    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.channel {
            Channel::Connection(it) => it.http1.size_hint(),
            Channel::Stream(it) => it.exchange.size_hint(),
        }
    }

    /// Puts the connection on top of this thread's stack, where the next request finds it warm.
    pub(crate) fn give_back(self) {
        let Channel::Connection(mut connection) = self.channel else {
            return;
        };
        if self.once || !connection.http1.settle() {
            return;
        }
        let limit = self.now_ns.saturating_sub(self.idle_ns);
        let idle = Idle { connection, since_ns: self.now_ns };
        match self.held.as_ref().and_then(|held| held.common.as_ref()) {
            Some(common) => push(&mut common.0.lock(), idle, limit),
            None => with_kept(self.target, |kept| push(&mut kept.idle, idle, limit)),
        }
    }
}

fn push(stack: &mut VecDeque<Idle>, idle: Idle, limit_ns: u64) {
    while stack.len() >= MAX_IDLE || stack.front().is_some_and(|it| it.since_ns < limit_ns) {
        stack.pop_front();
    }
    stack.push_back(idle);
}

/// The warmest channel that can be used at once.
pub(super) fn take(target: &Target, wish: Wish) -> Option<Channel> {
    let limit = wish.limit_ns();
    with_kept(target.id, |kept| {
        kept.credit = (kept.credit + CREDIT_OF_A_REQUEST).min(MAX_CREDIT);
        match (target.wire(), &target.common) {
            (Some(Wire::Http2), _) => take_stream(kept, target, wish),
            (_, None) => take_idle(&mut kept.idle, limit).map(Channel::Connection),
            (_, Some(common)) => take_common(common, limit).map(Channel::Connection),
        }
    })
}

fn take_idle(stack: &mut VecDeque<Idle>, limit_ns: u64) -> Option<Box<Connection>> {
    while let Some(mut idle) = stack.pop_back() {
        if idle.since_ns >= limit_ns && idle.connection.http1.is_quiet() {
            return Some(idle.connection);
        }
    }
    None
}

fn take_common(common: &Common, limit_ns: u64) -> Option<Box<Connection>> {
    let mut connection = take_idle(&mut common.0.lock(), limit_ns)?;
    // its timers belong to the runtime of the thread that used it last
    connection.alarm = Alarm::default();
    connection.http1.change_runtime();
    Some(connection)
}

fn take_stream(kept: &mut Kept, target: &Target, wish: Wish) -> Option<Channel> {
    kept.multiplexed.retain(|it| it.is_usable(wish.limit_ns()));
    let is_apart = target.fickle.contains(wish.tenant);
    let mut fitting = kept.multiplexed.iter().filter(|it| it.is_apart() == is_apart);
    let stream = fitting.find_map(|it| it.stream(wish.tenant, wish.now_ns));
    stream.map(Channel::Stream)
}

/// Keeps a connection for the streams of this thread.
pub(super) fn keep(target: &Target, connection: Multiplexed) {
    with_kept(target.id, |kept| kept.multiplexed.push(connection));
}

/// Whether a request to this address may be sent a second time.
pub(super) fn may_repeat(target: &Target) -> bool {
    with_kept(target.id, |kept| {
        let left = kept.credit.checked_sub(COST_OF_A_REPEAT);
        kept.credit = left.unwrap_or(kept.credit);
        left.is_some()
    })
}

fn with_kept<T>(target: u64, use_it: impl FnOnce(&mut Kept) -> T) -> T {
    KEPT.with_borrow_mut(|all| {
        let known = all.iter().position(|(id, _)| *id == target);
        let position = known.unwrap_or_else(|| {
            all.push((target, Kept::new()));
            all.len() - 1
        });
        match all.get_mut(position) {
            Some((_, kept)) => use_it(kept),
            None => use_it(&mut Kept::new()),
        }
    })
}
