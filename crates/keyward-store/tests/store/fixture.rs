//! Stores on every engine, with two tenants to tell apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use keyward_core::audit::{Actor, ActorKind, AuditEntry, AuditOutcome, Origin};
use keyward_core::authority::Invalidation;
use keyward_core::id::{KeyId, TenantId, UserId};
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{ApiKey, KeyHash, KeyHint};
use keyward_core::{Clock, Environment, Timestamp};
use keyward_store::{Author, Chain, Change, Store, Tenant, User, UserKind};
use keyward_testkit::TestDatabase;
use serde_json::json;

/// A clock that moves by one millisecond at each look, with counted "randomness".
#[derive(Default)]
pub(crate) struct CountingClock {
    looks: AtomicI64,
    random: AtomicU64,
}

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + self.looks.fetch_add(1, Ordering::Relaxed))
    }
    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.looks.load(Ordering::Relaxed)).unwrap() * 1_000_000
    }
    fn fill_random(&self, buffer: &mut [u8]) {
        for slot in buffer {
            let next = self.random.fetch_add(1, Ordering::Relaxed);
            *slot = (next.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
        }
    }
}

pub(crate) const ADA: TenantId = TenantId::from_bits(1);
pub(crate) const BOB: TenantId = TenantId::from_bits(2);
pub(crate) const OWNER: UserId = UserId::from_bits(3);

/// Runs a test on a fresh store of every engine at hand, with the tenants ADA and BOB, and OWNER
/// as a member of ADA.
pub(crate) async fn on_every_store(test: impl AsyncFn(&Store)) {
    for database in TestDatabase::every().await {
        eprintln!("on {}", database.engine_name());
        let clock = Arc::new(CountingClock::default());
        let store = Store::open(&database.config(), clock).await.unwrap();
        prepare(&store).await;
        Box::pin(test(&store)).await;
    }
}

pub(crate) async fn prepare(store: &Store) {
    for (id, slug) in [(ADA, "ada"), (BOB, "bob")] {
        let chain = Chain::Tenant(id);
        let mut tx = store.write_system("test", chain, author()).await.unwrap();
        let tenant = Tenant {
            id,
            slug: slug.to_owned(),
            name: slug.to_owned(),
            created_at: tx.at(),
            suspended_at: None,
            suspend_reason: None,
        };
        tx.insert_tenant(&tenant).await.unwrap();
        let change = Change::new((), entry("tenant.created", &id));
        tx.finish(change.invalidating([Invalidation::Tenant(id)])).await.unwrap();
    }
    let mut tx = store.write_system("test", Chain::Tenant(ADA), author()).await.unwrap();
    let user = User {
        id: OWNER,
        kind: UserKind::Person,
        email: Some("ada@example.test".to_owned()),
        name: "Ada".to_owned(),
        administrator: false,
        created_at: tx.at(),
    };
    tx.insert_user(&user, None).await.unwrap();
    let at = tx.at();
    assert!(tx.insert_member(ADA, OWNER, "owner", at).await.unwrap());
    tx.finish(Change::new((), entry("member.added", &OWNER))).await.unwrap();
}

pub(crate) fn author() -> Author {
    let actor =
        Actor { kind: ActorKind::System, id: "-".to_owned(), name: "test".to_owned(), role: None };
    Author { actor, origin: Origin::default() }
}

pub(crate) fn entry(action: &'static str, target: &dyn std::fmt::Display) -> AuditEntry {
    AuditEntry {
        action,
        target_kind: "test",
        target_id: target.to_string(),
        outcome: AuditOutcome::Succeeded,
        details: json!({}),
    }
}

pub(crate) fn key(id: u128, at: Timestamp) -> ApiKey {
    ApiKey {
        tenant: ADA,
        id: KeyId::from_bits(id),
        environment: Environment::Live,
        name: format!("key-{id}"),
        description: String::new(),
        hint: KeyHint::new(*b"abcd").unwrap(),
        scopes: vec!["reports:read".to_owned()],
        owner: OWNER,
        created_by: "test".to_owned(),
        created_at: at,
        expires_at: Some(at.plus_ms(60_000)),
        revoked_at: None,
        revoke_reason: None,
        suspect_since: None,
        exposed: None,
        ip_allowlist: IpAllowlist::parse(&["203.0.113.0/24"]).unwrap(),
        rate_limit: None,
        lineage: KeyId::from_bits(id),
        rotated_from: None,
        replaced_by: None,
        deleted_at: None,
        last_used_at: None,
        last_used_ip: None,
        last_used_agent: None,
    }
}

pub(crate) const HASH: KeyHash = KeyHash::from_bytes([9; 32]);
