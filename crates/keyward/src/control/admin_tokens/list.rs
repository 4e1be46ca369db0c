//! List admin tokens, newest first.

use keyward_api::page::PageQuery;
use keyward_core::Result;
use keyward_store::AdminToken;

use super::shown;
use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Query;
use crate::control::paging;

pub(super) async fn handle(ctx: Ctx, Query(query): Query<PageQuery>) -> Result<Answer> {
    let now = ctx.now();
    let page = query.page()?;
    let before = paging::begin(&page, paging::read_place)?;
    let mut tx = ctx.read_system("list admin tokens").await?;
    let tokens = tx.admin_tokens(before, page.limit + 1).await?;
    let place = |token: &AdminToken| paging::write_place(token.created_at, &token.id);
    Answer::json(&paging::end(tokens, &page, place, |token| shown(token, now)))
}
