//! A server that begins another history: a standby was promoted.

use std::sync::Arc;

use keyward_core::Timestamp;
use keyward_core::authority::Invalidation;
use keyward_core::id::NodeId;
use keyward_core::lease::{Ask, Epoch, Incarnation, NodeProfile, Ticket};
use keyward_store::{Chain, Change, Store, StoreError};
use keyward_testkit::TestDatabase;

use crate::fixture::{ADA, CountingClock, author, entry};

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
