//! Whether an address takes requests.
//!
//! Failures of requests count beside those of checks. An address that is down gets no request, only
//! checks, until enough of them succeed.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::proxy::config::HealthPolicy;

/// What is known of one address.
pub(super) struct Health {
    down: AtomicBool,
    /// Outcomes, one after the other, that speak against what it is taken for.
    against: AtomicU32,
    down_after: u32,
    up_after: u32,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Up,
    Down,
}

impl Health {
    pub(super) fn new(policy: &HealthPolicy) -> Self {
        Self {
            down: AtomicBool::new(false),
            against: AtomicU32::new(0),
            down_after: policy.down_after,
            up_after: policy.up_after,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// A request was answered. What is down is only brought back by checks.
    pub(super) fn answered(&self) {
        if self.against.load(Ordering::Relaxed) != 0 && !self.is_down() {
            self.against.store(0, Ordering::Relaxed);
        }
    }

    /// A request could not be delivered.
    pub(super) fn failed(&self) -> Option<Turn> {
        if self.is_down() { None } else { self.note(false) }
    }

    /// A check, or a request that could not be delivered.
    pub(super) fn note(&self, healthy: bool) -> Option<Turn> {
        let down = self.is_down();
        if healthy != down {
            self.against.store(0, Ordering::Relaxed);
            return None;
        }
        let against = self.against.fetch_add(1, Ordering::Relaxed) + 1;
        if against < if down { self.up_after } else { self.down_after } {
            return None;
        }
        self.against.store(0, Ordering::Relaxed);
        // of several that see the last failure at once, one turns it
        let turned = self.down.swap(!down, Ordering::Relaxed) == down;
        turned.then_some(if down { Turn::Up } else { Turn::Down })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(&HealthPolicy { down_after: 3, up_after: 2, ..HealthPolicy::default() })
    }

    #[test]
    fn failures_in_a_row_take_it_out_and_checks_in_a_row_bring_it_back() {
        let health = health();
        for outcome in [false, false, true, false, false] {
            assert_eq!(health.note(outcome), None);
        }
        assert_eq!(health.note(false), Some(Turn::Down));
        assert!(health.is_down());
        for outcome in [true, false, true] {
            assert_eq!(health.note(outcome), None);
        }
        assert_eq!(health.note(true), Some(Turn::Up));
        assert!(!health.is_down());
    }

    #[test]
    fn requests_count_while_it_is_up_and_only_checks_bring_it_back() {
        let health = health();
        assert_eq!((health.failed(), health.failed()), (None, None));
        health.answered();
        assert_eq!((health.failed(), health.failed()), (None, None));
        assert_eq!(health.failed(), Some(Turn::Down));
        assert_eq!(health.failed(), None);
        health.answered();
        assert_eq!(health.note(true), None);
        health.answered();
        assert_eq!(health.note(true), Some(Turn::Up));
    }
}
