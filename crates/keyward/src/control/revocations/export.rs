//! Export the log of lowered authority, part by part.

use keyward_api::revocations::{DEFAULT_REVOCATIONS_LIMIT, RevocationsQuery};
use keyward_core::Result;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Query;
use crate::restore;

pub(super) async fn handle(ctx: Ctx, Query(query): Query<RevocationsQuery>) -> Result<Answer> {
    let limit = query.limit.unwrap_or(DEFAULT_REVOCATIONS_LIMIT);
    let part = restore::part(&ctx.state().store, query.after.unwrap_or_default(), limit).await?;
    Answer::json(&part)
}
