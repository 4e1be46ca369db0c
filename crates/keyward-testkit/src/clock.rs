//! Time that stands still until a test moves it.

use std::sync::atomic::{AtomicI64, Ordering};

use aws_lc_rs::rand;
use keyward_core::clock::Clock;
use keyward_core::time::Timestamp;

/// The instant at which test clocks start, in milliseconds: 2027-01-15T08:00:00Z.
const START_MS: i64 = 1_800_000_000_000;

/// A clock moved by the test. Its randomness is real: secrets of tests must not repeat.
pub struct ManualClock {
    now_ms: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at 2027-01-15T08:00:00Z.
    pub const fn new() -> Self {
        Self { now_ms: AtomicI64::new(START_MS) }
    }

    /// Moves both the wall clock and the monotonic one.
    pub fn advance_ms(&self, ms: i64) {
        assert!(ms >= 0, "time goes forward");
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms.load(Ordering::SeqCst))
    }

    fn monotonic_ns(&self) -> u64 {
        let since_start = self.now_ms.load(Ordering::SeqCst) - START_MS;
        u64::try_from(since_start).expect("time goes forward") * 1_000_000
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        rand::fill(buffer).expect("the machine's random source");
    }
}
