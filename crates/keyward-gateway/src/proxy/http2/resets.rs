//! How many streams of a connection are taken back, and how fast.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::proxy::http2::exchange::Exchange;
use crate::stall::IdleTimer;

/// Streams that a connection takes back at once; it then begins no more. Among the servers that are
/// known to count, those of hyper end a connection at the fewest: 20 that they have not begun with.
const MAX_RESETS: u32 = 10;
/// How often another one is taken back after that, for as long as exchanges are under way on the
/// connection. There are never more of them than there were streams.
pub(super) const RELEASE_EVERY: Duration = Duration::from_millis(250);

/// The streams of one connection that are taken back.
pub(super) struct Resets {
    left: AtomicU32,
    /// Those that wait, their streams left open. Dropped, they are taken back.
    held: Mutex<VecDeque<Exchange>>,
    driver: AtomicWaker,
}

impl Resets {
    pub(super) const fn new() -> Self {
        Self {
            left: AtomicU32::new(MAX_RESETS),
            held: Mutex::new(VecDeque::new()),
            driver: AtomicWaker::new(),
        }
    }

    /// Whether no more streams should be begun.
    pub(super) fn are_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Takes back the stream of an exchange, now or later.
    pub(super) fn take_back(&self, exchange: Exchange) {
        let one_less = |left: u32| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            drop(exchange);
            return;
        }
        exchange.hold();
        self.held.lock().push_back(exchange);
        self.driver.wake();
    }

    /// Takes back what was held, one after the other.
    pub(super) fn release(&self, pause: &mut IdleTimer, cx: &mut Context<'_>) {
        self.driver.register(cx.waker());
        while !self.held.lock().is_empty() {
            if pause.poll_expired(cx).is_pending() {
                return;
            }
            pause.rest();
            let first = self.held.lock().pop_front();
            drop(first);
        }
    }
}
