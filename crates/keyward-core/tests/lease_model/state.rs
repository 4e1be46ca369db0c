//! Everything at one instant, and each single thing that can happen to it.

use keyward_core::lease::{Ask, Epoch, Event, Ticket};

use crate::authority::{Acknowledgement, Authority, node_id};
use crate::process::{Doing, Effects, Fact, Flight, Process, Snapshot};
use crate::world::{
    CLOCKS, Flaw, JANITOR_CLOCK, KEYS, LEAP, Look, ORDER, TICK_NS, WRITER_CLOCK, World,
};
use crate::writer::{Janitor, Revocation, Writer};

/// A request that was sent after its key was answered as revoked. Requests change nothing, so one
/// at a time finds whatever many would.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) place: usize,
    /// `None` before it is sent: only where a flaw reads the clock that early.
    pub(crate) key: Option<usize>,
    /// What it waits for before it looks at memory.
    pub(crate) barrier: Option<Ticket>,
    pub(crate) looks: usize,
    pub(crate) until_ns: u64,
    pub(crate) clock_ns: Option<u64>,
    pub(crate) fact: Fact,
}

/// What is left of the bounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) failures: u8,
    pub(crate) hints: u8,
    pub(crate) crashes: u8,
    pub(crate) stops: u8,
    pub(crate) fills: u8,
    pub(crate) evictions: u8,
    pub(crate) aborts: u8,
    pub(crate) promotions: u8,
    pub(crate) polls: u8,
    pub(crate) leaps: u8,
    pub(crate) strict: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) now: u64,
    pub(crate) authority: Authority,
    /// A copy that may be promoted: the authority as it was at some earlier commit.
    pub(crate) standby: Option<Authority>,
    pub(crate) processes: Vec<Process>,
    pub(crate) started: u8,
    /// A renewal whose sender no longer waits for it.
    pub(crate) stray: Option<(u8, Ask)>,
    pub(crate) acknowledged: Vec<Acknowledgement>,
    /// Nodes on their way off the register.
    pub(crate) leaving: Vec<u8>,
    pub(crate) writer: Writer,
    pub(crate) janitor: Janitor,
    pub(crate) request: Option<Request>,
    pub(crate) left: Left,
    /// What went wrong.
    pub(crate) fault: Option<&'static str>,
}

pub(crate) const PROMISE: &str = "a request that was sent after the answer is accepted";

impl State {
    pub(crate) fn new(world: &World) -> Self {
        let mut authority = Authority::new();
        let mut processes = Vec::new();
        for (number, clock_ns) in (0_u8..).zip(CLOCKS).take(world.nodes) {
            processes.push(if usize::from(number) < world.settled {
                Process::settled(world, number, &mut authority, clock_ns)
            } else {
                Process::new(world, number)
            });
        }
        for row in &mut authority.rows {
            row.renewed = 0;
        }
        Self {
            now: 0,
            standby: (world.promotions > 0).then(|| authority.clone()),
            authority,
            started: u8::try_from(processes.len()).unwrap_or(u8::MAX),
            processes,
            stray: None,
            acknowledged: Vec::new(),
            leaving: Vec::new(),
            writer: Writer::new(),
            janitor: Janitor::default(),
            request: None,
            left: Left {
                failures: world.failures,
                hints: world.hints,
                crashes: world.crashes,
                stops: world.stops,
                fills: world.fills,
                evictions: world.evictions,
                aborts: world.aborts,
                promotions: world.promotions,
                polls: world.polls,
                leaps: world.leaps,
                strict: world.strict,
            },
            fault: None,
        }
    }

    /// Ticks besides those of leaps.
    pub(crate) fn elapsed(&self, world: &World) -> u64 {
        self.now - u64::from(world.leaps - self.left.leaps) * LEAP
    }

    /// The clock of a node.
    pub(crate) fn clock_ns(&self, place: usize) -> u64 {
        CLOCKS[place] + self.now * TICK_NS
    }

    pub(crate) fn writer_ns(&self) -> u64 {
        WRITER_CLOCK + self.now * TICK_NS
    }

    pub(crate) fn janitor_ns(&self) -> u64 {
        JANITOR_CLOCK + self.now * TICK_NS
    }

    /// Whether a change may take the exclusive side of the lock.
    pub(crate) fn lock_is_free(&self, world: &World) -> bool {
        let open = |process: &Process| matches!(process.doing, Doing::Asking(Flight::Open(..)));
        let shared = self.processes.iter().any(open) && !world.has(Flaw::NoLock);
        // the row of the number is locked in any case
        let exclusive = self.writer.holds_lock() && !world.has(Flaw::NumberedEarly);
        !shared && !exclusive
    }

    /// Whether a renewal may take the shared side.
    pub(crate) fn lock_is_shared(&self, world: &World) -> bool {
        let lockless = world.has(Flaw::NoLock) || world.has(Flaw::NumberedEarly);
        lockless || !self.writer.holds_lock()
    }

    fn take(&mut self, place: usize, effects: &Effects) {
        self.fault = self.fault.or(effects.fault);
        if let Some(ack) = effects.acknowledged {
            // one of the same history that is still on its way tells less
            let older =
                |it: &Acknowledgement| it.node == ack.node && it.incarnation == ack.incarnation;
            self.acknowledged.retain(|it| !older(it));
            self.acknowledged.push(ack);
            self.acknowledged.sort_unstable();
        }
        if effects.left {
            self.leaving.push(self.processes[place].number);
        }
        if let Some(Request { barrier, .. }) =
            self.request.as_mut().filter(|request| request.place == place)
        {
            let refused = barrier.is_some_and(|ticket| effects.refused >= Some(ticket));
            if barrier.is_some_and(|ticket| effects.released >= Some(ticket)) {
                *barrier = None;
            }
            if refused {
                self.request = None;
            }
        }
    }

    pub(crate) fn step(&mut self, world: &World, place: usize, event: Event) {
        let now_ns = self.clock_ns(place);
        let effects = self.processes[place].step(world, event, now_ns);
        self.take(place, &effects);
    }

    /// The authority executes an ask; a renewal that is slow commits later.
    pub(crate) fn perform(&mut self, world: &World, place: usize) {
        let Doing::Asking(Flight::Sent(ask)) = self.processes[place].doing else { return };
        if !self.authority.noticed {
            self.authority.incarnation.0 += 1;
            self.authority.noticed = true;
        }
        let answer = self.authority.read(world, ask);
        let flight = if ask.renew && world.slow_renewals {
            Flight::Open(ask, answer)
        } else {
            self.register(world, place, ask);
            Flight::Answered(ask, answer)
        };
        self.processes[place].doing = Doing::Asking(flight);
    }

    pub(crate) fn commit_renewal(&mut self, world: &World, place: usize) {
        let Doing::Asking(Flight::Open(ask, answer)) = self.processes[place].doing else { return };
        self.register(world, place, ask);
        self.processes[place].doing = Doing::Asking(Flight::Answered(ask, answer));
    }

    fn register(&mut self, world: &World, place: usize, ask: Ask) {
        if ask.renew {
            let node = self.processes[place].number;
            self.authority.register(world, node, ask, self.now);
        }
    }

    /// A renewal arrives that nobody waits for any more.
    pub(crate) fn perform_stray(&mut self, world: &World) {
        if let Some((node, ask)) = self.stray.take() {
            self.authority.register(world, node, ask, self.now);
        }
    }

    pub(crate) fn finish(&mut self, world: &World, place: usize) {
        let now_ns = self.clock_ns(place);
        let process = &mut self.processes[place];
        let effects = match process.doing {
            Doing::Applying(answer) => process.finish(world, answer, now_ns),
            Doing::Loading => {
                process.doing = Doing::Loaded(Snapshot::of(&self.authority));
                return;
            }
            Doing::Loaded(snapshot) => process.load(world, snapshot, now_ns),
            Doing::Nothing | Doing::Asking(_) => return,
        };
        self.take(place, &effects);
    }

    /// A node gives up what it does; what it sent may still arrive.
    pub(crate) fn fail(&mut self, world: &World, place: usize) {
        self.leave_stray(world, place);
        self.processes[place].doing = Doing::Nothing;
        self.step(world, place, Event::Failed);
    }

    fn leave_stray(&mut self, world: &World, place: usize) {
        let process = &mut self.processes[place];
        match process.doing {
            Doing::Asking(Flight::Answered(_, answer)) if world.has(Flaw::LateAnswer) => {
                process.late = Some(answer);
            }
            Doing::Asking(Flight::Sent(ask) | Flight::Open(ask, _)) if ask.renew => {
                self.stray = self.stray.or(Some((process.number, ask)));
            }
            _ => {}
        }
    }

    /// The answer of an ask that has failed comes while another one is under way.
    pub(crate) fn mistake(&mut self, place: usize) {
        let process = &mut self.processes[place];
        if let (Some(late), Doing::Asking(flight)) = (process.late.take(), process.doing) {
            process.doing = Doing::Asking(Flight::Answered(flight.ask(), late));
        }
    }

    /// A process ends without a word; another one takes its place.
    pub(crate) fn crash(&mut self, world: &World, place: usize) {
        self.leave_stray(world, place);
        if self.request.as_ref().is_some_and(|request| request.place == place) {
            self.request = None;
        }
        self.processes[place] = Process::new(world, self.started);
        self.started += 1;
    }

    /// A standby takes over that has not got the last commits.
    pub(crate) fn promote(&mut self, world: &World) {
        let incarnation = self.authority.incarnation;
        let Some(standby) = self.standby.take() else { return };
        if world.has(Flaw::RenewalLost) {
            self.authority.rows = standby.rows;
            return;
        }
        self.authority = standby;
        self.begin_history(world, incarnation.0);
    }

    /// A backup is restored without its register, and the log of revocations is applied again.
    pub(crate) fn restore(&mut self, world: &World) {
        self.standby = None;
        self.authority.rows.clear();
        self.begin_history(world, self.authority.incarnation.0);
    }

    fn begin_history(&mut self, world: &World, incarnation: u64) {
        self.authority.noticed = !world.has(Flaw::UnnoticedPromotion);
        self.authority.incarnation.0 = incarnation + u64::from(self.authority.noticed);
        self.writer.follow(&self.authority);
        // a request for a key whose revocation is lost is excused
        let promised = self.writer.promised;
        self.request = self.request.take().filter(|it| it.key.is_none_or(|key| promised[key]));
        for process in &mut self.processes {
            if let Doing::Asking(Flight::Open(ask, _)) = process.doing {
                process.doing = Doing::Asking(Flight::Lost(ask));
            }
        }
    }

    /// Takes an answer in.
    pub(crate) fn deliver(&mut self, world: &World, place: usize) {
        if let Doing::Asking(Flight::Answered(_, answer)) = self.processes[place].doing {
            self.step(world, place, Event::Answered(answer.reply));
        }
        let applying = matches!(self.processes[place].doing, Doing::Applying(_));
        if applying && !world.slow_applies {
            self.finish(world, place);
        }
    }

    pub(crate) fn sample(&mut self, place: usize) {
        let clock_ns = Some(self.clock_ns(place));
        self.request = Some(Request { clock_ns, ..Request::at(place) });
    }

    /// A request is sent.
    pub(crate) fn send(&mut self, world: &World, place: usize, key: usize) {
        let sampled = self.request.take().filter(|it| it.key.is_none() && it.place == place);
        let clock_ns = sampled.and_then(|request| request.clock_ns);
        self.request = Some(Request { key: Some(key), clock_ns, ..Request::at(place) });
        if world.strict > 0 {
            self.left.strict -= 1;
            let Ticket(next) = self.processes[place].protocol.next_ticket();
            let barrier = Some(Ticket(next - u64::from(world.has(Flaw::JoinedLate))));
            self.request = Some(Request { key: Some(key), barrier, ..Request::at(place) });
            self.step(world, place, Event::Wanted);
        } else {
            self.look(world);
        }
    }

    /// A request reads the next thing, and is decided with the last one.
    pub(crate) fn look(&mut self, world: &World) {
        let Some(mut request) = self.request.take() else { return };
        let process = &self.processes[request.place];
        let key = request.key.unwrap_or_default();
        if world.strict > 0 {
            if process.memory[key] == Fact::Valid {
                self.fault = Some(PROMISE);
            }
            return;
        }
        match world.order[request.looks] {
            Look::Lease => request.until_ns = process.may_until_ns(world),
            Look::Memory => request.fact = process.memory[key],
            Look::Clock => {
                let now_ns = self.clock_ns(request.place);
                request.clock_ns = Some(request.clock_ns.unwrap_or(now_ns));
            }
        }
        request.looks += 1;
        if request.looks < world.order.len() {
            self.request = Some(request);
        } else if request.fact == Fact::Valid && request.clock_ns < Some(request.until_ns) {
            self.fault = Some(PROMISE);
        }
    }

    /// Forgets what can make no difference any more.
    pub(crate) fn tidy(&mut self, world: &World) {
        if self.left.promotions == 0 && !world.has(Flaw::ForeignApplied) {
            let authority = &self.authority;
            let known = |ack: &Acknowledgement| {
                authority.row(ack.node).is_some_and(|row| row.applied >= ack.applied)
            };
            let foreign = |ack: &Acknowledgement| ack.incarnation != authority.incarnation;
            self.acknowledged.retain(|ack| !known(ack) && !foreign(ack));
        }
        if let Some(request) = &self.request
            && world.order == ORDER
            && world.strict == 0
            && !world.has(Flaw::ClockBeforeRequest)
            && (request.fact == Fact::Revoked || self.clock_ns(request.place) >= request.until_ns)
        {
            // it will be refused: the clock does not go back
            self.request = None;
        }
        if self.left.leaps == 0 && self.janitor.chosen.is_none() && world.leaps == 0 {
            self.janitor = Janitor::default();
        }
    }

    /// The change of a key in the log, where there is one.
    pub(crate) fn revoked_at(&self, key: usize) -> Option<Epoch> {
        self.authority.revocation(key)
    }

    /// Whether a node may ask or end: nodes that begin alike do so in the order of their places.
    pub(crate) fn is_in_turn(&self, world: &World, place: usize) -> bool {
        let Process { number, protocol, .. } = &self.processes[0];
        let alike = world.settled == world.nodes && !world.together;
        let begun = *number != 0 || protocol.is_stopped() || protocol.next_ticket() > Ticket(2);
        !alike || place == 0 || begun
    }

    /// Whether a node would accept a key at this instant.
    pub(crate) fn accepts(&self, world: &World, place: usize, key: usize) -> bool {
        let process = &self.processes[place];
        process.memory[key] == Fact::Valid && self.clock_ns(place) < process.may_until_ns(world)
    }

    /// Whether the node that the writer shares a process with has applied the change of a key.
    pub(crate) fn is_applied_here(&self, key: usize) -> bool {
        let Process { number, protocol, .. } = &self.processes[0];
        let same = protocol.incarnation() == Some(self.authority.incarnation);
        let applied = self.revoked_at(key).is_some_and(|epoch| protocol.applied() >= Some(epoch));
        let awaited = match &self.writer.revocations[key] {
            Revocation::Waiting(fence) => fence.awaits(node_id(*number)),
            _ => false,
        };
        same && applied && awaited
    }

    pub(crate) fn confirm(&mut self, key: usize) {
        if let Revocation::Waiting(fence) = &mut self.writer.revocations[key] {
            let history = self.authority.incarnation;
            fence.confirmed(history, node_id(self.processes[0].number));
        }
    }

    pub(crate) fn is_effective(&self, key: usize) -> bool {
        matches!(self.writer.revocations[key], Revocation::Effective(_))
    }

    pub(crate) fn keys(world: &World) -> std::ops::Range<usize> {
        0..world.keys.min(KEYS)
    }
}

impl Request {
    const fn at(place: usize) -> Self {
        Self {
            place,
            key: None,
            barrier: None,
            looks: 0,
            until_ns: 0,
            clock_ns: None,
            fact: Fact::Absent,
        }
    }
}
