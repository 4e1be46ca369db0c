//! The process that revokes, one that others ask how far a change has reached, and the janitor.

use keyward_core::lease::{Epoch, Fence, Incarnation, Listed, Standing, Witness};

use crate::authority::{Authority, Change};
use crate::world::{Flaw, KEYS, World};

/// A revocation on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Revocation {
    /// Not begun.
    Wanted,
    /// Numbered, the nodes listed, and not committed.
    Open { epoch: Epoch, incarnation: Incarnation, listed: Vec<Listed> },
    /// Committed; the process does not know yet.
    Committed { epoch: Epoch, incarnation: Incarnation, listed: Vec<Listed> },
    /// The process waits until it is effective.
    Waiting(Fence),
    /// Answered as effective.
    Effective(Fence),
    /// Rolled back.
    Undone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) revocations: [Revocation; KEYS],
    pub(crate) witness: Witness,
    /// An instant from before the register was read, where a flaw takes it.
    pub(crate) early_ns: Option<u64>,
    /// Which keys were answered as revoked on every node.
    pub(crate) promised: [bool; KEYS],
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            revocations: std::array::from_fn(|_| Revocation::Wanted),
            witness: Witness::default(),
            early_ns: None,
            promised: [false; KEYS],
        }
    }

    pub(crate) fn holds_lock(&self) -> bool {
        self.revocations.iter().any(|it| matches!(it, Revocation::Open { .. }))
    }

    /// Takes the number of a change and the list of nodes, as the last statements of a transaction.
    pub(crate) fn begin(&mut self, world: &World, authority: &mut Authority, key: usize, now: u64) {
        let numbered_early = world.has(Flaw::NumberedEarly);
        authority.sequence += u64::from(numbered_early);
        let epoch = if numbered_early { authority.sequence } else { authority.epoch().0 + 1 };
        let listed = if numbered_early { Vec::new() } else { authority.listed(world, now) };
        let (epoch, incarnation) = (Epoch(epoch), authority.incarnation);
        self.revocations[key] = Revocation::Open { epoch, incarnation, listed };
    }

    pub(crate) fn commit(
        &mut self,
        world: &World,
        authority: &mut Authority,
        key: usize,
        now: u64,
    ) {
        let Revocation::Open { epoch, incarnation, listed } = &self.revocations[key] else {
            return;
        };
        let (epoch, incarnation) = (*epoch, *incarnation);
        let numbered_early = world.has(Flaw::NumberedEarly);
        let listed = if numbered_early { authority.listed(world, now) } else { listed.clone() };
        authority.append(Change { epoch, key });
        self.revocations[key] = Revocation::Committed { epoch, incarnation, listed };
    }

    pub(crate) fn raise(&mut self, world: &World, key: usize, now_ns: u64) {
        let Revocation::Committed { epoch, incarnation, listed } = &self.revocations[key] else {
            return;
        };
        if world.has(Flaw::NotSettled) && self.witness == Witness::default() {
            self.witness.observe(*incarnation, &[], 0);
        }
        let fence = Fence::raise(*epoch, *incarnation, listed, now_ns, &self.witness, world.terms);
        self.revocations[key] = Revocation::Waiting(fence);
    }

    /// Reads the register for all that waits.
    pub(crate) fn look(&mut self, world: &World, authority: &Authority, now: u64, now_ns: u64) {
        let listed = authority.listed(world, now);
        let read_ns = self.early_ns.take().unwrap_or(now_ns);
        if world.has(Flaw::NotSettled) {
            self.witness.observe(authority.incarnation, &[], 0);
        }
        if world.watches {
            self.witness.observe(authority.incarnation, &listed, read_ns);
        }
        for revocation in &mut self.revocations {
            if let Revocation::Waiting(fence) | Revocation::Effective(fence) = revocation {
                if world.has(Flaw::VanishedHaveLeft) {
                    // whatever history the register belongs to
                    for incarnation in 1..=authority.incarnation.0 {
                        fence.seen(Incarnation(incarnation), &listed);
                    }
                } else {
                    fence.seen(authority.incarnation, &listed);
                }
            }
        }
    }

    /// Another process, which knows nothing, is asked how far a change has reached.
    pub(crate) fn ask_another(
        &mut self,
        world: &World,
        authority: &Authority,
        key: usize,
        now: u64,
        now_ns: u64,
    ) {
        let Some(epoch) = authority.revocation(key) else { return };
        self.witness = Witness::default();
        let (incarnation, listed) = (authority.incarnation, authority.listed(world, now));
        self.revocations[key] = Revocation::Committed { epoch, incarnation, listed };
        self.raise(world, key, now_ns);
    }

    /// Whether a revocation can be answered as effective.
    pub(crate) fn is_over(&self, key: usize, now_ns: u64) -> bool {
        match &self.revocations[key] {
            Revocation::Waiting(fence) => fence.clone().standing(now_ns) == Standing::Effective,
            _ => false,
        }
    }

    /// Answers. What a promotion has lost is not promised.
    pub(crate) fn answer(&mut self, authority: &Authority, key: usize, now_ns: u64) {
        let Revocation::Waiting(fence) = &mut self.revocations[key] else { return };
        fence.standing(now_ns);
        let fence = fence.clone();
        self.revocations[key] = Revocation::Effective(fence);
        self.promised[key] = authority.revocation(key).is_some();
    }

    /// The authority is now what it was before, or a copy of it.
    pub(crate) fn follow(&mut self, authority: &Authority) {
        for key in 0..KEYS {
            if authority.revocation(key).is_none() {
                self.revocations[key] = Revocation::Wanted;
                self.promised[key] = false;
            }
        }
    }
}

/// Takes rows off the register that were silent for long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Janitor {
    pub(crate) witness: Witness,
    /// What it is about to delete: a node, and the renewals that it showed.
    pub(crate) chosen: Option<(u8, u64)>,
}

impl Janitor {
    pub(crate) fn look(&mut self, world: &World, authority: &Authority, now: u64, now_ns: u64) {
        let listed = authority.listed(world, now);
        self.witness.observe(authority.incarnation, &listed, now_ns);
        let silent = |row: &&Listed| self.witness.may_forget(row, now_ns, world.terms);
        let chosen = listed.iter().find(silent);
        self.chosen = chosen.and_then(|row| {
            let node = u8::try_from(row.node.bits()).ok()?;
            Some((node, row.renewals))
        });
    }

    pub(crate) fn delete(&mut self, world: &World, authority: &mut Authority) {
        let Some((node, renewals)) = self.chosen.take() else { return };
        let unseen = authority.row(node).is_some_and(|row| row.renewals != renewals);
        if !unseen || world.has(Flaw::ForgetUnseen) {
            authority.forget(node);
        }
    }
}
