//! Connections to upstreams: a stack for each thread, so that taking one costs no lock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::proxy::body::ForwardBody;

type Sender = SendRequest<ForwardBody>;

/// Idle connections of one thread to one upstream.
const MAX_IDLE: usize = 256;
/// Connections that are looked at when the one on top has not settled yet.
const MAX_UNSETTLED: usize = 4;

struct Idle {
    connection: Connection,
    since_ns: u64,
}

/// A connection to an upstream, and the alarm for the answers that come on it.
pub(super) struct Connection {
    pub(super) sender: Sender,
    pub(super) alarm: Alarm,
    pub(super) _driver: Driver,
}

/// The task of a connection, which ends with it: left alone it would first send what is buffered,
/// to an upstream that may take nothing for a long time.
pub(super) struct Driver(AbortHandle);

impl Driver {
    pub(super) const fn new(task: AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A deadline that mostly moves away before it is reached: the timer behind it stays where it is
/// until it rings.
#[derive(Default)]
pub(crate) struct Alarm {
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    pub(crate) const fn set(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// Ready when the deadline has passed; never, when none was set.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

thread_local! {
    static STACKS: RefCell<Vec<(u64, VecDeque<Idle>)>> = const { RefCell::new(Vec::new()) };
}

/// A connection in use, and how it goes back.
pub(crate) struct Lease {
    pub(super) connection: Connection,
    pub(super) upstream: u64,
    pub(super) now_ns: u64,
    pub(super) idle_ns: u64,
}

impl Lease {
    /// Puts the connection on top of this thread's stack, where the next request finds it warm.
    pub(crate) fn give_back(self) {
        if self.connection.sender.is_closed() {
            return;
        }
        with_stack(self.upstream, |stack| {
            let limit = self.now_ns.saturating_sub(self.idle_ns);
            while stack.len() >= MAX_IDLE || stack.front().is_some_and(|it| it.since_ns < limit) {
                stack.pop_front();
            }
            stack.push_back(Idle { connection: self.connection, since_ns: self.now_ns });
        });
    }
}

/// The warmest connection that can be used at once.
pub(super) fn take(upstream: u64, now_ns: u64, idle_ns: u64) -> Option<Connection> {
    with_stack(upstream, |stack| {
        let limit = now_ns.saturating_sub(idle_ns);
        let mut unsettled = 0;
        while unsettled < MAX_UNSETTLED.min(stack.len()) {
            let position = stack.len() - 1 - unsettled;
            let idle = stack.get(position)?;
            if idle.since_ns < limit || idle.connection.sender.is_closed() {
                stack.remove(position);
            } else if idle.connection.sender.is_ready() {
                return stack.remove(position).map(|idle| idle.connection);
            } else {
                unsettled += 1;
            }
        }
        None
    })
}

fn with_stack<T>(upstream: u64, use_it: impl FnOnce(&mut VecDeque<Idle>) -> T) -> T {
    STACKS.with_borrow_mut(|stacks| {
        let known = stacks.iter().position(|(id, _)| *id == upstream);
        let position = known.unwrap_or_else(|| {
            stacks.push((upstream, VecDeque::new()));
            stacks.len() - 1
        });
        match stacks.get_mut(position) {
            Some((_, stack)) => use_it(stack),
            None => use_it(&mut VecDeque::new()),
        }
    })
}
