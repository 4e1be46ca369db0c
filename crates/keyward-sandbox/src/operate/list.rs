//! Pages of rows, newest first.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_core::{Error, ErrorCode};
use serde_json::{Value, json};

use super::{Work, unknown_query};
use crate::declare::List;
use crate::evaluate::{Scope, has_text};
use crate::reply::Answer;
use crate::space::Space;
use crate::{DEFAULT_PAGE, MAX_PAGE};

/// What the query asks for.
struct Page<'q> {
    limit: usize,
    before: u64,
    filters: Vec<(&'q str, Vec<&'q str>)>,
}

impl Work<'_> {
    pub(super) fn list(&self, list: &List, space: &Space) -> Result<Answer, Error> {
        let page = page(list, self.request.query)?;
        let linked = self.links(space)?;
        let collection = self.collection(&list.collection)?;
        let scope = Scope::of_request(self.request, space, &linked);
        let mut rows = Vec::new();
        let mut position = None;
        let mut more = false;
        for (at, row) in space.table(&list.collection)?.before(page.before) {
            let wanted = page.filters.iter().all(|(field, values)| {
                let value = row.field(collection, field, scope.now);
                value.is_some_and(|value| values.iter().any(|text| has_text(&value, text)))
            });
            if !wanted || !scope.selects(collection, row, &list.only) {
                continue;
            }
            if rows.len() == page.limit {
                more = true;
                break;
            }
            rows.push(Value::Object(row.shown(collection, list.fields.as_deref(), scope.now)));
            position = Some(at);
        }
        let next_cursor = position.filter(|_| more).map(cursor);
        if self.operation.bare {
            return Ok(Answer { next_cursor, ..self.answer(Value::Array(rows)) });
        }
        Ok(self.answer(json!({ "data": rows, "nextCursor": next_cursor })))
    }
}

fn page<'q>(list: &'q List, query: &'q [(String, String)]) -> Result<Page<'q>, Error> {
    let most = list.max_limit.unwrap_or(MAX_PAGE);
    let mut page = Page { limit: DEFAULT_PAGE.min(most), before: u64::MAX, filters: Vec::new() };
    for (name, value) in query {
        let invalid = |text: String| {
            Err(Error::new(ErrorCode::InvalidRequest, text).with("parameter", name.as_str()))
        };
        match name.as_str() {
            "limit" => match value.parse() {
                Ok(limit) if (1..=most).contains(&limit) => page.limit = limit,
                _ => return invalid(format!("`limit` must be between 1 and {most}")),
            },
            "cursor" => {
                // well-formed, as far as the document can say
                let text = "`cursor` must be a `nextCursor` of this list";
                let foreign =
                    || Error::new(ErrorCode::ValidationFailed, text).with("field", "cursor");
                page.before = position(value).ok_or_else(foreign)?;
            }
            field if list.filter.iter().any(|known| known == field) => {
                page.filters.push((field, value.split(',').collect()));
            }
            _ => {
                let mut known: Vec<&str> = list.filter.iter().map(String::as_str).collect();
                known.extend(["limit", "cursor"]);
                return Err(unknown_query(name, &known));
            }
        }
    }
    Ok(page)
}

/// A cursor is the position of the last row that was shown. It is no secret and grants nothing.
fn cursor(position: u64) -> String {
    URL_SAFE_NO_PAD.encode(position.to_be_bytes())
}

fn position(cursor: &str) -> Option<u64> {
    let bytes: [u8; 8] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}
