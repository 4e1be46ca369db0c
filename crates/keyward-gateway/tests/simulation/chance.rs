//! Randomness with a seed, and time to wait in.

use std::time::Duration;

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A sequence of its own.
    pub(crate) const fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }

    pub(crate) const fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// Milliseconds that are few as a rule and many now and then.
    pub(crate) const fn delay_ms(&mut self, seldom: u64, most: u64) -> u64 {
        if self.one_in(seldom) { self.between(most / 4, most) } else { self.below(4) }
    }
}

/// Lets simulated time pass.
pub(crate) async fn pass(ms: u64) {
    if ms > 0 {
        let never = std::future::pending::<()>();
        let _ = tokio::time::timeout(Duration::from_millis(ms), never).await;
    }
}

/// Milliseconds since the simulation began, for a host of it.
pub(crate) fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

pub(crate) fn now_ns() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap()
}
