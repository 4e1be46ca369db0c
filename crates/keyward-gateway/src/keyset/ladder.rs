//! Steps of doubling length: nothing that stands on one ever moves, so it is read without a lock.

use std::sync::OnceLock;

/// Positions of the first step: few enough for an empty node.
const FIRST: usize = 64;
/// Steps that together hold every position but the last 64.
const STEPS: usize = 26;

/// The step of a position, and where on it.
pub(super) const fn place(position: u32) -> (usize, usize) {
    let from_first = (position as usize).saturating_add(FIRST);
    let step = from_first.ilog2() - FIRST.ilog2();
    (step as usize, from_first - (FIRST << step))
}

/// How many positions a step has.
pub(super) const fn len_of(step: usize) -> usize {
    FIRST << step
}

/// Values by position, each step made when the first of its positions is needed.
pub(super) struct Ladder<T> {
    steps: [OnceLock<Box<[T]>>; STEPS],
}

impl<T> Default for Ladder<T> {
    fn default() -> Self {
        Self { steps: [const { OnceLock::new() }; STEPS] }
    }
}

impl<T: Default> Ladder<T> {
    /// What stands at a position, if its step was made.
    pub(super) fn get(&self, position: u32) -> Option<&T> {
        let (step, at) = place(position);
        self.steps.get(step)?.get()?.get(at)
    }

    /// What stands at a position; `None` past the last one.
    pub(super) fn make(&self, position: u32) -> Option<&T> {
        let (step, at) = place(position);
        let made = || (0..len_of(step)).map(|_| T::default()).collect();
        self.steps.get(step)?.get_or_init(made).get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_each_other_step_by_step() {
        let mut expected = (0, 0);
        for position in 0..100_000 {
            assert_eq!(place(position), expected, "{position}");
            expected.1 += 1;
            if expected.1 == len_of(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        let (step, at) = place(u32::MAX - 64);
        assert_eq!((step, at), (STEPS - 1, len_of(STEPS - 1) - 1));
        assert_eq!(place(u32::MAX), (STEPS, 63));
    }

    #[test]
    fn what_stands_there_stays() {
        let ladder = Ladder::<OnceLock<u32>>::default();
        assert!(ladder.get(70).is_none());
        let first = ladder.make(70).unwrap();
        first.set(7).unwrap();
        for position in 0..10_000 {
            assert!(ladder.make(position).is_some());
        }
        assert!(std::ptr::eq(first, ladder.get(70).unwrap()));
        assert_eq!(ladder.get(70).unwrap().get(), Some(&7));
        assert!(ladder.make(u32::MAX).is_none());
    }
}
