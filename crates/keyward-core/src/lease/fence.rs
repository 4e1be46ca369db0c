//! The writer's side: when a change is known to every node that may still decide.

use std::collections::BTreeMap;

use super::{Epoch, Incarnation, Listed, Terms, Witness};
use crate::id::NodeId;

/// How far a change has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Nobody decides without it any more.
    Effective,
    /// Some nodes may; until this instant of the writer's clock at the latest.
    Propagating {
        /// When nobody can any more, whatever happens.
        by_ns: u64,
        /// How many of the registered ones have not said that they applied it.
        unconfirmed: usize,
    },
}

/// One change on its way to all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    epoch: Epoch,
    incarnation: Incarnation,
    /// Until when a lease from before this history may last, whose holder need not be listed.
    unsettled_until_ns: Option<u64>,
    /// Who may still decide without the change, and until when at the latest.
    waiting: BTreeMap<NodeId, u64>,
}

impl Fence {
    /// A fence for a change that was committed before `since_ns` of this process's clock.
    ///
    /// `listed` are all nodes on the register of that history, read under the change's exclusive
    /// lock or later. Those whose lease this process has seen end are not waited for. A history
    /// that began not long ago is waited for as well: see [`Witness::unsettled_until`].
    pub fn raise(
        epoch: Epoch,
        incarnation: Incarnation,
        listed: &[Listed],
        since_ns: u64,
        witness: &Witness,
        terms: Terms,
    ) -> Self {
        let unsettled_until_ns = witness.unsettled_until(incarnation, since_ns, terms);
        let mut fence = Self { epoch, incarnation, unsettled_until_ns, waiting: BTreeMap::new() };
        for node in listed {
            if node.applied < epoch && !witness.is_over(node, since_ns, terms) {
                let by_ns = since_ns.saturating_add(terms.certainly_over_ns(node.hold_ms));
                fence.waiting.insert(node.node, by_ns);
            }
        }
        fence
    }

    /// Takes in what the register shows later. A node that is gone has left, and decides no more;
    /// but a register of another history tells nothing.
    pub fn seen(&mut self, incarnation: Incarnation, listed: &[Listed]) {
        if incarnation != self.incarnation {
            return;
        }
        let epoch = self.epoch;
        self.waiting
            .retain(|node, _| listed.iter().any(|row| row.node == *node && row.applied < epoch));
    }

    /// Notes that a node has applied the change of this history, known in another way than from the
    /// register.
    pub fn confirmed(&mut self, incarnation: Incarnation, node: NodeId) {
        if incarnation == self.incarnation {
            self.waiting.remove(&node);
        }
    }

    /// The change it is for.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether no node but this one is waited for.
    pub fn awaits_only(&self, node: NodeId) -> bool {
        self.waiting.keys().all(|waiting| *waiting == node)
    }

    /// Whether a node is still waited for.
    pub fn awaits(&self, node: NodeId) -> bool {
        self.waiting.contains_key(&node)
    }

    /// How far the change has reached at this instant.
    pub fn standing(&mut self, now_ns: u64) -> Standing {
        self.waiting.retain(|_, by_ns| now_ns < *by_ns);
        self.unsettled_until_ns = self.unsettled_until_ns.filter(|until_ns| now_ns < *until_ns);
        match self.waiting.values().copied().chain(self.unsettled_until_ns).max() {
            None => Standing::Effective,
            Some(by_ns) => Standing::Propagating { by_ns, unconfirmed: self.waiting.len() },
        }
    }
}

#[cfg(test)]
mod tests;
