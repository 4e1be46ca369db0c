//! The database that all processes share: the log of changes and the register, as committed.

use keyward_core::id::NodeId;
use keyward_core::lease::{Ask, Epoch, Incarnation, Listed, Reply};

use crate::world::{Flaw, World};

/// The name of the process that was started as the `number`th.
pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId::from_bits(u128::from(number))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) node: u8,
    pub(crate) renewals: u64,
    pub(crate) applied: Epoch,
    /// The tick of the newest renewal, where a flaw looks at it.
    pub(crate) renewed: u64,
}

/// A committed revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Change {
    pub(crate) epoch: Epoch,
    pub(crate) key: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Authority {
    pub(crate) incarnation: Incarnation,
    /// Whether every transaction sees that there is another history than before.
    pub(crate) noticed: bool,
    /// In the order of the epochs.
    pub(crate) log: Vec<Change>,
    /// In the order of the nodes.
    pub(crate) rows: Vec<Row>,
    /// The last number of the sequence that a flaw takes epochs from.
    pub(crate) sequence: u64,
}

/// What an ask found: the reply, and which keys it tells to be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// The newest change of each key, where it is after what the node had applied.
    pub(crate) revoked: [Option<Epoch>; crate::world::KEYS],
}

impl Authority {
    pub(crate) const fn new() -> Self {
        Self {
            incarnation: Incarnation::FIRST,
            noticed: true,
            log: Vec::new(),
            rows: Vec::new(),
            sequence: 0,
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.log.last().map_or(Epoch(0), |change| change.epoch)
    }

    pub(crate) fn revocation(&self, key: usize) -> Option<Epoch> {
        self.log.iter().find(|change| change.key == key).map(|change| change.epoch)
    }

    pub(crate) fn append(&mut self, change: Change) {
        self.log.push(change);
        self.log.sort_unstable();
    }

    pub(crate) fn row(&self, node: u8) -> Option<&Row> {
        self.rows.iter().find(|row| row.node == node)
    }

    /// The register as a process reads it.
    pub(crate) fn listed(&self, world: &World, now: u64) -> Vec<Listed> {
        let shown = |row: &&Row| !world.has(Flaw::SeenRecently) || row.renewed == now;
        let hold_ms = match world.flaw {
            Some(Flaw::HoldUntold) => world.terms.lease_ms,
            _ => world.terms.hold_ms(),
        };
        let listed = |row: &Row| Listed {
            node: node_id(row.node),
            applied: row.applied,
            renewals: row.renewals,
            hold_ms,
        };
        self.rows.iter().filter(shown).map(listed).collect()
    }

    /// What a node is told that has applied everything up to the epoch of its ask.
    pub(crate) fn read(&self, world: &World, ask: Ask) -> Answer {
        let epoch = self.epoch();
        let unread = || self.log.iter().filter(|change| change.epoch > ask.applied);
        let through = match unread().nth(world.page.saturating_sub(1)) {
            Some(last) => last.epoch,
            None => epoch,
        };
        let mut revoked = [None; crate::world::KEYS];
        for change in unread().filter(|change| change.epoch <= through) {
            revoked[change.key] = Some(change.epoch);
        }
        Answer { reply: Reply { incarnation: self.incarnation, epoch, through }, revoked }
    }

    /// Registers a node that renews. One of another history is told so and no more.
    pub(crate) fn register(&mut self, world: &World, node: u8, ask: Ask, now: u64) {
        if ask.incarnation != self.incarnation && !world.has(Flaw::ForeignApplied) {
            return;
        }
        let renewed = if world.has(Flaw::SeenRecently) { now } else { 0 };
        let counted = world.has(Flaw::CountFromOne);
        if let Some(row) = self.rows.iter_mut().find(|row| row.node == node) {
            // an older ask that comes late changes nothing
            if counted || row.renewals < ask.ticket.0 {
                row.renewals = if counted { row.renewals + 1 } else { ask.ticket.0 };
                row.applied = ask.applied;
                row.renewed = renewed;
            }
        } else {
            let renewals = if counted { 1 } else { ask.ticket.0 };
            self.rows.push(Row { node, renewals, applied: ask.applied, renewed });
            self.rows.sort_unstable_by_key(|row| row.node);
        }
    }

    pub(crate) fn acknowledge(&mut self, world: &World, ack: Acknowledgement) {
        if ack.incarnation != self.incarnation && !world.has(Flaw::ForeignApplied) {
            return;
        }
        if let Some(row) = self.rows.iter_mut().find(|row| row.node == ack.node) {
            row.applied = row.applied.max(ack.applied);
        }
    }

    pub(crate) fn forget(&mut self, node: u8) {
        self.rows.retain(|row| row.node != node);
    }
}

/// On its way from a node to the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Acknowledgement {
    pub(crate) node: u8,
    pub(crate) incarnation: Incarnation,
    pub(crate) applied: Epoch,
}
