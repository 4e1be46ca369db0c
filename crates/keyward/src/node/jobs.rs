//! Work that goes on beside requests: noting when keys were used, forgetting old records.

use std::sync::Arc;
use std::time::Duration;

use keyward_gateway::{DataPlane, USAGE_PARTS};
use keyward_store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::usage;

/// How long a key's use after a pause is only in memory. A key in constant use is written every
/// [`USAGE_TURNS`](keyward_gateway::USAGE_TURNS) of these, so once a minute: its rows are rewritten
/// less often, and what was its last use is exact a minute after it.
const USAGE_PERIOD: Duration = Duration::from_secs(10);
#[expect(clippy::cast_possible_truncation, reason = "there are a few")]
const PARTS: u32 = USAGE_PARTS as u32;
/// How often old idempotency records are forgotten.
const PURGE_PERIOD: Duration = Duration::from_mins(10);

/// The jobs of a node.
pub(crate) struct Jobs {
    store: Store,
    plane: Arc<DataPlane>,
    /// Whether old records are forgotten here.
    purges: bool,
    /// Whether requests are forwarded from here.
    forwards: bool,
}

impl Jobs {
    /// Starts the jobs; they end when `stopped` turns true.
    pub(crate) fn start(
        store: Store,
        plane: Arc<DataPlane>,
        purges: bool,
        forwards: bool,
        stopped: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        tokio::spawn(Self { store, plane, purges, forwards }.run(stopped))
    }

    async fn run(self, mut stopped: watch::Receiver<bool>) {
        // in small bites: ten thousand keys at once would keep a core from requests for 60 ms
        let mut noting = interval(USAGE_PERIOD / PARTS);
        let mut parts = (0..USAGE_PARTS).cycle();
        let mut purge = interval(PURGE_PERIOD);
        noting.set_missed_tick_behavior(MissedTickBehavior::Delay);
        purge.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let plane = Arc::clone(&self.plane);
        let mut checking = std::pin::pin!(plane.check_upstreams());
        loop {
            tokio::select! {
                never = &mut checking, if self.forwards => match never {},
                _ = noting.tick() => {
                    let part = parts.next().unwrap_or_default();
                    usage::note_part(&self.store, &self.plane, part).await;
                }
                _ = purge.tick(), if self.purges => self.purge().await,
                _ = stopped.changed() => break,
            }
        }
        usage::note(&self.store, &self.plane).await;
    }

    async fn purge(&self) {
        if let Err(error) = self.store.purge_idempotency().await {
            tracing::warn!(%error, "old idempotency keys were not forgotten");
        }
    }
}
