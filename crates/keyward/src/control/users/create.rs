//! Create a person, without a membership yet.

use keyward_api::users::CreateUser;
use keyward_core::Result;
use keyward_core::id::UserId;
use keyward_store::{Chain, Change, User, UserKind};
use serde_json::json;

use super::{address, shown, taken};
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Json;

pub(super) async fn handle(ctx: Ctx, Json(body): Json<CreateUser>) -> Result<Answer> {
    let mut tx = ctx.write_system("make a user", Chain::Operator).await?;
    if let Some(replay) = ctx.claim(&mut tx).await? {
        return Ok(replay);
    }
    let user = User {
        id: UserId::generate(ctx.clock()),
        kind: UserKind::Person,
        email: Some(address(&body.email)),
        name: body.name,
        administrator: false,
        created_at: tx.at(),
    };
    tx.insert_user(&user, None).await.map_err(taken)?;
    let shown = shown(&user);
    let change = Change::new((), ctx.audit(&user.id, json!({ "after": shown })))
        .replayed_as(Answer::kept(&shown)?);
    tx.finish(change).await?;
    Answer::json(&shown)
}
