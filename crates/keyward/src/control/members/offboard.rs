//! Offboard a member: the membership ends and no key of theirs goes on as it was, in one write.

use keyward_api::members::{NarrowedKey, OffboardMember, OffboardedMember};
use keyward_core::authority::Invalidation;
use keyward_core::id::UserId;
use keyward_core::key::{ApiKey, RevokeReason};
use keyward_core::{Catalog, Error, Result, Timestamp};
use keyward_store::{Change, Member, TenantTx, WriteTx};
use serde_json::json;

use super::{find, roles, shown};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

/// The most active keys of a member who is offboarded: the write and its fence stay short.
const MAX_KEYS: u32 = 1_000;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<OffboardMember>) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    let now = tx.at();
    let before = find(&ctx, &mut tx).await?;
    if !tx.offboard(before.user, now).await? {
        return Err(Error::not_found("member"));
    }
    let mut keys = active_keys(&mut tx, before.user, now).await?;
    let narrowed_keys = match body.rehome_to {
        Some(owner) => rehome(&ctx, &mut tx, &mut keys, &before.role, owner).await?,
        None => revoke(&mut tx, &mut keys, now).await?,
    };
    let after = Member { offboarded_at: Some(now), ..before.clone() };
    let details = json!({
        "before": shown(&before),
        "after": shown(&after),
        "keys": body.keys,
        "rehomeTo": body.rehome_to,
        "keyIds": keys.iter().map(|key| key.id).collect::<Vec<_>>(),
        "narrowedKeys": narrowed_keys,
    });
    let touched = keys.iter().map(|key| Invalidation::Key(key.tenant, key.id));
    let change = Change::new((), ctx.audit(&after.user, details))
        .invalidating([Invalidation::Member(tx.tenant(), after.user)])
        .invalidating(touched);
    let committed = tx.finish(change).await?;
    let handled = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let (revoked_keys, rehomed_keys, revoked_at) = match body.rehome_to {
        Some(_) => (0, handled, None),
        None => (handled, 0, (handled > 0).then_some(now)),
    };
    let fence = ctx.fence(&committed, revoked_at);
    let member = shown(&after);
    Answer::fenced(&OffboardedMember { member, revoked_keys, rehomed_keys, narrowed_keys, fence })
}

async fn active_keys(
    tx: &mut WriteTx<TenantTx>,
    owner: UserId,
    now: Timestamp,
) -> Result<Vec<ApiKey>> {
    let keys = tx.active_keys_of(owner, now, MAX_KEYS + 1).await?;
    if keys.len() <= MAX_KEYS as usize {
        return Ok(keys);
    }
    let text =
        format!("The member owns more than {MAX_KEYS} active keys; revoke some of them first");
    Err(Error::conflict(text).with("maxKeys", MAX_KEYS))
}

async fn revoke(
    tx: &mut WriteTx<TenantTx>,
    keys: &mut [ApiKey],
    now: Timestamp,
) -> Result<Vec<NarrowedKey>> {
    for key in keys {
        key.revoke(RevokeReason::Offboarding, now);
        tx.update_key(key).await?;
    }
    Ok(Vec::new())
}

/// Gives the keys to another owner and tells which scopes stop. A key brings along no scope that
/// its last owner could not use: it would come to life under a stronger role.
async fn rehome(
    ctx: &Ctx,
    tx: &mut WriteTx<TenantTx>,
    keys: &mut [ApiKey],
    old_role: &str,
    owner: UserId,
) -> Result<Vec<NarrowedKey>> {
    let text = "rehomeTo names nobody else who is a member of this tenant now";
    let nobody = || Error::validation("rehomeTo", text);
    // the member who leaves is none any more
    let role = tx.role_of(owner).await?.ok_or_else(nobody)?;
    roles::reachable(ctx, &role)?;
    let catalog = ctx.catalog();
    let mut narrowed = Vec::new();
    for key in keys {
        key.owner = owner;
        key.scopes.retain(|scope| allows(catalog, old_role, scope));
        if key.scopes.is_empty() {
            key.revoke(RevokeReason::Offboarding, tx.at());
        }
        tx.update_key(key).await?;
        let stops = |scope: &&String| !allows(catalog, &role, scope);
        let stopped_scopes: Vec<String> = key.scopes.iter().filter(stops).cloned().collect();
        if !stopped_scopes.is_empty() {
            narrowed.push(NarrowedKey { key_id: key.id, stopped_scopes });
        }
    }
    Ok(narrowed)
}

fn allows(catalog: &Catalog, role: &str, scope: &str) -> bool {
    let needed = catalog.requirement(&[scope]);
    let role = catalog.role(role);
    needed.zip(role).is_some_and(|(needed, role)| role.areas.contains_all(needed.areas))
}
