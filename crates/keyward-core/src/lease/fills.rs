//! Facts read one by one, beside the stream of changes: which of two readings is the newer one.

use std::collections::BTreeMap;

use super::Epoch;
use crate::authority::Invalidation;

/// When a reading began; given back when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    generation: u64,
    applied: Epoch,
}

/// Keeps readings of single facts and the stream of changes from overwriting newer facts with older
/// ones.
///
/// A reading is put into memory only when no change after it was applied meanwhile; a change whose
/// facts were read before a single reading leaves that one's facts alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fills {
    generation: u64,
    applied: Epoch,
    /// Readings under way, by the change that was applied when they began.
    open: BTreeMap<Epoch, usize>,
    /// What was touched by changes that a reading under way may have missed.
    touched: BTreeMap<Invalidation, Epoch>,
    /// What was read as of changes that are not applied yet.
    ahead: BTreeMap<Invalidation, Epoch>,
}

impl Fills {
    /// All of memory was loaded anew as of this change: readings under way are of no use.
    pub fn reload(&mut self, applied: Epoch) {
        *self = Self { generation: self.generation + 1, applied, ..Self::default() };
    }

    /// A reading begins.
    pub fn begin(&mut self) -> Stamp {
        *self.open.entry(self.applied).or_default() += 1;
        Stamp { generation: self.generation, applied: self.applied }
    }

    /// Whether facts about these subjects, read as of the change `read`, may be put into memory
    /// now. When not, they must be read again.
    pub fn admits(&mut self, stamp: Stamp, read: Epoch, subjects: &[Invalidation]) -> bool {
        let newer = |known: Option<&Epoch>| known.is_some_and(|epoch| *epoch > read);
        let outdated = |it: &Invalidation| newer(self.touched.get(it)) || newer(self.ahead.get(it));
        if stamp.generation != self.generation || subjects.iter().any(outdated) {
            return false;
        }
        if read > self.applied {
            self.ahead.extend(subjects.iter().map(|subject| (*subject, read)));
        }
        true
    }

    /// A reading has ended, whatever came of it.
    pub fn end(&mut self, stamp: Stamp) {
        if stamp.generation != self.generation {
            return;
        }
        if let Some(open) = self.open.get_mut(&stamp.applied) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&stamp.applied);
            }
        }
        self.prune();
    }

    /// A change is applied with facts that were read as of the change `read`. Answers whether they
    /// go into memory; not when newer ones are there.
    pub fn overwrites(&mut self, subject: Invalidation, epoch: Epoch, read: Epoch) -> bool {
        if !self.open.is_empty() {
            let touched = self.touched.entry(subject).or_default();
            *touched = (*touched).max(epoch);
        }
        self.ahead.get(&subject).is_none_or(|newer| *newer <= read)
    }

    /// All changes up to this one are in memory.
    pub fn applied(&mut self, epoch: Epoch) {
        self.applied = self.applied.max(epoch);
        let applied = self.applied;
        self.ahead.retain(|_, read| *read > applied);
        self.prune();
    }

    fn prune(&mut self) {
        match self.open.keys().next().copied() {
            None => self.touched.clear(),
            Some(oldest) => self.touched.retain(|_, epoch| *epoch > oldest),
        }
    }
}

#[cfg(test)]
mod tests;
