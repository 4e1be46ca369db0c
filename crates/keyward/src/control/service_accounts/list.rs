//! List service accounts, newest first, offboarded ones included.

use keyward_api::page::PageQuery;
use keyward_api::service_accounts::ServiceAccount;
use keyward_core::Result;
use keyward_store::{Member, UserKind};

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Query;
use crate::control::paging;

pub(super) async fn handle(ctx: Ctx, Query(query): Query<PageQuery>) -> Result<Answer> {
    let page = query.page()?;
    let before = paging::begin(&page, paging::read_place)?;
    let mut tx = ctx.read().await?;
    let tenant_id = tx.tenant();
    let kind = Some(UserKind::Service);
    let members = tx.members(kind, before, page.limit + 1).await?;
    let place = |member: &Member| paging::write_place(member.created_at, &member.user);
    Answer::json(&paging::end(members, &page, place, |member| ServiceAccount {
        id: member.user,
        tenant_id,
        name: member.name.clone(),
        role: member.role.clone(),
        created_at: member.created_at,
        offboarded_at: member.offboarded_at,
    }))
}
