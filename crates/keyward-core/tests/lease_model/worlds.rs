//! The worlds that are explored: each has two nodes or one, and one kind of trouble or two, so that
//! all of them together are small enough to be explored to the end in every run of the tests.

use keyward_core::lease::Terms;

use crate::world::{Flaw, Look, ORDER, TIGHT, World};

const ANSWERED: &str = "a revocation is answered";
const ALL_ANSWERED: &str = "all revocations are answered";
const OTHER_ACCEPTED: &str = "a key is accepted while the other is revoked";
const LEASE_ENDS: &str = "a lease ends";
const OUTWAITED: &str = "a change outwaits a lease";
const ANSWERED_EARLY: &str = "a change is answered while a lease lasts";
const SKIPPED: &str = "a quiet node is not waited for";
const FILL_REFUSED: &str = "a reading is refused";
const NEW_HISTORY: &str = "a node enters another history";
const FORGOTTEN: &str = "a silent node is forgotten";

const BASE: World = World {
    settled: 2,
    keys: 1,
    reaches: &[ANSWERED, LEASE_ENDS, OUTWAITED, ANSWERED_EARLY],
    ..World::CALM
};
const ONE_NODE: World = World { nodes: 1, settled: 1, ..BASE };
const FILLING: World = World {
    fills: 2,
    loads_facts: false,
    slow_applies: true,
    reaches: &[ANSWERED, LEASE_ENDS, FILL_REFUSED],
    ..ONE_NODE
};

/// Explored to the end whenever the tests run.
pub(crate) const SMALL: [World; 17] = [
    World {
        name: "two keys",
        keys: 2,
        reaches: &[ALL_ANSWERED, OTHER_ACCEPTED, LEASE_ENDS, OUTWAITED, ANSWERED_EARLY],
        ..BASE
    },
    World { name: "asks fail, hints come", failures: 1, hints: 1, ..BASE },
    World { name: "a node joins, asks fail", settled: 1, failures: 1, ..BASE },
    World {
        name: "a node joins, answers in pages",
        settled: 1,
        keys: 2,
        page: 1,
        horizon: 2,
        reaches: &[ALL_ANSWERED, OTHER_ACCEPTED, LEASE_ENDS, ANSWERED_EARLY],
        ..BASE
    },
    World {
        name: "slow commits on both sides",
        keys: 2,
        slow_renewals: true,
        horizon: 2,
        reaches: &[ALL_ANSWERED, OTHER_ACCEPTED, LEASE_ENDS, ANSWERED_EARLY],
        ..BASE
    },
    World { name: "pauses while applying", slow_applies: true, ..BASE },
    World { name: "readings of two keys", keys: 2, horizon: 2, ..FILLING },
    World { name: "readings and evictions", evictions: 1, ..FILLING },
    World { name: "a crash and a new start", crashes: 1, ..BASE },
    World { name: "an end in order, asks fail", stops: 1, failures: 1, horizon: 2, ..BASE },
    World {
        name: "a watching writer",
        watches: true,
        reaches: &[ANSWERED, LEASE_ENDS, SKIPPED],
        ..BASE
    },
    World {
        name: "long silence and a janitor",
        leaps: 1,
        watches: true,
        horizon: 2,
        reaches: &[ANSWERED, LEASE_ENDS, FORGOTTEN],
        ..ONE_NODE
    },
    World {
        name: "another history",
        promotions: 1,
        reaches: &[ANSWERED, LEASE_ENDS, NEW_HISTORY],
        ..BASE
    },
    World {
        name: "another history, another process asked",
        promotions: 1,
        polls: 1,
        watches: true,
        reaches: &[ANSWERED, LEASE_ENDS, NEW_HISTORY],
        ..ONE_NODE
    },
    World {
        name: "another history with the same numbers",
        keys: 2,
        promotions: 1,
        reaches: &[ALL_ANSWERED, OTHER_ACCEPTED, NEW_HISTORY],
        ..ONE_NODE
    },
    World { name: "strict", strict: 2, failures: 1, ..BASE },
    World {
        name: "stale, the writer beside a node",
        terms: Terms { lease_ms: 1_000, stale_ms: 1_000, ..TIGHT },
        stale: true,
        together: true,
        aborts: 1,
        ..BASE
    },
];

/// Explored on demand: minutes.
pub(crate) const WIDE: [World; 9] = [
    World { name: "wide: four ticks", horizon: 4, failures: 1, ..BASE },
    World { name: "wide: two keys, asks fail", keys: 2, failures: 1, ..BASE },
    World { name: "wide: a node joins, answers in pages", settled: 1, page: 1, keys: 2, ..BASE },
    World { name: "wide: crashes, ends and failures", crashes: 1, stops: 1, failures: 1, ..BASE },
    World { name: "wide: readings on two nodes", nodes: 2, settled: 2, ..FILLING },
    World { name: "wide: readings in another history", promotions: 1, ..FILLING },
    World { name: "wide: slow commits on both sides", keys: 2, slow_renewals: true, ..BASE },
    World {
        name: "wide: another history, watched",
        promotions: 1,
        watches: true,
        horizon: 2,
        reaches: &[ANSWERED, NEW_HISTORY],
        ..BASE
    },
    World {
        name: "wide: leases of three ticks",
        terms: Terms { lease_ms: 3_000, ..TIGHT },
        horizon: 4,
        ..BASE
    },
];

/// One rule broken in each: the search must find a request that is accepted.
pub(crate) const FLAWED: [World; 20] = [
    World { name: "no lock", settled: 0, slow_renewals: true, ..ONE_NODE }.with(Flaw::NoLock),
    World { name: "no stamp", ..FILLING }.with(Flaw::NoStamp),
    World { name: "clock from before the request", ..ONE_NODE }.with(Flaw::ClockBeforeRequest),
    World {
        name: "lease read after memory",
        order: [Look::Memory, Look::Lease, Look::Clock],
        ..ONE_NODE
    },
    World { name: "lease counted from the answer", ..ONE_NODE }.with(Flaw::LeaseFromAnswer),
    World { name: "witness told an earlier instant", watches: true, ..ONE_NODE }
        .with(Flaw::WitnessBeforeReading),
    World { name: "numbers from a sequence", keys: 2, ..ONE_NODE }.with(Flaw::NumberedEarly),
    World { name: "acknowledged before applied", slow_applies: true, ..ONE_NODE }
        .with(Flaw::AcknowledgedEarly),
    World { name: "nodes seen recently only", ..ONE_NODE }.with(Flaw::SeenRecently),
    World { name: "vanished means left", promotions: 1, ..ONE_NODE }.with(Flaw::VanishedHaveLeft),
    World { name: "a late answer is taken", failures: 1, ..ONE_NODE }.with(Flaw::LateAnswer),
    World { name: "janitor deletes what it did not see", leaps: 1, horizon: 0, ..ONE_NODE }
        .with(Flaw::ForgetUnseen),
    World {
        name: "renewals counted from one again",
        leaps: 1,
        horizon: 0,
        watches: true,
        ..ONE_NODE
    }
    .with(Flaw::CountFromOne),
    World { name: "applied of another history", promotions: 1, watches: true, ..ONE_NODE }
        .with(Flaw::ForeignApplied),
    World { name: "a promotion changes overlook", promotions: 1, settled: 0, ..ONE_NODE }
        .with(Flaw::UnnoticedPromotion),
    World { name: "a crash loses renewals", promotions: 1, watches: true, ..ONE_NODE }
        .with(Flaw::RenewalLost),
    World { name: "a new history believed settled", promotions: 1, settled: 0, ..ONE_NODE }
        .with(Flaw::NotSettled),
    World { name: "left before the lease is over", stops: 1, ..ONE_NODE }
        .with(Flaw::LeftBeforeOver),
    World { name: "a request joins an earlier barrier", strict: 1, ..ONE_NODE }
        .with(Flaw::JoinedLate),
    World {
        name: "stale requests are not waited for",
        terms: Terms { stale_ms: 1_000, ..TIGHT },
        stale: true,
        ..ONE_NODE
    }
    .with(Flaw::HoldUntold),
];

/// An order that looks wrong and is not: what counts is that the clock is read after the first byte
/// and the lease before memory.
pub(crate) const CLOCK_FIRST: World = World {
    name: "clock, lease, memory",
    order: [Look::Clock, ORDER[0], ORDER[1]],
    failures: 1,
    ..BASE
};
