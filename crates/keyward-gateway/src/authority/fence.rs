//! Waiting until a change has reached every node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use keyward_core::lease::{Epoch, Fence, Fenced, Incarnation, Listed, Reach, Roster, Standing};

use super::Away;
use super::follower::{Follower, Following};

/// The first pause between two looks at the register while somebody waits; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest such pause.
const MAX_PAUSE: Duration = Duration::from_millis(16);
/// The longest time of one look.
const LOOK_TIMEOUT: Duration = Duration::from_millis(900);
/// How long a change that only makes new things waits for its own node.
const OWN_PATIENCE: Duration = Duration::from_secs(1);
/// Changes remembered with the instant at which they were applied here.
const MAX_PAST: usize = 1_024;

/// Those who wait for other nodes.
#[derive(Default)]
pub(super) struct Fences {
    waiting: AtomicUsize,
    raised: Notify,
    /// Callers who ask again look one after the other: leases are renewed on the same connections.
    looks: tokio::sync::Mutex<()>,
}

/// When changes were applied here: they were committed before that.
#[derive(Default)]
pub(super) struct Past(VecDeque<(Epoch, u64)>);

impl Past {
    pub(super) fn reset(&mut self, epoch: Epoch, now_ns: u64) {
        self.0.clear();
        self.0.push_back((epoch, now_ns));
    }

    pub(super) fn note(&mut self, epoch: Epoch, now_ns: u64) {
        if self.0.back().is_some_and(|(last, _)| *last >= epoch) {
            return;
        }
        if self.0.len() == MAX_PAST {
            self.0.pop_front();
        }
        self.0.push_back((epoch, now_ns));
    }

    /// An instant before which the change was committed; `None` when it is not applied here.
    fn committed_before_ns(&self, epoch: Epoch) -> Option<u64> {
        self.0.iter().find(|(applied, _)| *applied >= epoch).map(|(_, at_ns)| *at_ns)
    }
}

/// One who waits; counted as long as it lives.
struct Waiting<'f>(&'f Fences);

impl<'f> Waiting<'f> {
    fn begin(fences: &'f Fences) -> Self {
        fences.waiting.fetch_add(1, Ordering::AcqRel);
        fences.ring();
        Self(fences)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Fences {
    /// Wakes the task that looks at the register.
    pub(super) fn ring(&self) {
        self.raised.notify_one();
    }
}

impl Follower {
    /// Waits, as long as the change's author does, until a committed change has reached every node.
    pub async fn fence(self: &Arc<Self>, change: Fenced) -> Reach {
        self.hear(Some(change.epoch));
        let nodes = change.listed.len().max(1);
        if change.introduces {
            let until = Instant::now() + OWN_PATIENCE;
            self.apply_here(change.incarnation, change.epoch, until).await;
            return Reach { effective_by: None, nodes, unconfirmed: 0 };
        }
        let mut listed = change.listed;
        if self.following.membership.sole {
            listed.push(self.unlisted());
        }
        let fence = {
            let witness = self.witness.lock();
            Fence::raise(
                change.epoch,
                change.incarnation,
                &listed,
                change.committed_ns,
                &witness,
                self.following.terms,
            )
        };
        let until = Instant::now() + change.patience;
        // this node's own memory is what its next answers come from, listed or not
        let applied = self.apply_here(change.incarnation, change.epoch, until).await;
        if applied && self.following.membership.sole {
            return Reach { effective_by: None, nodes, unconfirmed: 0 };
        }
        self.wait_for(fence, nodes, until).await
    }

    /// This node as a register would show it that is not kept for a single process.
    fn unlisted(&self) -> Listed {
        let Following { membership, terms, .. } = &self.following;
        let (applied, renewals) = (Epoch(0), 0);
        Listed { node: membership.node, applied, renewals, hold_ms: terms.hold_ms() }
    }

    /// How far a change of the past has reached; `None` when it is not known here yet.
    ///
    /// # Errors
    /// [`Away`] when the register cannot be read.
    pub async fn reach(self: &Arc<Self>, epoch: Epoch) -> Result<Option<Reach>, Away> {
        let roster = self.look().await?;
        // what was applied here of another history says nothing about a change of this one
        let history = self.applied.borrow().map(|(history, _)| history);
        let since_ns = self.past.lock().committed_before_ns(epoch);
        let Some(since_ns) = since_ns.filter(|_| history == Some(roster.incarnation)) else {
            return Ok(None);
        };
        let now_ns = self.following.clock.monotonic_ns();
        let mut fence = {
            let witness = self.witness.lock();
            let terms = self.following.terms;
            Fence::raise(epoch, roster.incarnation, &roster.listed, since_ns, &witness, terms)
        };
        fence.confirmed(roster.incarnation, self.following.membership.node);
        let standing = fence.standing(now_ns);
        Ok(Some(self.reach_of(standing, roster.listed.len().max(1))))
    }

    /// Waits, no longer than this, until everything has reached every node that was committed
    /// before this call.
    ///
    /// # Errors
    /// [`Away`] when the register cannot be read.
    pub async fn fence_all(self: &Arc<Self>, patience: Duration) -> Result<Reach, Away> {
        let Roster { epoch, incarnation, listed } = self.look().await?;
        let committed_ns = self.following.clock.monotonic_ns();
        let introduces = false;
        let newest = Fenced { epoch, incarnation, listed, committed_ns, introduces, patience };
        Ok(self.fence(newest).await)
    }

    async fn look(&self) -> Result<Roster, Away> {
        let look = async {
            let _turn = self.fences.looks.lock().await;
            self.following.authority.roster().await
        };
        let looked = timeout(LOOK_TIMEOUT, look).await;
        looked.map_err(|_| Away("the register was not read in time".to_owned()))?
    }

    /// Waits until a change of a history is in this node's own memory. When it does not come, this
    /// node's lease ends, and nothing is decided with what it knows.
    async fn apply_here(&self, history: Incarnation, epoch: Epoch, until: Instant) -> bool {
        let mut applied = self.applied.subscribe();
        let there = applied
            .wait_for(|it| it.is_some_and(|(own, applied)| own == history && applied >= epoch));
        matches!(timeout_at(until, there).await, Ok(Ok(_)))
    }

    async fn wait_for(&self, mut fence: Fence, nodes: usize, until: Instant) -> Reach {
        let mut rosters = self.rosters.subscribe();
        let mut applied = self.applied.subscribe();
        let me = self.following.membership.node;
        let _waiting = (!fence.awaits_only(me)).then(|| Waiting::begin(&self.fences));
        loop {
            let epoch = fence.epoch();
            let here = *applied.borrow_and_update();
            if let Some((history, _)) = here.filter(|(_, applied)| *applied >= epoch) {
                fence.confirmed(history, me);
            }
            let seen = rosters.borrow_and_update().clone();
            // an older look may not show a node that was registered before the change
            if let Some(roster) = seen.filter(|roster| roster.epoch >= epoch) {
                fence.seen(roster.incarnation, &roster.listed);
            }
            let now_ns = self.following.clock.monotonic_ns();
            let standing = fence.standing(now_ns);
            let Standing::Propagating { by_ns, .. } = standing else {
                return self.reach_of(standing, nodes);
            };
            let now = Instant::now();
            if now >= until {
                return self.reach_of(standing, nodes);
            }
            let over = now + Duration::from_nanos(by_ns.saturating_sub(now_ns));
            let news = async {
                tokio::select! {
                    _ = rosters.changed() => {}
                    _ = applied.changed() => {}
                }
            };
            // whatever ended the wait shows at the next look
            let _ = timeout_at(until.min(over), news).await;
        }
    }

    fn reach_of(&self, standing: Standing, nodes: usize) -> Reach {
        match standing {
            Standing::Effective => Reach { effective_by: None, nodes, unconfirmed: 0 },
            Standing::Propagating { by_ns, unconfirmed } => {
                let clock = &self.following.clock;
                let left_ns = by_ns.saturating_sub(clock.monotonic_ns());
                let millis = i64::try_from(left_ns.div_ceil(1_000_000)).unwrap_or(i64::MAX);
                let effective_by = Some(clock.now().plus_ms(millis));
                Reach { effective_by, nodes, unconfirmed }
            }
        }
    }

    /// Reads the register again and again while somebody waits for other nodes.
    pub(super) async fn watch_register(self: Arc<Self>) {
        loop {
            self.fences.raised.notified().await;
            if self.has_left() {
                return;
            }
            let mut pause = FIRST_PAUSE;
            while self.fences.waiting.load(Ordering::Acquire) > 0 {
                if let Ok(Ok(roster)) =
                    timeout(LOOK_TIMEOUT, self.following.authority.roster()).await
                {
                    self.publish(roster);
                }
                let _ = timeout(pause, std::future::pending::<()>()).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }

    fn publish(&self, roster: Roster) {
        let roster = Some(Arc::new(roster));
        self.rosters.send_if_modified(|known| {
            let news = *known != roster;
            *known = roster;
            news
        });
    }
}

#[cfg(test)]
mod tests;
