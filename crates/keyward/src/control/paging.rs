//! Keyset pages: where one begins, and where it ends.

use std::str::FromStr;

use keyward_api::page::{Page, PageRequest};
use keyward_core::{Error, Result, Timestamp};

/// The place a page begins at, read by `parse` from the cursor of the page before.
pub(super) fn begin<T>(
    page: &PageRequest,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    let Some(cursor) = &page.cursor else { return Ok(None) };
    let text = "cursor must be the nextCursor of an earlier page, unchanged";
    parse(cursor).map(Some).ok_or_else(|| Error::validation("cursor", text))
}

/// The page made of `rows`, of which there is one more than the limit when another page follows.
pub(super) fn end<R, T>(
    mut rows: Vec<R>,
    page: &PageRequest,
    cursor: impl FnOnce(&R) -> String,
    show: impl FnMut(&R) -> T,
) -> Page<T> {
    let limit = page.limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(cursor);
    Page { data: rows.iter().map(show).collect(), next_cursor }
}

/// The cursor of a list in the order of creation, whose ids alone do not give that order.
pub(super) fn write_place(created_at: Timestamp, id: &dyn std::fmt::Display) -> String {
    format!("{}.{id}", created_at.as_millis())
}

/// Reads what [`write_place`] wrote.
pub(super) fn read_place<T: FromStr>(text: &str) -> Option<(Timestamp, T)> {
    let (millis, id) = text.split_once('.')?;
    Some((Timestamp::from_millis(millis.parse().ok()?), id.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_given_only_when_more_follows() {
        let page = PageRequest { limit: 2, cursor: None };
        let cut = |rows: Vec<u32>| end(rows, &page, ToString::to_string, |n| *n);
        assert_eq!(cut(vec![3, 2]), Page { data: vec![3, 2], next_cursor: None });
        let first = Page { data: vec![3, 2], next_cursor: Some("2".to_owned()) };
        assert_eq!(cut(vec![3, 2, 1]), first);
    }

    #[test]
    fn a_cursor_that_is_not_ours_is_refused() {
        let at = |cursor: &str| {
            let page = PageRequest { limit: 2, cursor: Some(cursor.to_owned()) };
            begin(&page, read_place::<u32>)
        };
        assert_eq!(at(&write_place(Timestamp::from_millis(5), &7)).unwrap().unwrap().1, 7);
        for wrong in ["7", "5.x", "x.7", "."] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
