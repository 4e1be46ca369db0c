//! Suspend a tenant: none of its keys works until it is resumed.

use keyward_api::tenants::{SuspendTenant, SuspendedTenant};
use keyward_core::authority::Invalidation;
use keyward_core::{Error, Result};
use keyward_store::{Change, Tenant};
use serde_json::json;

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<SuspendTenant>) -> Result<Answer> {
    let mut tx = ctx.write().await?;
    let before = tx.find_tenant().await?.ok_or_else(|| Error::not_found("tenant"))?;
    // a repetition changes the reason, not the instant
    let since = before.suspended_at.unwrap_or_else(|| tx.at());
    tx.set_suspended(Some(since), Some(&body.reason)).await?;
    let after =
        Tenant { suspended_at: Some(since), suspend_reason: Some(body.reason), ..before.clone() };
    let details = json!({ "before": shown(&before), "after": shown(&after) });
    let change = Change::new((), ctx.audit(&after.id, details))
        .invalidating([Invalidation::Tenant(after.id)]);
    let committed = tx.finish(change).await?;
    let fence = ctx.fence(&committed, None);
    Answer::fenced(&SuspendedTenant { tenant: shown(&after), fence })
}
