//! Get a tenant.

use keyward_core::{Error, Result};

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let mut tx = ctx.state().store.read(ctx.tenant()?).await?;
    let tenant = tx.find_tenant().await?.ok_or_else(|| Error::not_found("tenant"))?;
    Answer::json(&shown(&tenant))
}
