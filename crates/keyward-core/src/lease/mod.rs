//! Who may decide from memory, and until when: the protocol behind a revocation that is true when
//! it answers. Pure state machines; the node drives them with a store, the tests with a simulated
//! one.
//!
//! Promise: *a request whose first byte is sent after a fenced write was answered `effective` is
//! decided with that write, on every node.* What it rests on:
//!
//! * Every change of authority has an [`Epoch`], taken under an exclusive lock that is held to the
//!   commit: gap-free and in commit order.
//! * A node renews under the shared side of that lock. In one transaction it is registered and
//!   reads every change after the one it has applied; only once these are in its memory is its
//!   lease extended, to *its own clock's reading from before the renewal was sent* plus the lease
//!   time.
//! * A decision reads its lease first, memory second and the clock last, and is good only while
//!   the clock is before the end of the lease *read first*: however long the process was paused in
//!   between, a lease that is over is seen to be over, and one that was renewed meanwhile does not
//!   vouch for what was read from memory before the renewal.
//! * A fenced write lists the registered nodes under the lock. It is effective when each has
//!   applied it, has left, or has had no renewal for so long that its lease is certainly over on
//!   the writer's own clock. Instants of two machines are never compared; only the rates of their
//!   clocks are assumed to agree, within [`Terms::drift_ppm`].
//! * Another history (a standby was promoted, a backup restored) is another [`Incarnation`] from
//!   its first transaction on. Its register says nothing about leases from before, so its first
//!   changes are effective only once those are over.

mod fence;
mod fills;
mod node;
mod witness;

use std::fmt;
use std::time::Duration;

pub use fence::{Fence, Standing};
pub use fills::{Fills, Stamp};
pub use node::{Action, Ask, Event, NodeProtocol, Reply, Ticket};
pub use witness::Witness;

use crate::id::NodeId;
use crate::time::Timestamp;

const NS_PER_MS: u64 = 1_000_000;

/// The number of a change of authority; 0 before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which history of the authority an epoch belongs to: a restore or the promotion of a standby
/// begins another one, in which epochs may mean other changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// That of a new deployment: nothing was before it.
    pub const FIRST: Self = Self(1);
}

/// The times of a deployment's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// How long a renewal lets a node decide from memory.
    pub lease_ms: u64,
    /// Taken off every lease by its holder, and added to every wait by a writer.
    pub margin_ms: u64,
    /// By how much the rates of two machines' clocks may differ, in parts per million.
    pub drift_ppm: u64,
    /// How much longer a node goes on with safe methods while the authority is away. Fenced writes
    /// wait for it too.
    pub stale_ms: u64,
}

impl Terms {
    /// Two seconds, with 50 ms to spare and clocks that agree within 500 ppm; never stale.
    pub const DEFAULT: Self = Self { lease_ms: 2_000, margin_ms: 50, drift_ppm: 500, stale_ms: 0 };

    /// How long a node may go on after a renewal, as it says of itself in the register.
    pub const fn hold_ms(self) -> u64 {
        self.lease_ms.saturating_add(self.stale_ms)
    }

    /// The lease that a renewal sent at this instant of the node's clock earns.
    pub const fn lease(self, sent_ns: u64) -> Lease {
        Lease {
            until_ns: self.ends_ns(sent_ns, self.lease_ms),
            stale_until_ns: self.ends_ns(sent_ns, self.hold_ms()),
        }
    }

    const fn ends_ns(self, sent_ns: u64, ms: u64) -> u64 {
        sent_ns.saturating_add(ms.saturating_sub(self.margin_ms) * NS_PER_MS)
    }

    /// Nanoseconds of another machine's clock after which a right of `hold_ms` is over for sure.
    pub const fn certainly_over_ns(self, hold_ms: u64) -> u64 {
        let right_ns = hold_ms.saturating_mul(NS_PER_MS);
        let drift_ns = (right_ns / 1_000_000).saturating_mul(self.drift_ppm);
        right_ns.saturating_add(drift_ns).saturating_add(self.margin_ms * NS_PER_MS)
    }

    /// Nanoseconds between two renewals of a healthy node.
    pub const fn renew_every_ns(self) -> u64 {
        self.lease_ms * NS_PER_MS / 4
    }
}

/// Until when a node may decide from memory, on its own clock. The default is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The first nanosecond at which it may not.
    pub until_ns: u64,
    /// The first nanosecond at which it may not even answer safe methods as stale.
    pub stale_until_ns: u64,
}

impl Lease {
    /// A lease that is over.
    pub const OVER: Self = Self { until_ns: 0, stale_until_ns: 0 };
}

/// A node as the register shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listed {
    /// Which node.
    pub node: NodeId,
    /// The last change it has applied.
    pub applied: Epoch,
    /// How many times it has renewed.
    pub renewals: u64,
    /// How long it may go on after a renewal.
    pub hold_ms: u64,
}

/// What a node says of itself in the register.
#[derive(Clone, Debug)]
pub struct NodeProfile {
    /// Which node.
    pub node: NodeId,
    /// What it does, for people.
    pub roles: String,
    /// The version of its binary, for people.
    pub version: String,
    /// How long it may go on after a renewal.
    pub hold_ms: u64,
    /// When it started, on its own clock.
    pub started_at: Timestamp,
}

/// The register at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// The history the epochs belong to.
    pub incarnation: Incarnation,
    /// The newest change.
    pub epoch: Epoch,
    /// Every node.
    pub listed: Vec<Listed>,
}

/// A committed change of authority that every node must hear of.
#[derive(Clone, Debug)]
pub struct Fenced {
    /// Its number.
    pub epoch: Epoch,
    /// The history the number belongs to.
    pub incarnation: Incarnation,
    /// Every node that was registered when it was committed.
    pub listed: Vec<Listed>,
    /// The clock of this process, read after the commit.
    pub committed_ns: u64,
    /// Whether only new things were made, which every node looks up when it meets them.
    pub introduces: bool,
    /// How long the caller waits for every node.
    pub patience: Duration,
}

/// How far a change has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// When it will have reached every node at the latest; `None` when it has.
    pub effective_by: Option<Timestamp>,
    /// How many nodes it had to reach.
    pub nodes: usize,
    /// How many of them have not said that they applied it.
    pub unconfirmed: usize,
}

#[cfg(test)]
mod tests;
