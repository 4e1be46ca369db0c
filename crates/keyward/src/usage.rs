//! When keys were last used: gathered in memory by the data plane, written here.

use keyward_gateway::{DataPlane, UsageRow};
use keyward_store::{LastUse, Store};

/// Keys whose use is written in one transaction.
const USAGE_BATCH: usize = 1_000;

/// Writes what keys did since the last time. What cannot be written is lost and said so: it is
/// housekeeping, and must not pile up while the store is away.
pub(crate) async fn note(store: &Store, plane: &DataPlane) {
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
