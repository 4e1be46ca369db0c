//! How a node follows the authority: what it knows, until when it may decide with it, and when a
//! change has reached every other node.
//!
//! The rules are [`keyward_core::lease`]; here they get tasks, timers and the memory they speak of.

mod fence;
mod fill;
mod follower;
mod memory;
mod metrics;
#[cfg(all(test, feature = "shuttle"))]
mod schedules;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use keyward_core::authority::{Answered, Fact, Found, Wanted};
use keyward_core::clock::Clock;
use keyward_core::error::{Error, ErrorCode};
use keyward_core::id::NodeId;
use keyward_core::lease::{Ask, Epoch, Incarnation, Lease, Listed, Roster};

use crate::primitives::AtomicU64;

pub use follower::{Follower, Following};
pub use memory::Revocation;
pub use metrics::FollowerMetrics;

/// The primary as the revocation protocol sees it.
///
/// The one behind a deployment is its store; tests put a simulated one in its place.
pub trait Authority: Send + Sync + 'static {
    /// Answers an ask; a renewal under the shared side of the lock of changes.
    fn ask(&self, ask: Ask) -> Replied<'_, Answered>;

    /// Sends everything there is, a page at a time, as of one snapshot; answers which.
    fn load(&self, pages: mpsc::Sender<Vec<Fact>>) -> Replied<'_, (Incarnation, Epoch)>;

    /// The facts about something that is not in memory, read from the primary.
    fn find(&self, wanted: Wanted) -> Replied<'_, Found>;

    /// Notes what this node has applied of a history; in another one nothing.
    fn acknowledge(&self, history: Incarnation, applied: Epoch) -> Replied<'_, ()>;

    /// The register of nodes.
    fn roster(&self) -> Replied<'_, Roster>;

    /// Takes this node off the register.
    fn deregister(&self) -> Replied<'_, ()>;

    /// Takes nodes off the register that have been silent for long.
    fn forget(&self, silent: Vec<Listed>) -> Replied<'_, ()>;

    /// Begins another history: the one seen went back in time.
    fn begin_incarnation(&self, seen: Incarnation) -> Replied<'_, ()>;

    /// Revokes anew what this node knows to be revoked and a new history has forgotten.
    fn revoke_anew(&self, revoked: Vec<Revocation>) -> Replied<'_, ()>;
}

/// What the authority answers in time.
pub type Replied<'a, T> = Pin<Box<dyn Future<Output = Result<T, Away>> + Send + 'a>>;

/// Why the authority did not answer; for the log, never for a caller.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

/// The lease as every request reads it.
#[derive(Debug, Default)]
pub struct LeaseCell {
    until_ns: AtomicU64,
    stale_until_ns: AtomicU64,
    /// How often a lease was taken back: memory may have been emptied since.
    withdrawals: AtomicU64,
}

impl LeaseCell {
    /// Publishes a lease.
    pub fn grant(&self, lease: Lease) {
        if lease == Lease::OVER {
            self.withdrawals.fetch_add(1, Ordering::AcqRel);
        }
        self.stale_until_ns.store(lease.stale_until_ns, Ordering::Release);
        self.until_ns.store(lease.until_ns, Ordering::Release);
    }

    /// Reads something from memory, and answers whether a lease vouches for it: the lease is read
    /// first, memory next and the clock last. However long the process was paused in between, a
    /// lease that is over is seen to be over, and one that was renewed meanwhile does not vouch for
    /// what was read before the renewal. Memory that was emptied meanwhile, to be loaded anew, says
    /// nothing either: its lease was taken back before that.
    pub fn vouch<T>(&self, clock: &dyn Clock, read: impl FnOnce() -> T) -> (T, bool) {
        let (lease, withdrawals) = (self.read(), self.withdrawals());
        let found = read();
        let whole = self.withdrawals() == withdrawals;
        let vouched = clock.monotonic_ns() < lease.until_ns && whole;
        (found, vouched)
    }

    /// How often a lease was taken back. What was read from memory between two equal answers was
    /// read from memory that nobody emptied.
    pub(crate) fn withdrawals(&self) -> u64 {
        self.withdrawals.load(Ordering::Acquire)
    }

    /// The lease now. To be read before memory is; the clock after it.
    pub fn read(&self) -> Lease {
        Lease {
            until_ns: self.until_ns.load(Ordering::Acquire),
            stale_until_ns: self.stale_until_ns.load(Ordering::Acquire),
        }
    }
}

/// The refusal of a node that cannot tell whether what it knows is still true.
pub(crate) fn unavailable() -> Error {
    let text = "This node cannot decide just now; try again, or call another one";
    Error::new(ErrorCode::Unavailable, text)
}

/// Which node this is, and what it may do to the register.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    /// Its id.
    pub node: NodeId,
    /// Any number that spreads the nodes of a deployment in time.
    pub spread: u64,
    /// Whether no other process can decide with the same authority.
    pub sole: bool,
    /// Whether it takes nodes off the register that ended without saying so.
    pub janitor: bool,
}
