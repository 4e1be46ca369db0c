//! The one write path: everything or nothing, audited once, numbered without gaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use keyward_core::audit::GENESIS;
use keyward_core::authority::Invalidation;
use keyward_core::id::KeyId;
use keyward_core::lease::Reach;
use keyward_store::{AuditFilter, Change, Claim, Idempotency, KeyFilter, Store, StoreError};

use super::fixture::{ADA, BOB, HASH, author, entry, key, on_every_store};

fn every() -> AuditFilter {
    AuditFilter { limit: 200, ..AuditFilter::default() }
}

async fn add_key(store: &Store, id: u128) -> Result<i64, StoreError> {
    let mut tx = store.write(ADA, author()).await?;
    let key = key(id, tx.at());
    tx.insert_key(&key, &HASH, 1).await?;
    let change = Change::new((), entry("api_key.created", &key.id));
    let committed = tx.finish(change.invalidating([Invalidation::Key(ADA, key.id)])).await?;
    Ok(i64::try_from(committed.epoch.0).unwrap())
}

#[tokio::test]
async fn a_dropped_change_leaves_nothing_behind() {
    on_every_store(async |store| {
        let before = store.read(ADA).await.unwrap().audit_events(&every()).await.unwrap().len();
        let mut tx = store.write(ADA, author()).await.unwrap();
        let at = tx.at();
        tx.insert_key(&key(7, at), &HASH, 1).await.unwrap();
        drop(tx);
        let mut tx = store.read(ADA).await.unwrap();
        assert_eq!(tx.find_key(KeyId::from_bits(7)).await.unwrap(), None);
        assert_eq!(tx.audit_events(&every()).await.unwrap().len(), before);
    })
    .await;
}

#[tokio::test]
async fn a_change_is_audited_once_and_numbered_next() {
    on_every_store(async |store| {
        let first = add_key(store, 7).await.unwrap();
        let second = add_key(store, 8).await.unwrap();
        assert_eq!(second, first + 1);
        let mut tx = store.read(ADA).await.unwrap();
        let key = tx.find_key(KeyId::from_bits(7)).await.unwrap().unwrap();
        assert_eq!(key.scopes, ["reports:read"]);
        assert_eq!(key.ip_allowlist.to_strings(), ["203.0.113.0/24"]);
        let filter = AuditFilter { target: Some(key.id.to_string()), ..every() };
        assert_eq!(tx.audit_events(&filter).await.unwrap().len(), 1);
        let epoch = store.read_system("test").await.unwrap().epoch().await.unwrap().0;
        assert_eq!(epoch, second);
    })
    .await;
}

#[tokio::test]
async fn the_chain_of_a_tenant_verifies_from_its_first_event() {
    on_every_store(async |store| {
        for id in 10..15 {
            add_key(store, id).await.unwrap();
        }
        let mut tx = store.read(ADA).await.unwrap();
        let events = tx.audit_events_after(0, 200).await.unwrap();
        let (mut sequence, mut previous) = (0, GENESIS);
        for event in &events {
            assert!(event.follows(&ADA.to_string(), sequence, &previous), "{event:?}");
            (sequence, previous) = (event.sequence, event.hash);
        }
        assert_eq!(tx.audit_head().await.unwrap(), (sequence, previous));
        let other = store.read(BOB).await.unwrap().audit_head().await.unwrap();
        assert_eq!(other.0, 1, "the other tenant has a chain of its own");
    })
    .await;
}

#[tokio::test]
async fn writers_at_once_leave_no_gap_in_chain_or_epochs() {
    on_every_store(async |store| {
        let before = store.read_system("test").await.unwrap().epoch().await.unwrap().0;
        let tasks: Vec<_> = (100..132)
            .map(|id| {
                let store = store.clone();
                tokio::spawn(async move { add_key(&store, id).await })
            })
            .collect();
        let mut epochs = Vec::new();
        for task in tasks {
            epochs.push(task.await.unwrap().unwrap());
        }
        epochs.sort_unstable();
        assert_eq!(epochs, (before + 1..=before + 32).collect::<Vec<_>>());
        let events = store.read(ADA).await.unwrap().audit_events_after(0, 200).await.unwrap();
        let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=i64::try_from(events.len()).unwrap()).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn the_hook_runs_before_the_answer_and_also_when_the_caller_left() {
    on_every_store(async |store| {
        let seen = Arc::new(AtomicI64::new(0));
        let noted = Arc::clone(&seen);
        store.on_commit(Arc::new(move |fenced| {
            let noted = Arc::clone(&noted);
            Box::pin(async move {
                noted.store(i64::try_from(fenced.epoch.0).unwrap(), Ordering::SeqCst);
                Reach { effective_by: None, nodes: 1, unconfirmed: 0 }
            })
        }));
        let epoch = add_key(store, 7).await.unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), epoch);
        let mut tx = store.write(ADA, author()).await.unwrap();
        let key = key(8, tx.at());
        tx.insert_key(&key, &HASH, 1).await.unwrap();
        let change = Change::new((), entry("api_key.created", &key.id));
        let finish = tx.finish(change.invalidating([Invalidation::Key(ADA, key.id)]));
        // polled once, then dropped: the caller hung up while the commit was on its way
        let polled = tokio::time::timeout(std::time::Duration::ZERO, finish).await;
        drop(polled);
        while seen.load(Ordering::SeqCst) == epoch {
            tokio::task::yield_now().await;
        }
        assert!(store.read(ADA).await.unwrap().find_key(key.id).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn an_idempotency_key_has_one_effect() {
    on_every_store(async |store| {
        let request = |fingerprint: u8| Idempotency {
            principal: "adm_1".to_owned(),
            operation: "createKey",
            key: "retry-1".to_owned(),
            fingerprint: [fingerprint; 32],
        };
        let mut tx = store.write(ADA, author()).await.unwrap();
        assert_eq!(tx.claim(request(1)).await.unwrap(), Claim::Fresh);
        let change = Change::new((), entry("api_key.created", &"key")).replayed_as("{}".into());
        tx.finish(change).await.unwrap();
        let mut tx = store.write(ADA, author()).await.unwrap();
        assert_eq!(tx.claim(request(1)).await.unwrap(), Claim::Replay("{}".into()));
        assert_eq!(tx.claim(request(2)).await.unwrap(), Claim::Reused);
        drop(tx);
        let mut tx = store.write(BOB, author()).await.unwrap();
        assert_eq!(tx.claim(request(2)).await.unwrap(), Claim::Fresh, "another tenant's key");
        drop(tx);
        let mut tx = store.write(BOB, author()).await.unwrap();
        assert_eq!(tx.claim(request(3)).await.unwrap(), Claim::Fresh, "a dropped claim is free");
    })
    .await;
}

#[tokio::test]
async fn filters_and_pages_of_keys() {
    on_every_store(async |store| {
        for id in 20..25 {
            add_key(store, id).await.unwrap();
        }
        let now = store.clock().now();
        let mut tx = store.read(ADA).await.unwrap();
        let first = KeyFilter { limit: 3, ..KeyFilter::default() };
        let page = tx.keys(&first, now).await.unwrap();
        let ids = |keys: &[keyward_core::key::ApiKey]| -> Vec<u128> {
            keys.iter().map(|key| key.id.bits()).collect()
        };
        assert_eq!(ids(&page), [24, 23, 22]);
        let before = page.last().map(|key| (key.created_at, key.id));
        let page = tx.keys(&KeyFilter { before, ..first.clone() }, now).await.unwrap();
        assert_eq!(ids(&page), [21, 20]);
        let check = async |tx: &mut keyward_store::TenantTx, filter: KeyFilter, count: usize| {
            let filter = KeyFilter { limit: 50, ..filter };
            assert_eq!(tx.keys(&filter, now).await.unwrap().len(), count, "{filter:?}");
        };
        let scope = |name: &str| KeyFilter { scope: Some(name.to_owned()), ..KeyFilter::default() };
        check(&mut tx, scope("reports:read"), 5).await;
        check(&mut tx, scope("reports:rea"), 0).await;
        let text = |text: &str| KeyFilter { text: Some(text.to_owned()), ..KeyFilter::default() };
        check(&mut tx, text("KEY-2"), 5).await;
        check(&mut tx, text("key-20"), 1).await;
        check(&mut tx, text("%"), 0).await;
        let live = Some(keyward_core::Environment::Test);
        check(&mut tx, KeyFilter { environment: live, ..KeyFilter::default() }, 0).await;
        let state = Some(keyward_core::key::KeyState::Expired);
        let expired = KeyFilter { state, limit: 50, ..KeyFilter::default() };
        assert_eq!(tx.keys(&expired, now).await.unwrap().len(), 0);
        assert_eq!(tx.keys(&expired, now.plus_ms(120_000)).await.unwrap().len(), 5);
    })
    .await;
}

#[tokio::test]
async fn an_edit_that_began_before_a_revocation_does_not_take_it_back() {
    on_every_store(async |store| {
        add_key(store, 7).await.unwrap();
        let id = KeyId::from_bits(7);
        let mut edit = store.write(ADA, author()).await.unwrap();
        let mut edited = edit.find_key(id).await.unwrap().unwrap();
        let other = store.clone();
        let revocation = tokio::spawn(async move {
            let mut tx = other.write(ADA, author()).await.unwrap();
            let mut key = tx.find_key(id).await.unwrap().unwrap();
            key.revoke(keyward_core::key::RevokeReason::Leaked, tx.at());
            tx.update_key(&key).await.unwrap();
            tx.finish(Change::new(key.name, entry("api_key.revoked", &id))).await.unwrap().value
        });
        // the revocation is on its way while the edit is still open
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        edited.name = "renamed".to_owned();
        edit.update_key(&edited).await.unwrap();
        edit.finish(Change::new((), entry("api_key.updated", &id))).await.unwrap();
        assert_eq!(revocation.await.unwrap(), "renamed", "it was read after the edit");
        let key = store.read(ADA).await.unwrap().find_key(id).await.unwrap().unwrap();
        assert!(key.revoked_at.is_some());
    })
    .await;
}

#[tokio::test]
async fn the_latest_use_of_a_key_is_noted_and_no_earlier_one() {
    on_every_store(async |store| {
        add_key(store, 7).await.unwrap();
        add_key(store, 8).await.unwrap();
        let used = |id: u128, at: i64, agent: Option<&str>| keyward_store::LastUse {
            tenant: ADA,
            key: KeyId::from_bits(id),
            at: keyward_core::Timestamp::from_millis(at),
            ip: Some("203.0.113.9".to_owned()),
            agent: agent.map(str::to_owned),
        };
        let events = store.read(ADA).await.unwrap().audit_head().await.unwrap().0;
        let noted = [used(7, 2_000, Some("curl/8 \"quoted\"")), used(8, 3_000, None)];
        store.record_last_use(&noted).await.unwrap();
        store.record_last_use(&[used(7, 1_000, Some("late"))]).await.unwrap();
        store.record_last_use(&[]).await.unwrap();
        let mut tx = store.read(ADA).await.unwrap();
        let seven = tx.find_key(KeyId::from_bits(7)).await.unwrap().unwrap();
        assert_eq!(seven.last_used_at.map(keyward_core::Timestamp::as_millis), Some(2_000));
        assert_eq!(seven.last_used_agent.as_deref(), Some("curl/8 \"quoted\""));
        let eight = tx.find_key(KeyId::from_bits(8)).await.unwrap().unwrap();
        assert_eq!(
            (eight.last_used_ip.as_deref(), eight.last_used_agent),
            (Some("203.0.113.9"), None)
        );
        assert_eq!(tx.audit_head().await.unwrap().0, events, "housekeeping is no event");
    })
    .await;
}

#[tokio::test]
async fn a_key_is_marked_as_exposed_once_and_that_is_no_event() {
    use keyward_core::Timestamp;
    use keyward_core::key::{Exposed, Exposure};
    on_every_store(async |store| {
        add_key(store, 7).await.unwrap();
        let exposed = |at: i64, by: Exposure| keyward_store::ExposedKey {
            tenant: ADA,
            key: KeyId::from_bits(7),
            exposed: Exposed { at: Timestamp::from_millis(at), by },
        };
        let events = store.read(ADA).await.unwrap().audit_head().await.unwrap().0;
        store.record_exposures(&[]).await.unwrap();
        store.record_exposures(&[exposed(2_000, Exposure::Url)]).await.unwrap();
        store.record_exposures(&[exposed(1_000, Exposure::Browser)]).await.unwrap();
        let mut tx = store.read(ADA).await.unwrap();
        let seven = tx.find_key(KeyId::from_bits(7)).await.unwrap().unwrap();
        let first = Exposed { at: Timestamp::from_millis(2_000), by: Exposure::Url };
        assert_eq!(seven.exposed, Some(first));
        assert_eq!(tx.audit_head().await.unwrap().0, events, "housekeeping is no event");
    })
    .await;
}
