//! What a restore needs of a store: the log of changes, another history, suspect keys, and chains.

use keyward_core::Timestamp;
use keyward_core::authority::Invalidation;
use keyward_core::id::KeyId;
use keyward_store::{Chain, Change, KeyFilter, LoggedChange, Store};

use super::fixture::{ADA, HASH, OWNER, author, entry, key, on_every_store};

/// Adds keys of ADA, each in a change of its own.
async fn add_keys(store: &Store, ids: std::ops::Range<u128>) {
    for id in ids {
        let mut tx = store.write(ADA, author()).await.unwrap();
        let key = key(id, tx.at());
        tx.insert_key(&key, &HASH, 1).await.unwrap();
        let change = Change::new((), entry("api_key.created", &key.id));
        tx.finish(change.invalidating([Invalidation::Key(ADA, key.id)])).await.unwrap();
    }
}

async fn epoch(store: &Store) -> (i64, i64) {
    store.read_system("test").await.unwrap().epoch().await.unwrap()
}

#[tokio::test]
async fn the_log_is_read_in_whole_epochs_and_in_their_order() {
    on_every_store(async |store| {
        let begin = epoch(store).await.0;
        add_keys(store, 10..13).await;
        // one change that touches several
        let tx = store.write(ADA, author()).await.unwrap();
        let many = (10..13).map(|id| Invalidation::Key(ADA, KeyId::from_bits(id)));
        let touched = many.chain([Invalidation::Member(ADA, OWNER), Invalidation::Tenant(ADA)]);
        tx.finish(Change::new((), entry("test", &ADA)).invalidating(touched)).await.unwrap();
        let mut tx = store.read_system("test").await.unwrap();
        let all = tx.changes_behind(begin, 100).await.unwrap();
        assert_eq!(all.len(), 3 + 5);
        assert!(all.is_sorted_by_key(|change| change.epoch));
        let first = LoggedChange {
            epoch: begin + 1,
            touched: Invalidation::Key(ADA, KeyId::from_bits(10)),
        };
        assert_eq!(all.first(), Some(&first));
        // part by part it is the same, whatever the size of a part
        for limit in 1..6 {
            let (mut parts, mut after) = (Vec::new(), begin);
            while let Some(last) = {
                let part = tx.changes_behind(after, limit).await.unwrap();
                assert!(part.len() < limit as usize + 5);
                parts.extend(part.iter().copied());
                part.last().map(|change| change.epoch)
            } {
                after = last;
            }
            assert_eq!(parts, all, "{limit}");
        }
    })
    .await;
}

#[tokio::test]
async fn another_history_never_goes_back_and_is_never_the_same_twice() {
    on_every_store(async |store| {
        let (before, incarnation) = epoch(store).await;
        let begin = async |least: i64, at: i64| {
            let mut tx = store.write_system("test", Chain::Operator, author()).await.unwrap();
            let begun = tx.begin_incarnation(least, Timestamp::from_millis(at)).await.unwrap();
            tx.finish(Change::new((), entry("test", &begun.1))).await.unwrap();
            assert_eq!(epoch(store).await, begun);
            begun
        };
        let first = begin(before + 40, 1_900_000_000_000).await;
        assert_eq!(first, (before + 40, 1_900_000_000_000));
        assert!(first.1 > incarnation);
        // an older log, and a clock that went back
        assert_eq!(begin(before, 5).await, (before + 40, 1_900_000_000_001));
    })
    .await;
}

#[tokio::test]
async fn every_active_key_is_made_suspect_once() {
    on_every_store(async |store| {
        add_keys(store, 10..16).await;
        let mut tx = store.write(ADA, author()).await.unwrap();
        let at = tx.at();
        let mut revoked = tx.find_key(KeyId::from_bits(10)).await.unwrap().unwrap();
        revoked.revoke(keyward_core::key::RevokeReason::Leaked, at);
        tx.update_key(&revoked).await.unwrap();
        let mut expired = tx.find_key(KeyId::from_bits(11)).await.unwrap().unwrap();
        expired.expires_at = Some(at);
        tx.update_key(&expired).await.unwrap();
        tx.finish(Change::new((), entry("test", &ADA))).await.unwrap();

        let mut tx = store.write_system("test", Chain::Operator, author()).await.unwrap();
        let at = tx.at();
        assert_eq!(tx.suspect_all_keys(at).await.unwrap(), 4);
        assert_eq!(tx.suspect_all_keys(at.plus_ms(1)).await.unwrap(), 0);
        tx.finish(Change::new((), entry("test", &ADA))).await.unwrap();

        let mut tx = store.read(ADA).await.unwrap();
        assert_eq!(tx.count_suspect_keys(at).await.unwrap(), 4);
        let suspects = tx.suspect_keys("owner", at, 3).await.unwrap();
        assert_eq!(suspects.len(), 3);
        assert!(suspects.iter().all(|key| key.suspect_since == Some(at)));
        assert!(tx.suspect_keys("viewer", at, 3).await.unwrap().is_empty());
        for (wanted, count) in [(Some(true), 4), (Some(false), 2), (None, 6)] {
            let filter = KeyFilter { suspect: wanted, limit: 50, ..KeyFilter::default() };
            assert_eq!(tx.keys(&filter, at).await.unwrap().len(), count, "{wanted:?}");
        }
        let mut tx = store.read_system("test").await.unwrap();
        let known = tx.key_authority(KeyId::from_bits(12)).await.unwrap().unwrap();
        assert_eq!(known.suspect_since, Some(at));
    })
    .await;
}

#[tokio::test]
async fn chains_are_listed_and_one_without_a_head_is_found() {
    on_every_store(async |store| {
        let mut tx = store.read_system("test").await.unwrap();
        let heads = tx.audit_chains("", 100).await.unwrap();
        assert_eq!(tx.headless_chain().await.unwrap(), None);
        let ada = heads.iter().find(|head| head.chain == ADA.to_string()).unwrap();
        let events = tx.chain_events_behind(&ada.chain, 0, 100).await.unwrap();
        assert_eq!(
            events.last().map(|event| (event.sequence, event.hash)),
            Some((ada.sequence, ada.hash))
        );
        let paged = tx.audit_chains(&heads[0].chain, 100).await.unwrap();
        assert_eq!(paged, heads[1..]);
    })
    .await;
}
