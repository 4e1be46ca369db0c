//! List members, newest first, those who left included.

use keyward_api::page::PageQuery;
use keyward_core::Result;
use keyward_store::Member;

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Query;
use crate::control::paging;

pub(super) async fn handle(ctx: Ctx, Query(query): Query<PageQuery>) -> Result<Answer> {
    let page = query.page()?;
    let before = paging::begin(&page, paging::read_place)?;
    let members = ctx.read().await?.members(None, before, page.limit + 1).await?;
    let place = |member: &Member| paging::write_place(member.created_at, &member.user);
    Answer::json(&paging::end(members, &page, place, shown))
}
