//! What one process has seen of the others' renewals, on its own clock.

use std::collections::BTreeMap;

use super::{Incarnation, Listed, Terms};
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
/// that. So once the lease time has passed here since then, the lease is over there, unless there
/// was another renewal, which has read every change that was committed before it.
///
/// It also knows since when there is the history that the register shows. The register of a standby
/// that was promoted may lack nodes, or their newest renewals; but whatever lease came from the
/// history before is over once the lease time has passed since the new one was first seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Witness {
    entered: Option<(Incarnation, u64)>,
    sights: BTreeMap<NodeId, Sight>,
}

impl Witness {
    /// Takes the register of a history in. `now_ns` was read after the register was.
    pub fn observe(&mut self, incarnation: Incarnation, listed: &[Listed], now_ns: u64) {
        if self.entered.is_none_or(|(known, _)| known != incarnation) {
            self.entered = Some((incarnation, now_ns));
            self.sights.clear();
        }
        let mut sights = BTreeMap::new();
        for node in listed {
            let known = self.sights.get(&node.node).copied();
            let unchanged = known.filter(|sight| sight.renewals == node.renewals);
            let sight = unchanged.unwrap_or(Sight { renewals: node.renewals, since_ns: now_ns });
            sights.insert(node.node, sight);
        }
        self.sights = sights;
    }

    /// Until when there may be leases from before this history, which its register need not show;
    /// `None` when there are none. The first history of a deployment has none before it.
    pub fn unsettled_until(
        &self,
        incarnation: Incarnation,
        now_ns: u64,
        terms: Terms,
    ) -> Option<u64> {
        if incarnation <= Incarnation::FIRST {
            return None;
        }
        let entered = self.entered.filter(|(known, _)| *known == incarnation);
        let since_ns = entered.map_or(now_ns, |(_, since_ns)| since_ns);
        let until_ns = since_ns.saturating_add(terms.certainly_over_ns(terms.hold_ms()));
        Some(until_ns).filter(|until_ns| now_ns < *until_ns)
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

#[cfg(test)]
mod tests;
