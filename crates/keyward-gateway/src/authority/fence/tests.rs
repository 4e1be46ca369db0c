use keyward_core::authority::{Answered, Fact, Found, Wanted};
use keyward_core::clock::Clock;
use keyward_core::id::NodeId;
use keyward_core::lease::{Ask, Lease, Terms};
use keyward_core::time::Timestamp;
use tokio::sync::mpsc;

use super::*;
use crate::admin_tokens::AdminTokens;
use crate::authority::{Authority, LeaseCell, Membership, Replied, Revocation};
use crate::keyset::KeySet;
use crate::keyset::tests::{catalog, keyring};

/// An authority that answers nothing.
struct Silent;

fn never<T: 'static>() -> Replied<'static, T> {
    Box::pin(std::future::pending())
}

impl Authority for Silent {
    fn ask(&self, _: Ask) -> Replied<'_, Answered> {
        never()
    }

    fn load(&self, _: mpsc::Sender<Vec<Fact>>) -> Replied<'_, (Incarnation, Epoch)> {
        never()
    }

    fn find(&self, _: Wanted) -> Replied<'_, Found> {
        never()
    }

    fn acknowledge(&self, _: Incarnation, _: Epoch) -> Replied<'_, ()> {
        never()
    }

    fn roster(&self) -> Replied<'_, Roster> {
        never()
    }

    fn deregister(&self) -> Replied<'_, ()> {
        never()
    }

    fn forget(&self, _: Vec<Listed>) -> Replied<'_, ()> {
        never()
    }

    fn begin_incarnation(&self, _: Incarnation) -> Replied<'_, ()> {
        never()
    }

    fn revoke_anew(&self, _: Vec<Revocation>) -> Replied<'_, ()> {
        never()
    }
}

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, _: &mut [u8]) {}
}

fn sole_node() -> Arc<Follower> {
    let keyring = Arc::new(keyring());
    let following = Following {
        authority: Arc::new(Silent),
        clock: Arc::new(Still),
        terms: Terms::DEFAULT,
        membership: Membership {
            node: NodeId::from_bits(1),
            spread: 0,
            sole: true,
            janitor: false,
        },
    };
    let keys = Arc::new(KeySet::new(catalog(), Arc::clone(&keyring)));
    let admin_tokens = Arc::new(AdminTokens::new(keyring));
    Follower::new(following, keys, admin_tokens, Arc::default())
}

#[tokio::test]
async fn a_sole_node_does_not_call_effective_what_it_has_not_applied() {
    let change = Fenced {
        epoch: Epoch(1),
        incarnation: Incarnation::FIRST,
        listed: Vec::new(),
        committed_ns: 0,
        introduces: false,
        patience: Duration::ZERO,
    };
    let reach = sole_node().fence(change).await;
    // two seconds of lease, the drift of a millisecond, and the margin
    assert_eq!(reach.effective_by, Some(Still.now().plus_ms(2_051)));
    assert_eq!((reach.nodes, reach.unconfirmed), (1, 1));
}

#[test]
fn a_lease_that_is_taken_back_vouches_for_nothing_read_meanwhile() {
    let lease = LeaseCell::default();
    lease.grant(Terms::DEFAULT.lease(0));
    assert!(lease.vouch(&Still, || ()).1);
    assert!(!lease.vouch(&Still, || lease.grant(Lease::OVER)).1);
}
