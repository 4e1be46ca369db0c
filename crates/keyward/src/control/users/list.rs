//! List people, newest first.

use keyward_api::page::PageQuery;
use keyward_core::Result;

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Query;
use crate::control::paging;

pub(super) async fn handle(ctx: Ctx, Query(query): Query<PageQuery>) -> Result<Answer> {
    let page = query.page()?;
    let before = paging::begin(&page, |text| text.parse().ok())?;
    let users = ctx.read_system("list users").await?.users(before, page.limit + 1).await?;
    Answer::json(&paging::end(users, &page, |user| user.id.to_string(), shown))
}
