//! Revoke an admin token, for ever; also the very one that calls.

use keyward_api::admin_tokens::RevokedAdminToken;
use keyward_core::authority::Invalidation;
use keyward_core::id::AdminTokenId;
use keyward_core::{Error, Result};
use keyward_store::{Chain, Change};
use serde_json::json;

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let id: AdminTokenId = ctx.parameter("adminTokenId", "admin token")?;
    let mut tx = ctx.write_system("revoke an admin token", Chain::Operator).await?;
    let now = tx.at();
    let first = tx.revoke_admin_token(id, now).await?;
    let token = tx.find_admin_token(id).await?.ok_or_else(|| Error::not_found("admin token"))?;
    // a repetition leaves the first instant
    let before = token.revoked_at.filter(|_| !first);
    let details = json!({
        "before": { "revokedAt": before },
        "after": { "revokedAt": token.revoked_at },
    });
    let change =
        Change::new((), ctx.audit(&id, details)).invalidating([Invalidation::AdminToken(id)]);
    let committed = tx.finish(change).await?;
    let fence = ctx.fence(&committed, token.revoked_at);
    Answer::fenced(&RevokedAdminToken { admin_token: shown(&token, now), fence })
}
