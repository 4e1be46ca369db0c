//! Work that goes on beside requests: noting when keys were used, forgetting old records.

use std::sync::Arc;
use std::time::Duration;

use keyward_gateway::{DataPlane, UsageRow};
use keyward_store::{LastUse, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// The longest time for which a key's last use is only in memory.
const USAGE_PERIOD: Duration = Duration::from_secs(5);
/// Keys whose use is written in one transaction.
const USAGE_BATCH: usize = 1_000;
/// How often old idempotency records are forgotten.
const PURGE_PERIOD: Duration = Duration::from_secs(600);

/// The jobs of a node.
pub(crate) struct Jobs {
    store: Store,
    plane: Arc<DataPlane>,
}

impl Jobs {
    /// Starts the jobs; they end when `stopped` turns true.
    pub(crate) fn start(
        store: Store,
        plane: Arc<DataPlane>,
        stopped: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        tokio::spawn(Self { store, plane }.run(stopped))
    }

    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut usage = interval(USAGE_PERIOD);
        let mut purge = interval(PURGE_PERIOD);
        usage.set_missed_tick_behavior(MissedTickBehavior::Delay);
        purge.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = usage.tick() => self.note_usage().await,
                _ = purge.tick() => self.purge().await,
                _ = stopped.changed() => break,
            }
        }
        self.note_usage().await;
    }

    async fn note_usage(&self) {
        note_usage(&self.store, &self.plane).await;
    }

    async fn purge(&self) {
        if let Err(error) = self.store.purge_idempotency().await {
            tracing::warn!(%error, "old idempotency keys were not forgotten");
        }
    }
}

/// Writes what keys did since the last time. What cannot be written is lost and said so: it is
/// housekeeping, and must not pile up while the store is away.
pub(crate) async fn note_usage(store: &Store, plane: &DataPlane) {
    loop {
        let rows = plane.drain_usage(USAGE_BATCH);
        let uses: Vec<LastUse> = rows.into_iter().filter_map(last_use).collect();
        if uses.is_empty() {
            return;
        }
        if let Err(error) = store.record_last_use(&uses).await {
            tracing::warn!(%error, keys = uses.len(), "the last use of keys was not noted");
            return;
        }
    }
}

fn last_use(row: UsageRow) -> Option<LastUse> {
    let last = row.last?;
    Some(LastUse {
        tenant: row.tenant,
        key: row.key,
        at: last.at,
        ip: Some(last.ip.to_string()),
        agent: last.agent.map(String::from),
    })
}
