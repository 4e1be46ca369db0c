//! List API keys, newest first.

use keyward_api::keys::{Key, ListKeysQuery};
use keyward_api::page::Page;
use keyward_core::id::KeyId;
use keyward_core::time::DAY_MS;
use keyward_core::{Error, Result, Timestamp};
use keyward_store::KeyFilter;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Query;

pub(super) async fn handle(ctx: Ctx, Query(query): Query<ListKeysQuery>) -> Result<Answer> {
    let now = ctx.now();
    let page = query.page()?;
    let unused = query.unused_days.map(|days| now.plus_ms(-i64::from(days) * DAY_MS));
    let filter = KeyFilter {
        before: page.cursor.as_deref().map(parse_cursor).transpose()?,
        environment: query.environment,
        owner: query.owner_id,
        scope: query.scope,
        text: query.text,
        unused_since: unused,
        state: query.state,
        include_deleted: query.include_deleted.unwrap_or_default(),
        limit: page.limit + 1,
    };
    let mut keys = ctx.read().await?.keys(&filter, now).await?;
    let more = keys.len() > page.limit as usize;
    keys.truncate(page.limit as usize);
    let next_cursor = keys.last().filter(|_| more).map(|key| cursor(key.created_at, key.id));
    let data = keys.iter().map(|key| Key::new(key, now)).collect();
    Answer::json(&Page { data, next_cursor })
}

fn cursor(created_at: Timestamp, id: KeyId) -> String {
    format!("{}.{id}", created_at.as_millis())
}

fn parse_cursor(text: &str) -> Result<(Timestamp, KeyId)> {
    let parsed = text.split_once('.').and_then(|(millis, id)| {
        Some((Timestamp::from_millis(millis.parse().ok()?), id.parse().ok()?))
    });
    let text = "cursor must be the nextCursor of an earlier page, unchanged";
    parsed.ok_or_else(|| Error::validation("cursor", text))
}
