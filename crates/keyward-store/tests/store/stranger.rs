//! Every method of a tenant's transaction, called by a stranger: nothing is seen, nothing changes.

use std::collections::BTreeSet;

use keyward_core::authority::Invalidation;
use keyward_core::id::{AuditEventId, KeyId};
use keyward_core::key::{ApiKey, KeyHint, RevokeReason};
use keyward_core::lease::Epoch;
use keyward_store::{AuditFilter, Change, KeyFilter, Store, StoreError, TenantTx, WriteTx};

use super::fixture::{ADA, BOB, HASH, OWNER, author, entry, key, on_every_store};

const KEY: KeyId = KeyId::from_bits(7);

/// What ADA has that BOB might reach for.
struct Mine {
    key: ApiKey,
    event: AuditEventId,
    change: Epoch,
}

/// The methods that a check has called.
#[derive(Default)]
struct Called(BTreeSet<&'static str>);

async fn furnish(store: &Store) -> Mine {
    let mut tx = store.write(ADA, author()).await.unwrap();
    let mut key = key(KEY.bits(), tx.at());
    key.suspect_since = Some(tx.at());
    tx.insert_key(&key, &HASH, 1).await.unwrap();
    let change = Change::new((), entry("api_key.created", &KEY));
    let committed = tx.finish(change.invalidating([Invalidation::Key(ADA, KEY)])).await.unwrap();
    let mut tx = store.read(ADA).await.unwrap();
    let events = tx.audit_events(&AuditFilter { limit: 1, ..AuditFilter::default() }).await;
    Mine { key, event: events.unwrap().first().unwrap().id, change: committed.epoch }
}

async fn reads(called: &mut Called, tx: &mut TenantTx, mine: &Mine) {
    let now = mine.key.created_at;
    let filter = KeyFilter { include_deleted: true, limit: 50, ..KeyFilter::default() };
    let events = AuditFilter { limit: 50, ..AuditFilter::default() };
    assert_eq!(tx.find_key(KEY).await.unwrap(), None);
    assert!(tx.keys(&filter, now).await.unwrap().is_empty());
    assert!(tx.active_keys_of(OWNER, now, 50).await.unwrap().is_empty());
    assert!(tx.suspect_keys("owner", now, 50).await.unwrap().is_empty());
    assert_eq!(tx.count_suspect_keys(now).await.unwrap(), 0);
    assert_eq!(tx.find_change(mine.change).await.unwrap(), None);
    assert_eq!(tx.role_of(OWNER).await.unwrap(), None);
    assert!(tx.find_member(OWNER).await.unwrap().is_none());
    assert!(tx.members(None, None, 50).await.unwrap().is_empty());
    assert!(tx.find_audit_event(mine.event).await.unwrap().is_none());
    let own = tx.audit_events(&events).await.unwrap();
    assert!(own.iter().all(|event| event.target_id == BOB.to_string()), "{own:?}");
    assert_eq!(tx.audit_events_after(0, 50).await.unwrap().len(), own.len());
    assert_eq!(usize::try_from(tx.audit_head().await.unwrap().0).unwrap(), own.len());
    assert_eq!(tx.find_tenant().await.unwrap().unwrap().id, BOB);
    called.0.extend([
        "find_key",
        "keys",
        "active_keys_of",
        "suspect_keys",
        "count_suspect_keys",
        "find_change",
        "role_of",
        "find_member",
        "members",
        "find_audit_event",
        "audit_events",
        "audit_events_after",
        "audit_head",
        "find_tenant",
    ]);
}

async fn writes(called: &mut Called, tx: &mut WriteTx<TenantTx>, mine: &Mine) {
    let mut stolen = mine.key.clone();
    stolen.revoke(RevokeReason::Other, mine.key.created_at);
    tx.update_key(&stolen).await.unwrap();
    let hint = KeyHint::new(*b"evil").unwrap();
    tx.set_key_secret(KEY, &HASH, 2, hint).await.unwrap();
    assert!(!tx.set_role(OWNER, "admin").await.unwrap());
    assert!(!tx.offboard(OWNER, mine.key.created_at).await.unwrap());
    tx.set_suspended(Some(mine.key.created_at), Some("taken over")).await.unwrap();
    called.0.extend(["update_key", "set_key_secret", "set_role", "offboard", "set_suspended"]);
}

#[tokio::test]
async fn a_stranger_sees_and_changes_nothing() {
    on_every_store(async |store| {
        let mine = furnish(store).await;
        let mut called = Called::default();
        let mut tx = store.read(BOB).await.unwrap();
        reads(&mut called, &mut tx, &mine).await;
        assert_eq!(
            tx.owned_keys(OWNER, mine.key.created_at, mine.key.created_at).await.unwrap().active,
            0
        );
        called.0.insert("owned_keys");
        drop(tx);

        let mut tx = store.write(BOB, author()).await.unwrap();
        writes(&mut called, &mut tx, &mine).await;
        tx.finish(Change::new((), entry("tenant.suspended", &BOB))).await.unwrap();

        // the owner is no member here, so a key cannot be slipped in under their name
        let mut tx = store.write(BOB, author()).await.unwrap();
        let refused = tx.insert_key(&key(8, mine.key.created_at), &HASH, 1).await;
        assert!(matches!(refused, Err(StoreError::ForeignKeyViolation)), "{refused:?}");
        called.0.insert("insert_key");
        drop(tx);

        let mut tx = store.read(ADA).await.unwrap();
        assert_eq!(tx.find_key(KEY).await.unwrap(), Some(mine.key.clone()));
        assert_eq!(tx.role_of(OWNER).await.unwrap().as_deref(), Some("owner"));
        assert_eq!(tx.find_tenant().await.unwrap().unwrap().suspended_at, None);
        assert_eq!(called.0, methods(), "a method is not called as a stranger");
    })
    .await;
}

/// The public methods of a tenant's transaction, read from its source.
fn methods() -> BTreeSet<&'static str> {
    const SOURCES: [&str; 6] = [
        include_str!("../../src/sql/audit.rs"),
        include_str!("../../src/sql/changes.rs"),
        include_str!("../../src/sql/keys.rs"),
        include_str!("../../src/sql/members.rs"),
        include_str!("../../src/sql/tenants.rs"),
        include_str!("../../src/tx.rs"),
    ];
    let mut names = BTreeSet::new();
    for source in SOURCES {
        let mut inside = false;
        for line in source.lines() {
            inside = (inside && line != "}") || line.starts_with("impl TenantTx");
            let method = line.trim().strip_prefix("pub async fn ").filter(|_| inside);
            names.extend(method.and_then(|rest| rest.split('(').next()));
        }
    }
    names
}

#[test]
fn no_other_source_adds_methods_to_a_tenants_transaction() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sql");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let read = ["audit.rs", "changes.rs", "keys.rs", "members.rs", "tenants.rs"]
            .contains(&name.as_str());
        assert!(read || !source.contains("impl TenantTx"), "add {name} to the sources above");
    }
}
