//! A server that begins another history: a standby was promoted.

use std::sync::Arc;

use keyward_core::Timestamp;
use keyward_core::authority::{Changed, Fact, Invalidation};
use keyward_core::id::{KeyId, NodeId};
use keyward_core::lease::{Ask, Epoch, Incarnation, NodeProfile, Ticket};
use keyward_store::{Chain, Change, Store, StoreError};
use keyward_testkit::TestDatabase;

use crate::fixture::{ADA, CountingClock, HASH, author, entry, key, on_every_store};

async fn narrow(store: &Store) -> Result<Epoch, StoreError> {
    let tx = store.write_system("test", Chain::Operator, author()).await?;
    let change = Change::new((), entry("test", &ADA));
    let committed = tx.finish(change.invalidating([Invalidation::Tenant(ADA)])).await?;
    Ok(committed.epoch)
}

fn profile() -> NodeProfile {
    NodeProfile {
        node: NodeId::from_bits(1),
        roles: "gateway".to_owned(),
        version: "0".to_owned(),
        hold_ms: 2_000,
        started_at: Timestamp::from_millis(0),
    }
}

fn renewal(ticket: u64, incarnation: Incarnation, applied: Epoch) -> Ask {
    Ask { ticket: Ticket(ticket), renew: true, incarnation, applied }
}

#[tokio::test]
async fn nothing_is_numbered_on_a_promoted_standby_before_its_history_is_entered() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let clock = Arc::new(CountingClock::default());
    let store = Store::open(&database.config(), clock).await.unwrap();
    // before any node has asked, the server's history is nobody's
    assert_eq!(narrow(&store).await.unwrap(), Epoch(1));
    let first = Incarnation::FIRST;
    let asked = store.answer(&profile(), renewal(1, first, Epoch(1))).await.unwrap();
    assert_eq!((asked.reply.incarnation, asked.listed.len()), (first, 1));
    assert_eq!(narrow(&store).await.unwrap(), Epoch(2));

    let url = database.superuser_url().unwrap();
    let (superuser, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    superuser.batch_execute("UPDATE keyward.authority SET timeline = 99").await.unwrap();
    let refused = narrow(&store).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");

    // what the node has applied was of another history, and is not entered in this one
    let asked = store.answer(&profile(), renewal(2, first, Epoch(1))).await.unwrap();
    assert!(asked.reply.incarnation > first);
    assert!(asked.listed.is_empty());
    let listed = store.roster().await.unwrap().listed;
    assert_eq!(listed.iter().map(|row| row.renewals).collect::<Vec<_>>(), [1]);
    assert_eq!(narrow(&store).await.unwrap(), Epoch(3));
}

#[tokio::test]
async fn a_node_reads_every_key_of_a_change_however_many() {
    on_every_store(async |store| {
        let mut tx = store.write(ADA, author()).await.unwrap();
        let made = 1_000..1_120;
        for id in made.clone() {
            let key = key(id, tx.at());
            tx.insert_key(&key, &HASH, 1).await.unwrap();
        }
        let touched = made.clone().map(|id| Invalidation::Key(ADA, KeyId::from_bits(id)));
        let change = Change::new((), entry("test", &ADA)).invalidating(touched);
        let epoch = tx.finish(change).await.unwrap().epoch;
        let ask = renewal(1, Incarnation::FIRST, Epoch(epoch.0 - 1));
        let answered = store.answer(&profile(), ask).await.unwrap();
        assert_eq!((answered.reply.epoch, answered.reply.through), (epoch, epoch));
        assert_eq!(answered.changed.len(), made.count());
        for Changed { epoch: newest, subject, fact } in answered.changed {
            assert_eq!(newest, epoch);
            let Fact::Key(key) = fact else { panic!("{subject:?} is not read") };
            assert_eq!(subject, Invalidation::Key(ADA, key.id));
        }
    })
    .await;
}
