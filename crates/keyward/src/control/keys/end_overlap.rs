//! End the overlap of a rotation by hand: the old key is revoked.

use keyward_api::keys::{ChangedKey, Key};
use keyward_core::Result;
use keyward_store::Change;
use serde_json::json;

use super::{find, touched};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    let now = tx.at();
    let mut key = find(&ctx, &mut tx).await?;
    key.end_overlap(now)?;
    tx.update_key(&key).await?;
    let details = json!({ "replacedBy": key.replaced_by, "lastUsedAt": key.last_used_at });
    let change = Change::new((), ctx.audit(&key.id, details)).invalidating([touched(&key)]);
    let committed = tx.finish(change).await?;
    let fence = ctx.fence(&committed, key.revoked_at);
    Answer::fenced(&ChangedKey { key: Key::new(&key, now), fence })
}
