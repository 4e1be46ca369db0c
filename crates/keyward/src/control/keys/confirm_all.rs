//! Confirm all suspect API keys of a tenant whose owners the caller may act through.

use keyward_api::keys::{ConfirmedKeys, MAX_CONFIRMED};
use keyward_core::Result;
use keyward_core::key::ApiKey;
use keyward_store::{Change, TenantTx, WriteTx};
use serde_json::json;

use super::touched;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;
use crate::control::members::roles;

/// Ids that the audit event names; how many keys there were it always tells.
const NAMED_IDS: usize = 100;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    let now = tx.at();
    let mut keys = suspects(&ctx, &mut tx).await?;
    for key in &mut keys {
        key.confirm(now)?;
        tx.update_key(key).await?;
    }
    let confirmed = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let left = tx.count_suspect_keys(now).await?;
    let remaining = u64::try_from(left).unwrap_or_default();
    let ids: Vec<_> = keys.iter().take(NAMED_IDS).map(|key| key.id).collect();
    let details = json!({ "confirmed": confirmed, "remaining": remaining, "keyIds": ids });
    let change = Change::new((), ctx.audit(&tx.tenant(), details));
    tx.finish(change.invalidating(keys.iter().map(touched))).await?;
    Answer::json(&ConfirmedKeys { confirmed, remaining })
}

/// The keys to confirm: those of one role of the profile after the other. A role that the profile
/// has dropped allows its keys nothing, so there is nothing to confirm.
async fn suspects(ctx: &Ctx, tx: &mut WriteTx<TenantTx>) -> Result<Vec<ApiKey>> {
    let now = tx.at();
    let mut keys = Vec::new();
    for role in ctx.catalog().roles() {
        if roles::reachable(ctx, &role.name).is_err() {
            continue;
        }
        let found = u32::try_from(keys.len()).unwrap_or(MAX_CONFIRMED);
        let room = MAX_CONFIRMED.saturating_sub(found);
        keys.extend(tx.suspect_keys(&role.name, now, room).await?);
    }
    Ok(keys)
}
