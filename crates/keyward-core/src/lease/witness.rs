//! What one process has seen of the others' renewals, on its own clock.

use std::collections::BTreeMap;

use super::{Listed, Terms};
use crate::id::NodeId;

/// How many of its own lease times a node must have been silent before it is forgotten.
const FORGET_AFTER: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sight {
    renewals: u64,
    since_ns: u64,
}

/// Since when each node's newest renewal is known.
///
/// A lease counts from before its renewal was sent, and this process saw the renewal later than
/// that. So once the lease time has passed here since then, the lease is over there, unless there was
/// another renewal, which has read every change that was committed before it.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    sights: BTreeMap<NodeId, Sight>,
}

impl Witness {
    /// Takes the register in. `now_ns` was read after the register was.
    pub fn observe(&mut self, listed: &[Listed], now_ns: u64) {
        let mut sights = BTreeMap::new();
        for node in listed {
            let known = self.sights.get(&node.node).copied();
            let unchanged = known.filter(|sight| sight.renewals == node.renewals);
            let sight = unchanged.unwrap_or(Sight { renewals: node.renewals, since_ns: now_ns });
            sights.insert(node.node, sight);
        }
        self.sights = sights;
    }

    /// Whether the lease that a node got with the renewal shown here is certainly over.
    pub fn is_over(&self, node: &Listed, now_ns: u64, terms: Terms) -> bool {
        self.silent_ns(node, now_ns)
            .is_some_and(|silent| silent >= terms.certainly_over_ns(node.hold_ms))
    }

    /// Whether a node has been silent for so long that it can be taken off the register.
    pub fn may_forget(&self, node: &Listed, now_ns: u64, terms: Terms) -> bool {
        let over_ns = terms.certainly_over_ns(node.hold_ms).saturating_mul(FORGET_AFTER);
        self.silent_ns(node, now_ns).is_some_and(|silent| silent >= over_ns)
    }

    fn silent_ns(&self, node: &Listed, now_ns: u64) -> Option<u64> {
        let sight = self.sights.get(&node.node).filter(|it| it.renewals == node.renewals)?;
        Some(now_ns.saturating_sub(sight.since_ns))
    }
}
