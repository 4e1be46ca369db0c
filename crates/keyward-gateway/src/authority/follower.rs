//! The task that keeps a node's memory true, and those who wait for it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use keyward_core::authority::{Answered, Wanted};
use keyward_core::clock::Clock;
use keyward_core::error::Error;
use keyward_core::id::NodeId;
use keyward_core::lease::{
    Action, Ask, Epoch, Event, Incarnation, Lease, Listed, NodeProtocol, Roster, Terms, Ticket,
    Witness,
};

use super::fill::Fill;
use super::memory::Memory;
use super::metrics::{Counts, FollowerMetrics, count};
use super::{Authority, Away, LeaseCell, Membership, unavailable};
use crate::admin_tokens::AdminTokens;
use crate::keyset::KeySet;

/// The longest time an ask may take; two of them fit into a lease.
const ASK_TIMEOUT: Duration = Duration::from_millis(900);
/// The longest time of a call whose outcome nothing waits for.
const NOTE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time between two pages of a load.
const PAGE_TIMEOUT: Duration = Duration::from_secs(15);
/// Pages of a load that wait to be put into memory.
const PAGES_AHEAD: usize = 2;
/// How often revocations that were lost are entered again, and the pause between two attempts.
const REVOKE_ATTEMPTS: u32 = 100;
const REVOKE_PAUSE: Duration = Duration::from_secs(3);
/// The longest sleep of the timer; a clock that jumped is noticed after it.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// What a node follows the authority with.
pub struct Following {
    /// The primary.
    pub authority: Arc<dyn Authority>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The times of leases.
    pub terms: Terms,
    /// Which node this is.
    pub membership: Membership,
}

/// Keeps what a node knows true, and says until when it may decide with it.
pub struct Follower {
    pub(super) following: Following,
    pub(super) memory: Arc<Memory>,
    fill: Fill,
    lease: Arc<LeaseCell>,
    protocol: Mutex<NodeProtocol>,
    /// The history and the last change in memory.
    pub(super) applied: watch::Sender<Option<(Incarnation, Epoch)>>,
    served: watch::Sender<Served>,
    pub(super) rosters: watch::Sender<Option<Arc<Roster>>>,
    pub(super) witness: Mutex<Witness>,
    pub(super) past: Mutex<super::fence::Past>,
    /// Rung when the timer may have to ring earlier.
    rescheduled: Notify,
    pub(super) fences: super::fence::Fences,
    left: Notify,
    counts: Counts,
}

/// Which tickets are served, and which were turned away.
#[derive(Clone, Copy, Debug)]
struct Served {
    released: Ticket,
    refused: Ticket,
}

impl Follower {
    /// A follower of what these sets hold; it does nothing before [`Follower::start`].
    pub(crate) fn new(
        following: Following,
        keys: Arc<KeySet>,
        admin_tokens: Arc<AdminTokens>,
        lease: Arc<LeaseCell>,
    ) -> Arc<Self> {
        let memory = Arc::new(Memory::new(keys, admin_tokens));
        let fill = Fill::new(Arc::clone(&following.authority), Arc::clone(&memory));
        let protocol = NodeProtocol::new(following.terms, following.membership.spread);
        Arc::new(Self {
            following,
            memory,
            fill,
            lease,
            protocol: Mutex::new(protocol),
            applied: watch::Sender::new(None),
            served: watch::Sender::new(Served { released: Ticket(0), refused: Ticket(0) }),
            rosters: watch::Sender::new(None),
            witness: Mutex::default(),
            past: Mutex::default(),
            rescheduled: Notify::new(),
            fences: super::fence::Fences::default(),
            left: Notify::new(),
            counts: Counts::default(),
        })
    }

    /// Follows from now on, until [`Follower::leave`], with tasks in this set.
    pub fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        self.feed(Event::Tick);
        tasks.spawn(Arc::clone(self).watch_register());
        tasks.spawn(Arc::clone(self).keep_time());
    }

    /// Waits until everything was loaded and the first lease was granted.
    pub async fn settled(&self, within: Duration) -> Result<(), Away> {
        let mut served = self.served.subscribe();
        let granted = served.wait_for(|served| served.released > Ticket(0));
        match timeout(within, granted).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Away("everything could not be loaded in time".to_owned())),
        }
    }

    /// Says that a change was committed; `None` when it is not known which.
    pub fn hear(self: &Arc<Self>, epoch: Option<Epoch>) {
        self.feed(Event::Heard(epoch));
    }

    /// Its numbers, to be registered as a collector.
    pub fn metrics(self: &Arc<Self>) -> FollowerMetrics {
        FollowerMetrics(Arc::clone(self))
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn keys(&self) -> &KeySet {
        self.memory.keys()
    }

    pub(super) fn lease_left_ns(&self) -> u64 {
        self.lease.read().until_ns.saturating_sub(self.following.clock.monotonic_ns())
    }

    /// Which node this is.
    pub fn node(&self) -> NodeId {
        self.following.membership.node
    }

    /// The last change in memory.
    pub fn epoch(&self) -> Epoch {
        self.applied.borrow().map_or(Epoch(0), |(_, epoch)| epoch)
    }

    /// Waits until everything is in memory that was committed before this call.
    ///
    /// # Errors
    /// `unavailable` when the authority does not answer in time.
    pub async fn catch_up(self: &Arc<Self>) -> Result<(), Error> {
        let mut served = self.served.subscribe();
        let ticket = self.want();
        let turned = |served: &Served| served.refused >= ticket || served.released >= ticket;
        // an ask under way, then the one this waits for
        let waited = timeout(2 * ASK_TIMEOUT, served.wait_for(turned)).await;
        match waited {
            Ok(Ok(served)) if served.released >= ticket => Ok(()),
            _ => Err(unavailable()),
        }
    }

    /// Whether memory knows that this does not exist.
    pub(crate) fn is_absent(&self, wanted: Wanted) -> bool {
        self.memory.is_absent(&wanted)
    }

    /// Sees to it that memory knows this, or knows that it does not exist.
    ///
    /// # Errors
    /// `unavailable` when the authority does not answer in time.
    pub async fn look_up(&self, wanted: Wanted) -> Result<(), Error> {
        count(&self.counts.look_ups);
        let looked_up = self.fill.look_up(wanted).await;
        looked_up.map_err(|away| {
            tracing::debug!(cause = %away, "an id could not be looked up");
            unavailable()
        })
    }

    /// Decides nothing any more, and takes the node off the register.
    pub async fn leave(self: &Arc<Self>) {
        let left = self.left.notified();
        self.feed(Event::Stop);
        if timeout(NOTE_TIMEOUT + ASK_TIMEOUT, left).await.is_err() {
            tracing::warn!("this node was not taken off the register; changes wait for its lease");
        }
        self.fences.ring();
    }

    pub(super) fn has_left(&self) -> bool {
        self.protocol.lock().is_stopped()
    }

    fn want(self: &Arc<Self>) -> Ticket {
        let (ticket, actions) = {
            let mut protocol = self.protocol.lock();
            let ticket = protocol.next_ticket();
            (ticket, self.step(&mut protocol, Event::Wanted))
        };
        self.dispatch(actions);
        ticket
    }

    pub(super) fn feed(self: &Arc<Self>, event: Event) {
        let actions = self.step(&mut self.protocol.lock(), event);
        self.dispatch(actions);
    }

    /// Takes an event in and does at once what must not be reordered; answers what takes time.
    fn step(&self, protocol: &mut NodeProtocol, event: Event) -> Vec<Action> {
        let actions = protocol.step(event, self.following.clock.monotonic_ns());
        let applied = protocol.incarnation().zip(protocol.applied());
        self.applied.send_if_modified(|known| std::mem::replace(known, applied) != applied);
        let mut slow = Vec::new();
        for action in actions {
            match action {
                Action::Grant(lease) => self.lease.grant(lease),
                Action::Release(ticket) => self.served.send_modify(|it| it.released = ticket),
                Action::Refuse(ticket) => self.served.send_modify(|it| it.refused = ticket),
                action => slow.push(action),
            }
        }
        self.rescheduled.notify_one();
        slow
    }

    fn dispatch(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            let this = Arc::clone(self);
            match action {
                Action::Ask(ask) => drop(tokio::spawn(async move { this.ask(ask).await })),
                Action::Load => drop(tokio::spawn(async move { this.load().await })),
                Action::Acknowledge { incarnation, applied } => {
                    drop(tokio::spawn(async move { this.acknowledge(incarnation, applied).await }));
                }
                Action::Deregister => {
                    drop(tokio::spawn(async move { this.deregister().await }));
                }
                // done in `ask`, or in `step`
                Action::Apply | Action::Grant(_) | Action::Release(_) | Action::Refuse(_) => {}
            }
        }
    }

    async fn ask(self: Arc<Self>, ask: Ask) {
        count(&self.counts.asks);
        let asked = timeout(ASK_TIMEOUT, self.following.authority.ask(ask)).await;
        let answered = match asked {
            Ok(Ok(answered)) => answered,
            Ok(Err(away)) => return self.fail(&away),
            Err(_) => return self.fail(&Away("no answer in time".to_owned())),
        };
        let went_back = answered.reply.epoch < ask.applied;
        let same = self.applied.borrow().is_some_and(|it| it.0 == answered.reply.incarnation);
        if went_back && same {
            self.renounce(answered.reply.incarnation).await;
        }
        self.take_in(ask, answered);
    }

    fn take_in(self: &Arc<Self>, ask: Ask, answered: Answered) {
        let Answered { reply, changed, listed } = answered;
        let actions = self.step(&mut self.protocol.lock(), Event::Answered(reply));
        let applies = actions.contains(&Action::Apply);
        self.dispatch(actions);
        if applies {
            self.memory.apply(changed, reply.epoch, reply.through);
            self.past.lock().note(reply.through, self.following.clock.monotonic_ns());
            self.feed(Event::Applied);
        }
        if ask.renew && applies {
            self.observe(reply.incarnation, &listed);
        }
    }

    /// The authority went back in time: every node must load what is there now.
    async fn renounce(&self, seen: Incarnation) {
        self.lease.grant(Lease::OVER);
        tracing::error!("the authority went back in time; everything is loaded anew");
        let begun = timeout(NOTE_TIMEOUT, self.following.authority.begin_incarnation(seen)).await;
        if let Ok(Err(error)) = begun {
            tracing::error!(%error, "another incarnation could not be begun");
        }
    }

    fn fail(self: &Arc<Self>, away: &Away) {
        count(&self.counts.failed_asks);
        tracing::warn!(cause = %away, "the authority did not answer");
        self.feed(Event::Failed);
    }

    async fn load(self: Arc<Self>) {
        count(&self.counts.loads);
        match self.load_all().await {
            Ok((incarnation, epoch)) => {
                let unknown = self.memory.end_load(incarnation, epoch);
                self.past.lock().reset(epoch, self.following.clock.monotonic_ns());
                tracing::info!(%epoch, "everything is loaded");
                self.feed(Event::Loaded { incarnation, epoch });
                if !unknown.is_empty() {
                    self.revoke_anew(unknown).await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "everything could not be loaded; this node cannot decide");
                self.feed(Event::Failed);
            }
        }
    }

    async fn load_all(&self) -> Result<(Incarnation, Epoch), Away> {
        self.memory.begin_load();
        let (sender, mut pages) = mpsc::channel(PAGES_AHEAD);
        let slow = |_| Away("the next page did not come in time".to_owned());
        let taking = async {
            while let Some(page) = timeout(PAGE_TIMEOUT, pages.recv()).await.map_err(slow)? {
                self.memory.load(page);
            }
            Ok(())
        };
        let (loaded, ()) = tokio::try_join!(self.following.authority.load(sender), taking)?;
        Ok(loaded)
    }

    /// Enters revocations that a new history has lost, as often as it takes: this comes right after
    /// a failover, when a first attempt may well fail.
    async fn revoke_anew(&self, revoked: Vec<super::Revocation>) {
        let count = revoked.len();
        tracing::warn!(count, "keys that were revoked before are not in the authority any more");
        for _ in 0..REVOKE_ATTEMPTS {
            match self.following.authority.revoke_anew(revoked.clone()).await {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, count, "they are revoked on this node only"),
            }
            let _ = timeout(REVOKE_PAUSE, std::future::pending::<()>()).await;
            if self.has_left() {
                return;
            }
        }
    }

    async fn acknowledge(&self, history: Incarnation, epoch: Epoch) {
        // a writer that does not hear of it waits longer, and the next renewal says it again
        let _ = timeout(NOTE_TIMEOUT, self.following.authority.acknowledge(history, epoch)).await;
    }

    async fn deregister(&self) {
        if let Ok(Ok(())) = timeout(NOTE_TIMEOUT, self.following.authority.deregister()).await {
            tracing::info!("this node is off the register");
        }
        self.left.notify_one();
    }

    fn observe(self: &Arc<Self>, history: Incarnation, listed: &[Listed]) {
        let terms = self.following.terms;
        let silent: Vec<Listed> = {
            let now_ns = self.following.clock.monotonic_ns();
            let mut witness = self.witness.lock();
            witness.observe(history, listed, now_ns);
            let silent = listed.iter().filter(|node| witness.may_forget(node, now_ns, terms));
            silent.copied().collect()
        };
        if !self.following.membership.janitor || silent.is_empty() {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            tracing::warn!(count = silent.len(), "nodes ended without saying so");
            let _ = timeout(NOTE_TIMEOUT, this.following.authority.forget(silent)).await;
        });
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            let wake_at_ns = {
                let protocol = self.protocol.lock();
                if protocol.is_stopped() {
                    return;
                }
                protocol.wake_at_ns()
            };
            let now_ns = self.following.clock.monotonic_ns();
            let left = Duration::from_nanos(wake_at_ns.saturating_sub(now_ns)).min(MAX_SLEEP);
            if timeout(left, self.rescheduled.notified()).await.is_err() {
                self.feed(Event::Tick);
            }
        }
    }
}
