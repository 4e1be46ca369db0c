//! A machine: its clock, and whether it takes any steps.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use keyward_core::clock::Clock;
use keyward_core::time::Timestamp;

use crate::chance::{Chance, now_ns, pass};

const START_MS: i64 = 1_800_000_000_000;

/// A clock with an offset and a rate of its own; a frozen one shows the same for ever.
pub(crate) struct HostClock {
    hand: Mutex<Hand>,
    random: Mutex<Chance>,
    wall_ms: i64,
}

struct Hand {
    since_ns: u64,
    shown_ns: u64,
    rate_ppm: i64,
}

impl Hand {
    fn shown_at(&self, now_ns: u64) -> u64 {
        let passed = i128::from(now_ns.saturating_sub(self.since_ns));
        let shown = passed * i128::from(1_000_000 + self.rate_ppm) / 1_000_000;
        self.shown_ns + u64::try_from(shown).unwrap()
    }
}

impl HostClock {
    pub(crate) fn new(mut chance: Chance, rate_ppm: i64) -> Self {
        let shown_ns = chance.below(1 << 50);
        let wall_ms = START_MS + i64::try_from(chance.below(600_000)).unwrap();
        let hand = Hand { since_ns: 0, shown_ns, rate_ppm };
        Self { hand: Mutex::new(hand), random: Mutex::new(chance), wall_ms }
    }

    /// From this instant on the clock runs faster or slower; at a million less it stands still.
    pub(crate) fn set_rate(&self, now_ns: u64, rate_ppm: i64) {
        let mut hand = self.hand.lock();
        let shown_ns = hand.shown_at(now_ns);
        *hand = Hand { since_ns: now_ns, shown_ns, rate_ppm };
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let ms = i64::try_from(self.monotonic_ns() / 1_000_000).unwrap();
        Timestamp::from_millis(self.wall_ms + ms)
    }

    fn monotonic_ns(&self) -> u64 {
        self.hand.lock().shown_at(now_ns())
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        let mut random = self.random.lock();
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_be_bytes()[..chunk.len()]);
        }
    }
}

/// Closed while a machine is paused: nothing behind it goes on, while time does.
#[derive(Default)]
pub(crate) struct Gate(AtomicBool);

impl Gate {
    pub(crate) fn set(&self, closed: bool) {
        self.0.store(closed, Ordering::SeqCst);
    }

    pub(crate) async fn open(&self) {
        while self.0.load(Ordering::SeqCst) {
            pass(1).await;
        }
    }
}
