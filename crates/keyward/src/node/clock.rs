//! The clock and randomness of the machine.

use aws_lc_rs::rand;
use keyward_core::{Clock, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Reads the machine's clocks and its random source.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let time = clock_gettime(ClockId::Realtime);
        Timestamp::from_millis(time.tv_sec * 1_000 + time.tv_nsec / 1_000_000)
    }

    fn monotonic_ns(&self) -> u64 {
        // counts suspended time too, unlike the standard library's instants
        let time = clock_gettime(ClockId::Boottime);
        u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or_default()
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        // the source aborts the process rather than hand out weak bytes; an error is not possible
        // once it is seeded, and a zeroed secret must never leave this function
        if rand::fill(buffer).is_err() {
            std::process::abort();
        }
    }
}
