//! Callers that keep presenting wrong keys are held back before anything is looked up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use keyward_core::ip::subscriber;

/// Wrong keys an address may present at once.
pub const FAILURE_BURST: u32 = 30;
/// Milliseconds after which one more wrong key is forgiven.
pub const FORGIVE_EVERY_MS: i64 = 2_000;
/// Addresses that are remembered; past that the one forgiven soonest gives way.
pub const MAX_CALLERS: usize = 16 * 1024;

const SHARDS: usize = 16;
const BURST_MS: i64 = FORGIVE_EVERY_MS * FAILURE_BURST as i64;
/// Entries that are looked at to find one that may go.
const EVICTION_SAMPLE: usize = 16;

/// Failures by address: the instant in milliseconds at which each is forgiven in full.
pub(crate) struct FailedCallers {
    shards: Box<[Mutex<HashMap<IpAddr, i64>>]>,
    remembered: AtomicUsize,
}

impl FailedCallers {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            remembered: AtomicUsize::new(0),
        }
    }

    /// Milliseconds for which the caller is to be held back, if it is.
    pub(crate) fn held_back_ms(&self, address: IpAddr, now_ms: i64) -> Option<i64> {
        // nobody fails on most nodes most of the time
        if self.remembered.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let address = subscriber(address);
        let forgiven_at = *self.shard(address)?.lock().get(&address)?;
        let over = forgiven_at.saturating_sub(now_ms) - BURST_MS;
        (over > 0).then_some(over)
    }

    /// Remembers a wrong key.
    pub(crate) fn failed(&self, address: IpAddr, now_ms: i64) {
        let address = subscriber(address);
        let Some(shard) = self.shard(address) else {
            return;
        };
        let mut callers = shard.lock();
        if !callers.contains_key(&address) {
            if callers.len() >= MAX_CALLERS / SHARDS {
                self.make_room(&mut callers, now_ms);
            }
            self.remembered.fetch_add(1, Ordering::Relaxed);
        }
        let forgiven_at = callers.entry(address).or_insert(now_ms);
        let from = (*forgiven_at).max(now_ms);
        *forgiven_at = (from + FORGIVE_EVERY_MS).min(now_ms + BURST_MS + FORGIVE_EVERY_MS);
    }

    fn make_room(&self, callers: &mut HashMap<IpAddr, i64>, now_ms: i64) {
        let before = callers.len();
        callers.retain(|_, forgiven_at| *forgiven_at > now_ms);
        if callers.len() == before {
            let sample = callers.iter().take(EVICTION_SAMPLE);
            let soonest = sample.min_by_key(|(_, at)| **at).map(|(ip, _)| *ip);
            if let Some(address) = soonest {
                callers.remove(&address);
            }
        }
        self.remembered.fetch_sub(before - callers.len(), Ordering::Relaxed);
    }

    fn shard(&self, address: IpAddr) -> Option<&Mutex<HashMap<IpAddr, i64>>> {
        let last = match address {
            IpAddr::V4(v4) => v4.octets().into_iter().fold(0_u8, u8::wrapping_add),
            IpAddr::V6(v6) => v6.octets().into_iter().fold(0_u8, u8::wrapping_add),
        };
        self.shards.get(usize::from(last) % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_then_failures_are_forgiven_one_by_one() {
        let callers = FailedCallers::new();
        let address = ip("203.0.113.9");
        for _ in 0..FAILURE_BURST {
            assert_eq!(callers.held_back_ms(address, 0), None);
            callers.failed(address, 0);
        }
        assert_eq!(callers.held_back_ms(address, 0), None);
        callers.failed(address, 0);
        assert_eq!(callers.held_back_ms(address, 0), Some(FORGIVE_EVERY_MS));
        assert_eq!(callers.held_back_ms(address, FORGIVE_EVERY_MS), None);
        assert_eq!(callers.held_back_ms(ip("203.0.113.10"), 0), None);
    }

    #[test]
    fn a_network_of_64_bits_is_one_caller_and_memory_is_bounded() {
        let callers = FailedCallers::new();
        for _ in 0..=FAILURE_BURST {
            callers.failed(ip("2001:db8::1"), 0);
        }
        assert!(callers.held_back_ms(ip("2001:db8::2"), 0).is_some());
        for n in 0..100_000_u32 {
            callers.failed(IpAddr::V4(n.into()), 0);
        }
        assert!(callers.remembered.load(Ordering::Relaxed) <= MAX_CALLERS);
    }
}
