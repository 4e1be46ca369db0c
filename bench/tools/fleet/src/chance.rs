//! Randomness from a seed, so that a run can be begun again with the same choices.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source that several tasks may share (`SplitMix64`).
pub(crate) struct Chance(AtomicU64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A source of its own for a purpose.
    pub(crate) fn fork(&self, purpose: u64) -> Self {
        Self::new(self.next() ^ purpose.wrapping_mul(STEP))
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, 0 when there is none.
    pub(crate) fn below(&self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next().checked_rem(end).unwrap_or(0)).unwrap_or(0)
    }

    /// A number of these, both included.
    pub(crate) fn between(&self, least: usize, most: usize) -> usize {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// A span between two, short ones as likely as long ones by orders of magnitude.
    pub(crate) fn span(&self, least: Duration, most: Duration) -> Duration {
        let share = f64::from(u32::try_from(self.next() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        let ratio = most.as_secs_f64() / least.as_secs_f64();
        Duration::from_secs_f64(least.as_secs_f64() * ratio.powf(share)).min(most)
    }
}
