//! When keys were last used, and which were exposed: gathered in memory by the data plane, written
//! here.

use keyward_core::key::TokenFormat;
use keyward_gateway::{DataPlane, MAX_USED_KEYS, UsageRow};
use keyward_store::{ExposedKey, LastUse, Store};

use crate::user_agent;

/// Keys whose use is written in one transaction.
const USAGE_BATCH: usize = 1_000;

/// Writes what keys did since the last time. What cannot be written is lost and said so: it is
/// housekeeping, and must not pile up while the store is away.
pub(crate) async fn note(store: &Store, plane: &DataPlane) {
    note_exposures(store, plane).await;
    // taken out once: keys in use are back before they are written, and this would never end
    write(store, plane, plane.drain_usage(MAX_USED_KEYS)).await;
}

/// The same for one of [`USAGE_PARTS`](keyward_gateway::USAGE_PARTS) parts of the keys, but for
/// those that were written a short while ago; exposures go with the first.
pub(crate) async fn note_part(store: &Store, plane: &DataPlane, part: usize) {
    if part == 0 {
        note_exposures(store, plane).await;
    }
    write(store, plane, plane.drain_usage_part(part)).await;
}

async fn write(store: &Store, plane: &DataPlane, rows: Vec<UsageRow>) {
    let format = plane.keys().keyring().format();
    let uses: Vec<LastUse> = rows.into_iter().filter_map(|row| last_use(row, format)).collect();
    for batch in uses.chunks(USAGE_BATCH) {
        if let Err(error) = store.record_last_use(batch).await {
            tracing::warn!(%error, keys = uses.len(), "the last use of keys was not noted");
            return;
        }
    }
}

async fn note_exposures(store: &Store, plane: &DataPlane) {
    let rows = plane.drain_exposures();
    let exposed = rows.into_iter().map(|it| ExposedKey {
        tenant: it.tenant,
        key: it.key,
        exposed: it.exposed,
    });
    let exposed: Vec<ExposedKey> = exposed.collect();
    for batch in exposed.chunks(USAGE_BATCH) {
        if let Err(error) = store.record_exposures(batch).await {
            tracing::warn!(%error, keys = exposed.len(), "exposed keys were not marked");
            return;
        }
    }
}

fn last_use(row: UsageRow, format: &TokenFormat) -> Option<LastUse> {
    let last = row.last?;
    Some(LastUse {
        tenant: row.tenant,
        key: row.key,
        at: last.at,
        ip: Some(last.ip.to_string()),
        agent: last.agent.map(|agent| user_agent::kept(&agent, format)),
    })
}
