//! A node that only does what is due from time to time. It decides nothing and may read nothing
//! that is decided with, so it is on no register and no change waits for it.

use std::time::Duration;

use keyward_core::authority::{Answered, Fact, Found, Wanted};
use keyward_core::lease::{Ask, Epoch, Incarnation, Listed, Roster, Terms, Witness};
use keyward_gateway::authority::{Authority, Away, Replied, Revocation};
use keyward_store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// How often the register is looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(5);

/// What a plane follows that is to decide nothing: whoever asks it is told to call another node.
pub(super) struct Undecided;

fn undecided<T>() -> Replied<'static, T>
where
    T: Send + 'static,
{
    let text = "this node only has the role worker and decides nothing";
    Box::pin(std::future::ready(Err(Away(text.to_owned()))))
}

impl Authority for Undecided {
    fn ask(&self, _: Ask) -> Replied<'_, Answered> {
        undecided()
    }

    fn load(&self, _: mpsc::Sender<Vec<Fact>>) -> Replied<'_, (Incarnation, Epoch)> {
        undecided()
    }

    fn find(&self, _: Wanted) -> Replied<'_, Found> {
        undecided()
    }

    fn acknowledge(&self, _: Incarnation, _: Epoch) -> Replied<'_, ()> {
        undecided()
    }

    fn roster(&self) -> Replied<'_, Roster> {
        undecided()
    }

    fn deregister(&self) -> Replied<'_, ()> {
        undecided()
    }

    fn forget(&self, _: Vec<Listed>) -> Replied<'_, ()> {
        undecided()
    }

    fn begin_incarnation(&self, _: Incarnation) -> Replied<'_, ()> {
        undecided()
    }

    fn revoke_anew(&self, _: Vec<Revocation>) -> Replied<'_, ()> {
        undecided()
    }
}

/// Takes nodes off the register that ended without saying so, for ever.
pub(super) async fn keep_register(store: Store, terms: Terms) {
    let mut witness = Witness::default();
    let mut period = interval(LOOK_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        match forget_silent(&store, &mut witness, terms).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "nodes that had ended were taken off the register"),
            Err(error) => tracing::warn!(%error, "the register was not looked at"),
        }
    }
}

async fn forget_silent(
    store: &Store,
    witness: &mut Witness,
    terms: Terms,
) -> Result<u64, StoreError> {
    let Roster { incarnation, listed, .. } = store.roster().await?;
    let now_ns = store.clock().monotonic_ns();
    witness.observe(incarnation, &listed, now_ns);
    let silent: Vec<Listed> =
        listed.into_iter().filter(|node| witness.may_forget(node, now_ns, terms)).collect();
    if silent.is_empty() {
        return Ok(0);
    }
    store.forget_nodes(&silent).await
}
