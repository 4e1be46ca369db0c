//! Get a user.

use keyward_core::id::UserId;
use keyward_core::{Error, Result};

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let id: UserId = ctx.parameter("userId", "user")?;
    let mut tx = ctx.read_system("show a user").await?;
    let user = tx.find_user(id).await?.ok_or_else(|| Error::not_found("user"))?;
    Answer::json(&shown(&user))
}
