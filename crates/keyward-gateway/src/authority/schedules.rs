//! Orders in which threads may pass, many of them: decisions, changes of what is in memory, and
//! readings of single facts.
//!
//! `cargo test -p keyward-gateway --features shuttle --lib schedules`; how many orders each test
//! tries is in `KEYWARD_SCHEDULES`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, LazyLock};

use serde_json::{from_value, json};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, thread};

use keyward_core::authority::{
    Changed, Fact, Found, Invalidation, KeyAuthority, MemberAuthority, TenantAuthority, Wanted,
};
use keyward_core::catalog::Catalog;
use keyward_core::clock::Clock;
use keyward_core::environment::Environment;
use keyward_core::id::{KeyId, TenantId, UserId};
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{Keyring, Pepper, SecretKind, TagKey};
use keyward_core::lease::{Epoch, Incarnation, Lease};
use keyward_core::profile::Profile;
use keyward_core::time::Timestamp;

use super::LeaseCell;
use super::memory::Memory;
use crate::admin_tokens::AdminTokens;
use crate::keyset::{KeySet, KnownKey, Recognized};
use crate::primitives::{AtomicU64, Mutex};

/// Orders that each test tries unless told otherwise; half of them by priorities, half by lot.
const SCHEDULES: usize = 10_000;
/// Orders in which a mistake must show.
const SCHEDULES_OF_A_MISTAKE: usize = 20_000;
/// Threads whose priorities change this often are the ones tried.
const DEPTH: usize = 3;
const SEED: u64 = 7;
/// Room for a thread's frames, with a keyed hash and a failure's message in them.
const STACK_BYTES: usize = 256 * 1_024;
/// How long a lease lasts.
const LEASE: u64 = 100;
const TENANT: TenantId = TenantId::from_bits(1);
const OWNER: UserId = UserId::from_bits(2);

/// A step done in the wrong order, to see that the tests notice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// The lease is read after memory.
    LeaseLast,
    /// The clock is read before memory.
    ClockEarly,
    /// A lease is granted before its facts are in memory.
    GrantEarly,
    /// A single reading says that it began after it was made.
    StampLate,
}

/// What makes the key useless.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// It is revoked.
    Key,
    /// Its tenant is suspended.
    Tenant,
    /// Its owner is offboarded.
    Member,
}

impl Blow {
    /// The change as a node reads it.
    fn changed(self, epoch: Epoch) -> Changed {
        let tenant = TenantAuthority { id: TENANT, slug: "acme".to_owned(), suspended: true };
        let (subject, fact) = match self {
            Self::Key => (Invalidation::Key(TENANT, PRODUCT.key.id), fact(true)),
            Self::Tenant => (Invalidation::Tenant(TENANT), Fact::Tenant(tenant)),
            Self::Member => (Invalidation::Member(TENANT, OWNER), Fact::Gone),
        };
        Changed { epoch, subject, fact }
    }
}

struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.load(SeqCst)
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        buffer.fill(9);
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        buffer.fill(9);
    }
}

/// What never changes, made once.
struct Product {
    catalog: Arc<Catalog>,
    keyring: Arc<Keyring>,
    token: String,
    key: KeyAuthority,
}

static PRODUCT: LazyLock<Product> = LazyLock::new(|| {
    let profile: Profile = from_value(json!({
        "name": "acme", "title": "Acme", "base_path": "/v1", "openapi": "openapi.json",
        "keys": {"prefix": "acme", "environments": {"live": "live"}, "carriers": ["bearer"]},
        "scopes": {"reports:read": {"description": "."}},
        "roles": {"analyst": {"title": "Analyst", "areas": ["reports"]}},
    }))
    .unwrap();
    let document = json!({
        "openapi": "3.1.0",
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {"/v1/reports": {"get": {
            "operationId": "listReports", "summary": ".", "security": [{"key": ["reports:read"]}],
        }}},
    });
    let catalog = Arc::new(Catalog::new(&profile, &document).unwrap());
    let format = profile.token_format();
    let keyring = Keyring::new(format, TagKey::new(&[1; 32]), Pepper::new(1, &[2; 32]), Vec::new());
    let minted = keyring.mint(SecretKind::Api(Environment::Live), &Fixed);
    let key = KeyAuthority {
        tenant: TENANT,
        id: KeyId::from_bits(minted.id_bits),
        environment: Environment::Live,
        hash: minted.hash,
        pepper_version: minted.pepper_version,
        scopes: vec!["reports:read".to_owned()],
        owner: OWNER,
        name: "nightly".to_owned(),
        expires_at: None,
        revoked_at: None,
        suspect_since: None,
        ip_allowlist: IpAllowlist::default(),
    };
    let token = minted.secret.expose().to_owned();
    Product { catalog, keyring: Arc::new(keyring), token, key }
});

/// One node, the primary it follows, and somebody who makes a key useless there.
struct World {
    mistake: Mistake,
    blow: Blow,
    keys: Arc<KeySet>,
    memory: Memory,
    lease: LeaseCell,
    clock: Hand,
    /// The primary: the newest change, and whether it made the key useless.
    primary: Mutex<(Epoch, bool)>,
    /// The newest change that the node said it applied.
    confirmed: AtomicU64,
    /// Whether that change was answered `effective`.
    effective: AtomicU64,
}

impl World {
    fn new(mistake: Mistake, blow: Blow, is_known: bool) -> Self {
        let product = &*PRODUCT;
        let keys =
            Arc::new(KeySet::new(Arc::clone(&product.catalog), Arc::clone(&product.keyring)));
        let tokens = Arc::new(AdminTokens::new(Arc::clone(&product.keyring)));
        let memory = Memory::new(Arc::clone(&keys), tokens);
        memory.begin_load();
        let tenant = TenantAuthority { id: TENANT, slug: "acme".to_owned(), suspended: false };
        let role = "analyst".to_owned();
        let member = MemberAuthority { tenant: TENANT, user: OWNER, role };
        memory.load(vec![Fact::Tenant(tenant), Fact::Member(member)]);
        if is_known {
            memory.load(vec![fact(false)]);
        }
        memory.end_load(Incarnation::FIRST, Epoch(0));
        let world = Self {
            mistake,
            blow,
            keys,
            memory,
            lease: LeaseCell::default(),
            clock: Hand(AtomicU64::new(1)),
            primary: Mutex::default(),
            confirmed: AtomicU64::new(0),
            effective: AtomicU64::new(0),
        };
        world.grant(1);
        world
    }

    fn grant(&self, sent: u64) {
        let until_ns = sent + LEASE;
        self.lease.grant(Lease { until_ns, stale_until_ns: until_ns });
    }

    /// The node renews: what changed into memory, then the lease.
    fn renew(&self) {
        let sent = self.clock.monotonic_ns();
        let (epoch, is_useless) = *self.primary.lock();
        if self.mistake == Mistake::GrantEarly {
            self.grant(sent);
        }
        let changed = is_useless.then(|| self.blow.changed(epoch)).into_iter().collect();
        self.memory.apply(changed, epoch, epoch);
        self.confirmed.store(epoch.0, SeqCst);
        if self.mistake != Mistake::GrantEarly {
            self.grant(sent);
        }
    }

    /// Somebody makes the key useless, and waits for the node or for the end of its lease.
    fn strike(&self) {
        *self.primary.lock() = (Epoch(1), true);
        let committed = self.clock.monotonic_ns();
        if self.confirmed.load(SeqCst) < 1 {
            self.clock.0.fetch_max(committed + LEASE, SeqCst);
        }
        self.effective.store(1, SeqCst);
    }

    /// The key is looked up by itself.
    fn look_up(&self) {
        let early = self.memory.begin_fill().unwrap();
        let (epoch, is_revoked) = *self.primary.lock();
        let stamp = if self.mistake == Mistake::StampLate {
            self.memory.end_fill(early);
            self.memory.begin_fill().unwrap()
        } else {
            early
        };
        let subject = Invalidation::Key(TENANT, PRODUCT.key.id);
        let facts = vec![(subject, fact(is_revoked))];
        let found = Found { incarnation: Incarnation::FIRST, epoch, facts };
        self.memory.settle(stamp, Wanted::Key(PRODUCT.key.id), found);
        self.memory.end_fill(stamp);
    }

    /// What memory says, and whether the blow was effective before memory was read.
    fn remember(&self) -> (bool, bool) {
        let was_effective = self.effective.load(SeqCst) == 1;
        let format = self.keys.keyring().format();
        let found = self.keys.recognize(&format.parse(&PRODUCT.token).unwrap());
        let is_good = |key: &KnownKey| {
            key.revoked_at.is_none() && !key.tenant_suspended && key.role.is_some()
        };
        let accepts = matches!(&found, Recognized::Known(key) if is_good(key));
        (accepts, was_effective)
    }

    /// A request: what was effective before memory was read must be in a decision.
    fn decide(&self) {
        let ((accepts, was_effective), vouched) = match self.mistake {
            Mistake::LeaseLast => {
                let found = self.remember();
                let lease = self.lease.read();
                (found, self.clock.monotonic_ns() < lease.until_ns)
            }
            Mistake::ClockEarly => {
                let lease = self.lease.read();
                let vouched = self.clock.monotonic_ns() < lease.until_ns;
                (self.remember(), vouched)
            }
            _ => self.lease.vouch(&self.clock, || self.remember()),
        };
        assert!(!(accepts && vouched && was_effective), "accepted after the blow");
    }
}

fn fact(is_revoked: bool) -> Fact {
    let revoked_at = is_revoked.then(|| Timestamp::from_millis(1));
    Fact::Key(Box::new(KeyAuthority { revoked_at, ..PRODUCT.key.clone() }))
}

/// Two requests, a blow, and a node that renews twice; with a look-up when the key is not in memory
/// at first.
fn scene(mistake: Mistake, blow: Blow, is_known: bool) {
    let world = Arc::new(World::new(mistake, blow, is_known));
    let run = |software: fn(&World)| {
        let world = Arc::clone(&world);
        thread::spawn(move || software(&world))
    };
    let mut threads = vec![run(World::decide), run(World::decide), run(World::strike)];
    threads.push(run(|world| {
        world.renew();
        world.renew();
    }));
    if !is_known {
        threads.push(run(World::look_up));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    world.decide();
}

fn try_with(scheduler: impl Scheduler + 'static, mistake: Mistake, blow: Blow, is_known: bool) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    Runner::new(scheduler, config).run(move || scene(mistake, blow, is_known));
}

#[expect(clippy::disallowed_methods, reason = "how many orders are tried, from outside")]
fn schedules() -> usize {
    let text = std::env::var("KEYWARD_SCHEDULES").ok();
    text.map_or(SCHEDULES, |text| text.parse().unwrap())
}

fn try_all(mistake: Mistake, blow: Blow, is_known: bool, schedules: usize) {
    let half = schedules / 2;
    try_with(PctScheduler::new_from_seed(SEED, DEPTH, half), mistake, blow, is_known);
    try_with(RandomScheduler::new_from_seed(SEED, half), mistake, blow, is_known);
}

fn is_noticed(mistake: Mistake, blow: Blow, is_known: bool) -> bool {
    let tried = || try_all(mistake, blow, is_known, SCHEDULES_OF_A_MISTAKE);
    catch_unwind(AssertUnwindSafe(tried)).is_err()
}

#[test]
fn no_order_accepts_a_revoked_key() {
    try_all(Mistake::None, Blow::Key, true, schedules());
}

#[test]
fn no_order_accepts_a_key_of_a_suspended_tenant() {
    try_all(Mistake::None, Blow::Tenant, true, schedules());
}

#[test]
fn no_order_accepts_a_key_of_an_offboarded_owner() {
    try_all(Mistake::None, Blow::Member, true, schedules());
}

#[test]
fn no_order_of_a_look_up_accepts_a_revoked_key() {
    try_all(Mistake::None, Blow::Key, false, schedules());
}

#[test]
fn a_lease_that_is_read_after_memory_is_noticed() {
    assert!(is_noticed(Mistake::LeaseLast, Blow::Key, true));
}

#[test]
fn a_clock_that_is_read_before_memory_is_noticed() {
    assert!(is_noticed(Mistake::ClockEarly, Blow::Key, true));
}

#[test]
fn a_lease_that_is_granted_before_its_facts_is_noticed() {
    for blow in [Blow::Key, Blow::Tenant, Blow::Member] {
        assert!(is_noticed(Mistake::GrantEarly, blow, true));
    }
}

#[test]
fn a_look_up_that_is_stamped_after_its_reading_is_noticed() {
    assert!(is_noticed(Mistake::StampLate, Blow::Key, false));
}
