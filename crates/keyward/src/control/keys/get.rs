//! Get an API key, also a deleted one.

use keyward_api::keys::Key;
use keyward_core::id::KeyId;
use keyward_core::{Error, Result};

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let id: KeyId = ctx.parameter("keyId", "key")?;
    let key = ctx.read().await?.find_key(id).await?.ok_or_else(|| Error::not_found("key"))?;
    Answer::json(&Key::new(&key, ctx.now()))
}
