//! Ask how far a change has reached.

use keyward_api::fence::Fence;
use keyward_core::lease::Epoch;
use keyward_core::{Error, ErrorCode, Result};

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

/// For the operator, whoever's the change is.
pub(super) async fn of_anybody(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let epoch = Epoch(ctx.parameter("epoch", "change")?);
    let mut tx = ctx.read_system("find a change by its number").await?;
    tx.find_change(epoch).await?.ok_or_else(|| Error::not_found("change"))?;
    drop(tx);
    reach(&ctx, epoch, &format!("/v1/changes/{epoch}")).await
}

/// For those who may see the tenant.
pub(super) async fn of_tenant(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let epoch = Epoch(ctx.parameter("epoch", "change")?);
    let mut tx = ctx.read().await?;
    tx.find_change(epoch).await?.ok_or_else(|| Error::not_found("change"))?;
    let poll = format!("/v1/tenants/{}/changes/{epoch}", tx.tenant());
    drop(tx);
    reach(&ctx, epoch, &poll).await
}

async fn reach(ctx: &Ctx, epoch: Epoch, poll: &str) -> Result<Answer> {
    let away = |cause: String| {
        let text = "How far the change has reached cannot be told just now; ask again shortly";
        Error::new(ErrorCode::Unavailable, text).because(cause)
    };
    let reached = ctx.state().follower.reach(epoch).await;
    let reached = reached.map_err(|error| away(error.to_string()))?;
    let reach = reached.ok_or_else(|| away("not applied on this node yet".to_owned()))?;
    Answer::json(&Fence::of(epoch.0, &reach, ctx.now(), poll))
}
