//! Delete an API key: revoke it when it is still active and hide it from lists, in one write.

use keyward_api::keys::{ChangedKey, Key};
use keyward_core::Result;
use keyward_core::key::{KeyState, RevokeReason};
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
    let before = Key::new(&key, now);
    if key.state(now) == KeyState::Active {
        key.revoke(RevokeReason::Deleted, now);
    }
    key.deleted_at = Some(now);
    tx.update_key(&key).await?;
    let shown = Key::new(&key, now);
    let details = json!({ "before": before, "after": shown });
    let change = Change::new((), ctx.audit(&key.id, details)).invalidating([touched(&key)]);
    let committed = tx.finish(change).await?;
    let fence = ctx.fence(&committed, key.revoked_at);
    Answer::fenced(&ChangedKey { key: shown, fence })
}
