//! Resume a suspended tenant: its keys that are still active work again.

use keyward_core::authority::Invalidation;
use keyward_core::{Error, Result};
use keyward_store::{Change, Tenant};
use serde_json::json;

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    let before = tx.find_tenant().await?.ok_or_else(|| Error::not_found("tenant"))?;
    tx.set_suspended(None, None).await?;
    let after = Tenant { suspended_at: None, suspend_reason: None, ..before.clone() };
    let details = json!({ "before": shown(&before), "after": shown(&after) });
    let change = Change::new((), ctx.audit(&after.id, details))
        .invalidating([Invalidation::Tenant(after.id)]);
    tx.finish(change).await?;
    Answer::json(&shown(&after))
}
