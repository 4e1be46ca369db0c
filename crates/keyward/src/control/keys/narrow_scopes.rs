//! Take scopes from an API key.

use keyward_api::keys::{ChangedKey, Key, NarrowKeyScopes};
use keyward_core::Result;
use keyward_store::Change;
use serde_json::json;

use super::{find, touched};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<NarrowKeyScopes>) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    let now = tx.at();
    let mut key = find(&ctx, &mut tx).await?;
    let before = key.scopes.clone();
    key.narrow(&body.remove, now)?;
    tx.update_key(&key).await?;
    let details = json!({ "before": { "scopes": before }, "after": { "scopes": key.scopes } });
    let change = Change::new((), ctx.audit(&key.id, details)).invalidating([touched(&key)]);
    let committed = tx.finish(change).await?;
    let fence = ctx.fence(&committed, None);
    Answer::fenced(&ChangedKey { key: Key::new(&key, now), fence })
}
