//! Get a member, with how many keys would stop if they left.

use keyward_api::members::{MemberDetails, OwnedKeys};
use keyward_core::id::UserId;
use keyward_core::time::DAY_MS;
use keyward_core::{Error, Result};

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

pub(super) async fn handle(ctx: Ctx, _: Nothing) -> Result<Answer> {
    let id: UserId = ctx.parameter("userId", "member")?;
    let now = ctx.now();
    let mut tx = ctx.read().await?;
    let member = tx.find_member(id).await?.ok_or_else(|| Error::not_found("member"))?;
    let owned = tx.owned_keys(id, now, now.plus_ms(-DAY_MS)).await?;
    let owned_keys = OwnedKeys {
        active: count(owned.active),
        used_last_day: count(owned.used),
        expired: count(owned.expired),
        revoked: count(owned.revoked),
    };
    Answer::json(&MemberDetails { member: shown(&member), owned_keys })
}

fn count(rows: i64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
