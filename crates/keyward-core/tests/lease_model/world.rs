//! What may happen in a model, how often, and which rule is broken on purpose.

use keyward_core::lease::Terms;

/// Processes that decide. A restarted one has a new id in the same place.
pub(crate) const NODES: usize = 2;
/// Keys that may be revoked.
pub(crate) const KEYS: usize = 2;
/// Nanoseconds of a tick.
pub(crate) const TICK_NS: u64 = 1_000_000_000;
/// What the clocks of the processes show when the model begins: instants of two of them compared
/// with one another would be found at once.
pub(crate) const CLOCKS: [u64; NODES] = [700 * TICK_NS, 0];
pub(crate) const WRITER_CLOCK: u64 = 300 * TICK_NS;
pub(crate) const JANITOR_CLOCK: u64 = 100 * TICK_NS;
/// Ticks of a leap: a process that was silent for so long is forgotten.
pub(crate) const LEAP: u64 = 25;

/// A lease of two ticks and nothing to spare, so that one nanosecond too much is found.
pub(crate) const TIGHT: Terms = Terms { lease_ms: 2_000, margin_ms: 0, drift_ppm: 0, stale_ms: 0 };

/// What a decision reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Look {
    Lease,
    Memory,
    Clock,
}

/// The order in which a decision reads.
pub(crate) const ORDER: [Look; 3] = [Look::Lease, Look::Memory, Look::Clock];

/// A rule that the surroundings of the state machines keep, and that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A renewal registers and reads while a change is between its list of nodes and its commit.
    NoLock,
    /// What was read goes into memory whatever was applied meanwhile.
    NoStamp,
    /// A decision uses a reading of the clock from before the request.
    ClockBeforeRequest,
    /// A lease counts from the instant of the answer.
    LeaseFromAnswer,
    /// The witness is told an instant from before the register was read.
    WitnessBeforeReading,
    /// Numbers come from a sequence, and the lock is taken after that.
    NumberedEarly,
    /// What was answered is acknowledged before it is in memory.
    AcknowledgedEarly,
    /// Only nodes that renewed in this tick are listed.
    SeenRecently,
    /// The register of another history is taken for that of the change.
    VanishedHaveLeft,
    /// An answer that comes after the ask has failed is taken for that of the next one.
    LateAnswer,
    /// The janitor deletes a row whatever renewals it shows.
    ForgetUnseen,
    /// A row that was deleted counts its renewals from one again.
    CountFromOne,
    /// What a node has applied of another history is entered in the register.
    ForeignApplied,
    /// A promotion is noticed by renewals only, not by changes.
    UnnoticedPromotion,
    /// A database that crashes comes back without the last renewals, in the same history.
    RenewalLost,
    /// A writer believes that the history it finds is as old as itself.
    NotSettled,
    /// The register shows the lease time alone, not what a node may go on for as stale.
    HoldUntold,
    /// A request joins a barrier that was sent before it.
    JoinedLate,
    /// A node leaves the register before its lease is withdrawn.
    LeftBeforeOver,
}

/// Bounds: how many of each there may be, in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) terms: Terms,
    /// Ticks, besides those of a leap.
    pub(crate) horizon: u64,
    pub(crate) nodes: usize,
    pub(crate) keys: usize,
    /// How many nodes begin with their memory loaded and a lease; the others begin with nothing.
    pub(crate) settled: usize,
    /// Asks and loads that fail, while their effect may still come.
    pub(crate) failures: u8,
    pub(crate) hints: u8,
    /// Processes that end without a word, and are started again.
    pub(crate) crashes: u8,
    /// Processes that end in order.
    pub(crate) stops: u8,
    /// Readings of single facts.
    pub(crate) fills: u8,
    /// Facts that fall out of memory.
    pub(crate) evictions: u8,
    /// Whether a load brings facts into memory, or they are read when they are needed.
    pub(crate) loads_facts: bool,
    /// Changes that are rolled back.
    pub(crate) aborts: u8,
    /// Standbys promoted, or backups restored.
    pub(crate) promotions: u8,
    /// Changes whose reach is asked of another process.
    pub(crate) polls: u8,
    /// Long silences, with a janitor.
    pub(crate) leaps: u8,
    /// Requests that wait for a read barrier instead of a lease; none when that is 0.
    pub(crate) strict: u8,
    /// Whether requests are of the kind that may be answered as stale.
    pub(crate) stale: bool,
    /// The most changes in one answer.
    pub(crate) page: usize,
    /// Whether the writer's witness looks at the register at any time, or only with its listings.
    pub(crate) watches: bool,
    /// Whether a node may pause between putting facts into memory and saying so.
    pub(crate) slow_applies: bool,
    /// Whether a renewal reads and commits in two steps.
    pub(crate) slow_renewals: bool,
    /// Whether the writer is in the process of the first node, and sees what that has applied.
    pub(crate) together: bool,
    pub(crate) order: [Look; 3],
    /// What must happen somewhere, lest the model says nothing.
    pub(crate) reaches: &'static [&'static str],
    pub(crate) flaw: Option<Flaw>,
}

impl World {
    /// Two nodes, one with a lease and one that starts; two keys; nothing fails.
    pub(crate) const CALM: Self = Self {
        name: "calm",
        terms: TIGHT,
        horizon: 3,
        nodes: NODES,
        keys: KEYS,
        settled: 1,
        failures: 0,
        hints: 0,
        crashes: 0,
        stops: 0,
        fills: 0,
        evictions: 0,
        loads_facts: true,
        aborts: 0,
        promotions: 0,
        polls: 0,
        leaps: 0,
        strict: 0,
        stale: false,
        page: usize::MAX,
        watches: false,
        slow_applies: false,
        slow_renewals: false,
        together: false,
        order: ORDER,
        reaches: &[],
        flaw: None,
    };

    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    pub(crate) const fn with(mut self, flaw: Flaw) -> Self {
        self.flaw = Some(flaw);
        self
    }
}
