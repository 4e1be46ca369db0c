//! Change a member's role: the ceiling of every key they own.

use keyward_api::members::{ChangeMemberRole, ChangedMember};
use keyward_core::authority::Invalidation;
use keyward_core::{Error, Result};
use keyward_store::{Change, Member};
use serde_json::json;

use super::{find, roles, shown};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<ChangeMemberRole>) -> Result<Answer> {
    roles::grantable(&ctx, &body.role)?;
    let mut tx = ctx.write().await?;
    let before = find(&ctx, &mut tx).await?;
    if !tx.set_role(before.user, &body.role).await? {
        return Err(Error::not_found("member"));
    }
    let after = Member { role: body.role, ..before.clone() };
    let details = json!({ "before": { "role": before.role }, "after": { "role": after.role } });
    let touched = Invalidation::Member(tx.tenant(), after.user);
    let change = Change::new((), ctx.audit(&after.user, details)).invalidating([touched]);
    let committed = tx.finish(change).await?;
    let fence = ctx.fence(&committed, None);
    Answer::fenced(&ChangedMember { member: shown(&after), fence })
}
