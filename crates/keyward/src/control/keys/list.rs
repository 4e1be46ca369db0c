//! List API keys, newest first.

use keyward_api::keys::{Key, ListKeysQuery};
use keyward_core::Result;
use keyward_core::key::ApiKey;
use keyward_core::time::DAY_MS;
use keyward_store::KeyFilter;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Query;
use crate::control::paging;

pub(super) async fn handle(ctx: Ctx, Query(query): Query<ListKeysQuery>) -> Result<Answer> {
    let now = ctx.now();
    let page = query.page()?;
    let unused = query.unused_days.map(|days| now.plus_ms(-i64::from(days) * DAY_MS));
    let filter = KeyFilter {
        before: paging::begin(&page, paging::read_place)?,
        environment: query.environment,
        owner: query.owner_id,
        scope: query.scope,
        text: query.text,
        unused_since: unused,
        state: query.state,
        suspect: query.suspect,
        include_deleted: query.include_deleted.unwrap_or_default(),
        limit: page.limit + 1,
    };
    let keys = ctx.read().await?.keys(&filter, now).await?;
    let cursor = |key: &ApiKey| paging::write_place(key.created_at, &key.id);
    Answer::json(&paging::end(keys, &page, cursor, |key| Key::new(key, now)))
}
