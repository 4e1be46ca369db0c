//! Edit an API key. What narrows it is fenced.

use keyward_api::keys::{Key, Patch, UpdateKey, UpdatedKey};
use keyward_core::Result;
use keyward_core::key::ApiKey;
use keyward_store::Change;
use serde_json::json;

use super::{find, policy, touched};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<UpdateKey>) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    let now = tx.at();
    let before = find(&ctx, &mut tx).await?;
    before.ensure_active(now)?;
    policy::owner_role(&ctx, &mut tx, &before).await?;
    let mut after = before.clone();
    apply(&mut after, body, now)?;
    tx.update_key(&after).await?;
    let narrowed =
        after.expires_at != before.expires_at || !before.ip_allowlist.within(&after.ip_allowlist);
    let (before, key) = (Key::new(&before, now), Key::new(&after, now));
    let audit = ctx.audit(&after.id, json!({ "before": before, "after": key }));
    let committed = tx.finish(Change::new((), audit).invalidating([touched(&after)])).await?;
    let fence = narrowed.then(|| ctx.fence(&committed, None));
    Answer::fenced(&UpdatedKey { key, fence })
}

fn apply(key: &mut ApiKey, body: UpdateKey, now: keyward_core::Timestamp) -> Result<()> {
    if let Some(name) = body.name {
        key.name = name;
    }
    if let Some(description) = body.description {
        key.description = description;
    }
    if let Some(entries) = body.ip_allowlist {
        key.ip_allowlist = policy::networks(&entries)?;
    }
    match body.rate_limit {
        Patch::Keep => {}
        Patch::Clear => key.rate_limit = None,
        Patch::Set(limit) => key.rate_limit = Some(limit),
    }
    match body.expires_at {
        Some(at) => key.shorten(at, now),
        None => Ok(()),
    }
}
