//! List tenants, newest first.

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
    let mut tx = ctx.read_system("list tenants").await?;
    let tenants = tx.tenants(before, page.limit + 1).await?;
    Answer::json(&paging::end(tenants, &page, |tenant| tenant.id.to_string(), shown))
}
