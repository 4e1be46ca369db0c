//! A node: the real protocol and the real record of fills, and what drives them.

use keyward_core::authority::Invalidation;
use keyward_core::id::{KeyId, TenantId};
use keyward_core::lease::{
    Action, Ask, Epoch, Event, Fills, Incarnation, Lease, NodeProtocol, Stamp, Ticket,
};

use crate::authority::{Acknowledgement, Answer, Authority};
use crate::world::{Flaw, KEYS, TICK_NS, World};

/// What is in memory about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    /// Nothing; it must be read first.
    Absent,
    Valid,
    Revoked,
}

/// The ask under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flight {
    /// Sent; not yet at the authority.
    Sent(Ask),
    /// The renewal has read under its lock, and is not committed.
    Open(Ask, Answer),
    /// Answered; the answer is on its way.
    Answered(Ask, Answer),
    /// No answer will come.
    Lost(Ask),
}

impl Flight {
    pub(crate) const fn ask(self) -> Ask {
        match self {
            Self::Sent(ask) | Self::Open(ask, _) | Self::Answered(ask, _) | Self::Lost(ask) => ask,
        }
    }
}

/// What a node is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    Nothing,
    Asking(Flight),
    /// The answer is taken in; its facts are in memory, or are about to be.
    Applying(Answer),
    Loading,
    Loaded(Snapshot),
}

/// Everything the authority says at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Snapshot {
    pub(crate) incarnation: Incarnation,
    pub(crate) epoch: Epoch,
    pub(crate) facts: [Fact; KEYS],
}

impl Snapshot {
    pub(crate) fn of(authority: &Authority) -> Self {
        let fact = |key| match authority.revocation(key) {
            Some(_) => Fact::Revoked,
            None => Fact::Valid,
        };
        let (incarnation, epoch) = (authority.incarnation, authority.epoch());
        Self { incarnation, epoch, facts: std::array::from_fn(fact) }
    }
}

/// A reading of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fill {
    pub(crate) key: usize,
    pub(crate) stamp: Stamp,
    pub(crate) found: Option<(Epoch, Fact)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) number: u8,
    pub(crate) protocol: NodeProtocol,
    pub(crate) fills: Fills,
    pub(crate) memory: [Fact; KEYS],
    pub(crate) lease: Lease,
    /// The newest change that the renewal behind the lease has found.
    pub(crate) granted: Epoch,
    pub(crate) doing: Doing,
    /// An answer that came too late, where a flaw keeps it.
    pub(crate) late: Option<Answer>,
    pub(crate) filling: Vec<Fill>,
}

/// What a step of a node does to the others.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) acknowledged: Option<Acknowledgement>,
    pub(crate) left: bool,
    pub(crate) released: Option<Ticket>,
    pub(crate) refused: Option<Ticket>,
    pub(crate) fault: Option<&'static str>,
}

pub(crate) fn subject(key: usize) -> Invalidation {
    Invalidation::Key(TenantId::from_bits(1), KeyId::from_bits(key as u128))
}

impl Process {
    pub(crate) fn new(world: &World, number: u8) -> Self {
        Self {
            number,
            protocol: NodeProtocol::new(world.terms, 0),
            fills: Fills::default(),
            memory: [Fact::Absent; KEYS],
            lease: Lease::OVER,
            granted: Epoch(0),
            doing: Doing::Nothing,
            late: None,
            filling: Vec::new(),
        }
    }

    /// Takes an event in and carries out what the protocol says.
    pub(crate) fn step(&mut self, world: &World, event: Event, now_ns: u64) -> Effects {
        let before = (self.protocol.incarnation(), self.protocol.applied());
        let mut effects = Effects::default();
        for action in self.protocol.step(event, now_ns) {
            self.act(world, action, now_ns, &mut effects);
        }
        let after = (self.protocol.incarnation(), self.protocol.applied());
        if before.0 == after.0 && after.1 < before.1 {
            effects.fault = Some("applied went back");
        }
        effects
    }

    fn act(&mut self, world: &World, action: Action, now_ns: u64, effects: &mut Effects) {
        match action {
            Action::Ask(ask) => self.doing = Doing::Asking(Flight::Sent(ask)),
            Action::Load => self.doing = Doing::Loading,
            Action::Apply => self.take_answer(world, effects),
            Action::Grant(Lease::OVER) if world.has(Flaw::LeftBeforeOver) => {}
            Action::Grant(Lease::OVER) => self.lease = Lease::OVER,
            Action::Grant(lease) => {
                let late = world.has(Flaw::LeaseFromAnswer);
                self.lease = if late { world.terms.lease(now_ns) } else { lease };
            }
            Action::Acknowledge { incarnation, applied } => {
                let node = self.number;
                effects.acknowledged = Some(Acknowledgement { node, incarnation, applied });
            }
            Action::Release(ticket) => effects.released = Some(ticket),
            Action::Refuse(ticket) => effects.refused = Some(ticket),
            Action::Deregister => {
                effects.left = true;
                self.doing = Doing::Nothing;
            }
        }
    }

    fn take_answer(&mut self, world: &World, effects: &mut Effects) {
        let Doing::Asking(Flight::Answered(_, answer)) = self.doing else {
            effects.fault = Some("told to apply what was not answered");
            return;
        };
        self.doing = Doing::Applying(answer);
        if world.has(Flaw::AcknowledgedEarly) {
            let Answer { reply, .. } = answer;
            effects.acknowledged = Some(Acknowledgement {
                node: self.number,
                incarnation: reply.incarnation,
                applied: reply.through,
            });
        } else {
            self.put(answer);
        }
    }

    /// Puts the facts of an answer into memory, but where newer ones are there.
    fn put(&mut self, Answer { reply, revoked }: Answer) {
        for (key, epoch) in revoked.iter().enumerate() {
            let Some(epoch) = *epoch else { continue };
            if self.fills.overwrites(subject(key), epoch, reply.epoch) {
                self.memory[key] = Fact::Revoked;
            }
        }
    }

    /// All facts of the answer are in memory.
    pub(crate) fn finish(&mut self, world: &World, answer: Answer, now_ns: u64) -> Effects {
        if world.has(Flaw::AcknowledgedEarly) {
            self.put(answer);
        }
        self.doing = Doing::Nothing;
        self.fills.applied(answer.reply.through);
        let had = self.lease;
        let effects = self.step(world, Event::Applied, now_ns);
        if self.lease != had {
            self.granted = answer.reply.epoch;
        }
        effects
    }

    /// All of memory is loaded anew.
    pub(crate) fn load(&mut self, world: &World, snapshot: Snapshot, now_ns: u64) -> Effects {
        let Snapshot { incarnation, epoch, facts } = snapshot;
        self.memory = if world.loads_facts { facts } else { [Fact::Absent; KEYS] };
        self.fills.reload(epoch);
        self.doing = Doing::Nothing;
        self.step(world, Event::Loaded { incarnation, epoch }, now_ns)
    }

    pub(crate) fn begin_fill(&mut self, key: usize) {
        let stamp = self.fills.begin();
        self.filling.push(Fill { key, stamp, found: None });
    }

    /// Ends a reading. Answers whether its facts went into memory.
    pub(crate) fn end_fill(&mut self, world: &World, place: usize) -> bool {
        let Fill { key, stamp, found } = self.filling.remove(place);
        let Some((read, fact)) = found else { return false };
        let admitted = self.fills.admits(stamp, read, &[subject(key)]);
        if admitted || world.has(Flaw::NoStamp) {
            self.memory[key] = fact;
        }
        self.fills.end(stamp);
        admitted
    }

    /// Until when this node may decide with what it has.
    pub(crate) fn may_until_ns(&self, world: &World) -> u64 {
        if world.stale { self.lease.stale_until_ns } else { self.lease.until_ns }
    }

    /// A node that was loaded and has renewed once, at the first instant.
    pub(crate) fn settled(
        world: &World,
        number: u8,
        authority: &mut Authority,
        now_ns: u64,
    ) -> Self {
        let mut process = Self::new(world, number);
        process.step(world, Event::Tick, now_ns);
        process.load(world, Snapshot::of(authority), now_ns);
        if let Doing::Asking(flight) = process.doing {
            let ask = flight.ask();
            authority.register(world, number, ask, now_ns / TICK_NS);
            let answer = authority.read(world, ask);
            process.doing = Doing::Asking(Flight::Answered(ask, answer));
            process.step(world, Event::Answered(answer.reply), now_ns);
            process.finish(world, answer, now_ns);
        }
        process
    }
}
