//! Confirm an API key that a restore could not vouch for: it works again.

use keyward_api::keys::{ConfirmedKey, Key};
use keyward_core::Result;
use keyward_store::Change;
use serde_json::json;

use super::{find, policy, touched};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    let now = tx.at();
    let mut key = find(&ctx, &mut tx).await?;
    let since = key.suspect_since;
    key.confirm(now)?;
    policy::owner_role(&ctx, &mut tx, &key).await?;
    tx.update_key(&key).await?;
    let details = json!({ "before": { "suspectSince": since }, "after": { "suspectSince": null } });
    let change = Change::new((), ctx.audit(&key.id, details)).invalidating([touched(&key)]);
    tx.finish(change).await?;
    Answer::json(&ConfirmedKey { key: Key::new(&key, now) })
}
