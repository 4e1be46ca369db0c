//! Whether an address takes requests.
//!
//! Failures of requests count beside those of checks. An address that is down gets no request, only
//! checks, until enough of them succeed.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::proxy::config::HealthPolicy;

/// What is known of one address.
pub(super) struct Health {
    down: AtomicBool,
    /// Checks, one after the other, that speak against what it is taken for.
    against: AtomicU32,
    /// Requests, one after the other, that could not be delivered.
    undelivered: AtomicU32,
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
            undelivered: AtomicU32::new(0),
            down_after: policy.down_after,
            up_after: policy.up_after,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// A request was answered. That speaks against no check: an address that says it is ill may
    /// still answer, and what is down is only brought back by checks.
    pub(super) fn answered(&self) {
        if self.undelivered.load(Ordering::Relaxed) != 0 {
            self.undelivered.store(0, Ordering::Relaxed);
        }
    }

    /// A request could not be delivered.
    pub(super) fn failed(&self) -> Option<Turn> {
        if self.is_down() {
            return None;
        }
        let undelivered = self.undelivered.fetch_add(1, Ordering::Relaxed) + 1;
        if undelivered < self.down_after { None } else { self.turn(Turn::Down) }
    }

    /// A check.
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
        self.turn(if down { Turn::Up } else { Turn::Down })
    }

    /// Of several that see the last outcome at once, one turns it.
    fn turn(&self, turn: Turn) -> Option<Turn> {
        self.against.store(0, Ordering::Relaxed);
        self.undelivered.store(0, Ordering::Relaxed);
        let down = turn == Turn::Down;
        (self.down.swap(down, Ordering::Relaxed) != down).then_some(turn)
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
    #[test]
    fn answers_do_not_speak_for_an_address_that_says_it_is_ill() {
        let health = health();
        for _ in 0..2 {
            assert_eq!(health.note(false), None);
            health.answered();
        }
        assert_eq!(health.note(false), Some(Turn::Down));
    }
}
