//! How many streams of a connection are reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::proxy::http2::exchange::Exchange;

/// What a stream that is begun adds to the credit for resetting some, what each of these costs, and
/// what a connection starts with: in tens, what Tomcat counts for them (`overheadCountFactor`).
const CREDIT_OF_A_STREAM: u32 = 2;
const COST_OF_A_RESET: u32 = 5;
const FIRST_CREDIT: u32 = 6;
/// The most that is saved up: hyper's servers end a connection of which 20 streams are reset that
/// they have not begun with, and nothing says when they begin.
const MAX_CREDIT: u32 = 10 * COST_OF_A_RESET;
/// Streams that a connection resets in its life: Netty's servers end one at 200 in half a minute.
const MAX_RESETS: u32 = 100;
/// Exchanges of fickle tenants with one address that are held at a time; each may keep a window of
/// its answer in memory. Of the others no more can be held than they have under way before they
/// are known to be fickle.
const MAX_HELD_APART: usize = 256;
/// Answers without a body whose end may come later on one connection.
const MAX_ENDING: usize = 64;

/// The streams of one connection that are reset, and those that should be and are not.
pub(super) struct Resets {
    credit: AtomicU32,
    spent: AtomicU32,
    retired: AtomicBool,
    left: Mutex<Left>,
    /// How many are held at this address, where that is bounded.
    held_apart: Option<Arc<AtomicUsize>>,
}

/// Exchanges that nobody waits for. Dropped, their streams are reset.
#[derive(Default)]
struct Left {
    /// Those that are complete but for the end of an answer without a body.
    ending: Vec<Exchange>,
    held: Vec<Held>,
}

struct Held {
    exchange: Exchange,
    apart: Option<Arc<AtomicUsize>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(apart) = &self.apart {
            apart.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Resets {
    pub(super) fn new(held_apart: Option<Arc<AtomicUsize>>) -> Self {
        Self {
            credit: AtomicU32::new(FIRST_CREDIT),
            spent: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            left: Mutex::default(),
            held_apart,
        }
    }

    /// Whether no more streams should be begun: another one could not be reset.
    pub(super) fn are_spent(&self) -> bool {
        let credit = self.credit.load(Ordering::Relaxed) + CREDIT_OF_A_STREAM;
        credit < COST_OF_A_RESET || self.retired.load(Ordering::Relaxed)
    }

    /// No more streams should be begun.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// A stream was begun.
    pub(super) fn begun(&self) {
        let more = |credit: u32| Some((credit + CREDIT_OF_A_STREAM).min(MAX_CREDIT));
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        self.left.lock().ending.retain_mut(|it| !it.has_ended());
    }

    /// Counts a stream that is reset; false when no more should be, or be begun.
    pub(super) fn spend(&self) -> bool {
        let less = |credit: u32| credit.checked_sub(COST_OF_A_RESET);
        let may = !self.retired.load(Ordering::Relaxed)
            && self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if !may || self.spent.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_RESETS {
            self.retire();
        }
        may
    }

    /// Ends an exchange that is not complete: its stream is reset, or left open for as long as
    /// others are under way on the connection.
    pub(super) fn end(&self, exchange: Exchange) {
        if exchange.only_ends() {
            let mut left = self.left.lock();
            if left.ending.len() < MAX_ENDING {
                return left.ending.push(exchange);
            }
        }
        if self.spend() {
            return;
        }
        if let Some(apart) = &self.held_apart
            && apart.fetch_add(1, Ordering::Relaxed) >= MAX_HELD_APART
        {
            apart.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        exchange.hold();
        let mut left = self.left.lock();
        left.held.retain(|it| !it.exchange.is_complete());
        left.held.push(Held { exchange, apart: self.held_apart.clone() });
    }
}
