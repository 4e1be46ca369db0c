//! Revoke an API key, for ever. Every node refuses it before this answers.

use keyward_api::keys::{ChangedKey, Key, RevokeKey};
use keyward_core::Result;
use keyward_store::Change;
use serde_json::json;

use super::{find, touched};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<RevokeKey>) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    let now = tx.at();
    let mut key = find(&ctx, &mut tx).await?;
    let already = key.revoked_at;
    key.revoke(body.reason, now);
    tx.update_key(&key).await?;
    let details = json!({
        "reason": key.revoke_reason,
        "comment": body.comment,
        "before": { "revokedAt": already },
        "after": { "revokedAt": key.revoked_at },
    });
    let change = Change::new((), ctx.audit(&key.id, details)).invalidating([touched(&key)]);
    let committed = tx.finish(change).await?;
    let fence = ctx.fence(&committed, key.revoked_at);
    Answer::fenced(&ChangedKey { key: Key::new(&key, now), fence })
}
