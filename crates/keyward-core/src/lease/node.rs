//! The node's side: what to ask the authority, what to apply, and which lease that earns.

use super::{Epoch, Incarnation, Lease, NS_PER_MS, Terms};

/// The shortest pause after a failed ask; doubled with each failure in a row.
const FIRST_PAUSE_NS: u64 = 50 * NS_PER_MS;
/// How often the pause doubles at most.
const MAX_DOUBLINGS: u32 = 4;

/// The number of an ask. Who holds a ticket may go on once that ask, or a later one, is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A question to the authority: everything that changed after `applied`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// Its number, which never comes back: the register tells renewals apart by it.
    pub ticket: Ticket,
    /// Whether it renews: under the shared lock, with the node registered. Otherwise it only reads.
    pub renew: bool,
    /// The history that memory is a copy of. In another one `applied` means nothing, and may not be
    /// entered in the register.
    pub incarnation: Incarnation,
    /// The last change in memory.
    pub applied: Epoch,
}

/// The authority's answer, beside the facts, which only the driver looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    /// The history it speaks of.
    pub incarnation: Incarnation,
    /// The newest change there is.
    pub epoch: Epoch,
    /// The last change whose facts are in the answer; less than `epoch` when there were too many.
    pub through: Epoch,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time passed: [`NodeProtocol::wake_at_ns`] was reached.
    Tick,
    /// Somebody says that this change was committed; `None` when it is not known which.
    Heard(Option<Epoch>),
    /// Somebody waits for [`NodeProtocol::next_ticket`], read just before.
    Wanted,
    /// The ask was answered.
    Answered(Reply),
    /// The facts of the answer are in memory.
    Applied,
    /// All of memory was loaded anew, as of one snapshot.
    Loaded {
        /// The history of the snapshot.
        incarnation: Incarnation,
        /// The newest change in it.
        epoch: Epoch,
    },
    /// What was being done failed: no answer in time, or an error.
    Failed,
    /// The process is about to end.
    Stop,
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send this. The answer comes as [`Event::Answered`] or [`Event::Failed`]; one that comes
    /// after that must be dropped, for a lease would be counted from a later ask.
    Ask(Ask),
    /// Put the facts of the answer into memory, then say [`Event::Applied`].
    Apply,
    /// Load all of memory anew, then say [`Event::Loaded`] or [`Event::Failed`].
    Load,
    /// Publish this lease.
    Grant(Lease),
    /// Tell the authority what is applied. Nothing depends on its arriving; when it arrives in
    /// another history it means nothing.
    Acknowledge {
        /// The history of the change.
        incarnation: Incarnation,
        /// The last change in memory.
        applied: Epoch,
    },
    /// Let everybody go on who waits for this ticket or an earlier one.
    Release(Ticket),
    /// Turn everybody away who waits for this ticket or an earlier one. No ticket given out later
    /// is among these.
    Refuse(Ticket),
    /// Take the node off the register.
    Deregister,
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    Idle,
    Asking { renew: bool, sent_ns: u64 },
    Applying { renew: bool, sent_ns: u64, epoch: Epoch, through: Epoch },
    Loading,
    Stopped,
}

/// What a node's memory is a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Memory {
    incarnation: Incarnation,
    applied: Epoch,
}

/// A node in the protocol. One thing at a time is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeProtocol {
    terms: Terms,
    /// Spreads the nodes of a deployment in time.
    spread_ns: u64,
    memory: Option<Memory>,
    work: Work,
    /// The number of the last ask, or of the last ones that were turned away.
    asks: u64,
    /// Whether somebody waits for an ask that was not sent yet.
    wanted: bool,
    /// Whether there may be changes that were not read.
    behind: bool,
    heard: Epoch,
    renew_at_ns: u64,
    retry_at_ns: u64,
    failures: u32,
    stopping: bool,
}

impl NodeProtocol {
    /// A node with nothing in memory. `spread` is any number of its own.
    pub const fn new(terms: Terms, spread: u64) -> Self {
        Self {
            terms,
            spread_ns: spread % FIRST_PAUSE_NS,
            memory: None,
            work: Work::Idle,
            asks: 0,
            wanted: false,
            behind: false,
            heard: Epoch(0),
            renew_at_ns: 0,
            retry_at_ns: 0,
            failures: 0,
            stopping: false,
        }
    }

    /// The last change in memory; `None` while nothing in memory is known to be true.
    pub fn applied(&self) -> Option<Epoch> {
        self.memory.map(|memory| memory.applied)
    }

    /// The history that memory is a copy of.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.memory.map(|memory| memory.incarnation)
    }

    /// The ticket of the next ask: whatever was committed before now is applied with it.
    pub const fn next_ticket(&self) -> Ticket {
        Ticket(self.asks + 1)
    }

    /// Whether nothing will ever be done again.
    pub fn is_stopped(&self) -> bool {
        self.work == Work::Stopped
    }

    /// When [`Event::Tick`] is due, on the node's clock.
    pub fn wake_at_ns(&self) -> u64 {
        match self.work {
            Work::Idle if self.has_work() => self.retry_at_ns,
            Work::Idle => self.renew_at_ns.max(self.retry_at_ns),
            _ => u64::MAX,
        }
    }

    /// Whether there is something to do besides renewing in time.
    fn has_work(&self) -> bool {
        self.memory.is_none_or(|memory| self.heard > memory.applied) || self.wanted || self.behind
    }

    /// Takes an event in. `now_ns` was read from the node's clock just before: the lease that an
    /// ask earns counts from the reading with which it was sent.
    pub fn step(&mut self, event: Event, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        match (event, self.work) {
            (Event::Stop, work) => self.stop(work, &mut actions),
            (Event::Heard(epoch), _) => self.hear(epoch),
            (Event::Wanted, _) => self.want(now_ns, &mut actions),
            (Event::Answered(reply), Work::Asking { renew, sent_ns }) => {
                self.answered(reply, renew, sent_ns, &mut actions);
            }
            (Event::Applied, Work::Applying { renew, sent_ns, epoch, through }) => {
                self.applied_all(renew, sent_ns, epoch, through, &mut actions);
            }
            (Event::Loaded { incarnation, epoch }, Work::Loading) => {
                self.memory = Some(Memory { incarnation, applied: epoch });
                self.work = Work::Idle;
                self.renew_at_ns = now_ns;
                self.failures = 0;
            }
            (Event::Failed, Work::Asking { .. } | Work::Loading) => {
                self.failed(now_ns, &mut actions);
            }
            // a tick only looks whether something is due; the rest came too late to matter
            (
                Event::Tick
                | Event::Answered(_)
                | Event::Applied
                | Event::Loaded { .. }
                | Event::Failed,
                _,
            ) => {}
        }
        self.proceed(now_ns, &mut actions);
        actions
    }

    fn stop(&mut self, work: Work, actions: &mut Vec<Action>) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        actions.push(Action::Grant(Lease::OVER));
        self.refuse(actions);
        // an ask under way could register the node again behind the deregistration
        if !matches!(work, Work::Asking { renew: true, .. }) {
            self.work = Work::Stopped;
            actions.push(Action::Deregister);
        }
    }

    fn hear(&mut self, epoch: Option<Epoch>) {
        match epoch {
            Some(epoch) => self.heard = self.heard.max(epoch),
            None => self.behind = true,
        }
    }

    fn want(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let pausing = self.work == Work::Idle && now_ns < self.retry_at_ns;
        let nothing_to_read = self.work == Work::Loading || self.memory.is_none();
        if self.stopping || pausing || nothing_to_read {
            self.refuse(actions);
        } else {
            self.wanted = true;
        }
    }

    fn answered(&mut self, reply: Reply, renew: bool, sent_ns: u64, actions: &mut Vec<Action>) {
        if self.stopping {
            self.work = Work::Stopped;
            actions.push(Action::Deregister);
            return;
        }
        let same_history = self.memory.is_some_and(|memory| {
            memory.incarnation == reply.incarnation && memory.applied <= reply.epoch
        });
        if !same_history {
            self.forget(actions);
            return;
        }
        self.work = Work::Applying { renew, sent_ns, epoch: reply.epoch, through: reply.through };
        actions.push(Action::Apply);
    }

    /// What is in memory may be of another history: nothing is decided with it any more.
    fn forget(&mut self, actions: &mut Vec<Action>) {
        self.memory = None;
        self.heard = Epoch(0);
        self.work = Work::Idle;
        actions.push(Action::Grant(Lease::OVER));
        self.refuse(actions);
    }

    fn applied_all(
        &mut self,
        renew: bool,
        sent_ns: u64,
        epoch: Epoch,
        through: Epoch,
        actions: &mut Vec<Action>,
    ) {
        self.work = Work::Idle;
        self.failures = 0;
        let Some(memory) = &mut self.memory else { return };
        if through > memory.applied {
            memory.applied = through;
            let incarnation = memory.incarnation;
            actions.push(Action::Acknowledge { incarnation, applied: through });
        }
        if through < epoch {
            self.behind = true;
            return;
        }
        if renew {
            self.renew_at_ns = sent_ns.saturating_add(self.terms.renew_every_ns());
            actions.push(Action::Grant(self.terms.lease(sent_ns)));
        }
        actions.push(Action::Release(Ticket(self.asks)));
    }

    fn failed(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.stopping {
            self.work = Work::Stopped;
            actions.push(Action::Deregister);
            return;
        }
        // what the ask was to find out is still not known
        self.behind |= matches!(self.work, Work::Asking { .. });
        self.work = Work::Idle;
        let pause_ns = FIRST_PAUSE_NS << self.failures.min(MAX_DOUBLINGS);
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ns = now_ns.saturating_add(pause_ns).saturating_add(self.spread_ns);
        // those who came since the ask was sent would only wait for the end of the pause
        self.wanted = false;
        self.refuse(actions);
    }

    /// Turns everybody away who waits. Who comes later gets a later ticket, else they would be
    /// turned away with these.
    fn refuse(&mut self, actions: &mut Vec<Action>) {
        self.asks += 1;
        actions.push(Action::Refuse(Ticket(self.asks)));
    }

    /// Begins what is due.
    fn proceed(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.work != Work::Idle || self.stopping || now_ns < self.retry_at_ns {
            return;
        }
        let Some(memory) = self.memory else {
            self.work = Work::Loading;
            actions.push(Action::Load);
            return;
        };
        let renew = now_ns >= self.renew_at_ns;
        if !(renew || self.has_work()) {
            return;
        }
        self.wanted = false;
        self.behind = false;
        // the answer tells what there is; a hint of another history would be chased for ever
        self.heard = Epoch(0);
        self.asks += 1;
        self.work = Work::Asking { renew, sent_ns: now_ns };
        let Memory { incarnation, applied } = memory;
        actions.push(Action::Ask(Ask { ticket: Ticket(self.asks), renew, incarnation, applied }));
    }
}

#[cfg(test)]
mod tests;
