//! Lists: keyset pages of bounded size, and the short lists that need none.

use std::borrow::Cow;

use keyward_core::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::bounds::{self, Bounded};

/// Entries of a page when the caller names no limit.
pub const DEFAULT_PAGE_LIMIT: u32 = 50;
/// The most entries of a page.
pub const MAX_PAGE_LIMIT: u32 = 200;
/// The longest cursor, in bytes.
pub const MAX_CURSOR_BYTES: usize = 512;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The entries, newest first unless the operation says otherwise.
    pub data: Vec<T>,
    /// Send it as `cursor` to get the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// Which page is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Entries wanted, 1 to [`MAX_PAGE_LIMIT`].
    pub limit: u32,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

impl PageRequest {
    /// The page a query asks for, with the default limit where it names none.
    pub fn new(limit: Option<u32>, cursor: Option<&str>) -> Result<Self> {
        let limit = limit.unwrap_or(DEFAULT_PAGE_LIMIT);
        bounds::number("limit", limit, 1, MAX_PAGE_LIMIT)?;
        if cursor.is_some_and(|text| text.is_empty() || text.len() > MAX_CURSOR_BYTES) {
            let text = "cursor must be the nextCursor of an earlier page, unchanged";
            return Err(Error::validation("cursor", text));
        }
        Ok(Self { limit, cursor: cursor.map(str::to_owned) })
    }
}

/// The query of a list without filters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Entries per page, 1 to 200; 50 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// The `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(max_length = 512)]
    pub cursor: Option<String>,
}

impl PageQuery {
    /// The page this asks for.
    pub fn page(&self) -> Result<PageRequest> {
        PageRequest::new(self.limit, self.cursor.as_deref())
    }
}

impl Bounded for PageQuery {
    fn check(&self) -> Result<()> {
        self.page().map(|_| ())
    }
}

impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let cursor = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("Send it as `cursor` to get the next page; `null` on the last one."));
        ObjectBuilder::new()
            .description(Some(format!("One page of {} entries.", T::name())))
            .property("data", data_of::<T>())
            .property("nextCursor", cursor)
            .required("data")
            .required("nextCursor")
            .into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("{}Page", T::name()))
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

/// A whole list that is short by nature, such as the scopes of a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// All entries.
    pub data: Vec<T>,
}

impl<T: ToSchema> PartialSchema for Listing<T> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .description(Some(format!("All {} entries.", T::name())))
            .property("data", data_of::<T>())
            .required("data")
            .into()
    }
}

impl<T: ToSchema> ToSchema for Listing<T> {
    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("{}Listing", T::name()))
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

fn data_of<T: ToSchema>() -> ArrayBuilder {
    ArrayBuilder::new().items(Ref::from_schema_name(T::name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_page() {
        assert_eq!(PageRequest::new(None, None).unwrap().limit, DEFAULT_PAGE_LIMIT);
        assert!(PageRequest::new(Some(0), None).is_err());
        assert!(PageRequest::new(Some(MAX_PAGE_LIMIT), None).is_ok());
        assert!(PageRequest::new(Some(MAX_PAGE_LIMIT + 1), None).is_err());
        assert!(PageRequest::new(None, Some("")).is_err());
        assert!(PageRequest::new(None, Some(&"x".repeat(MAX_CURSOR_BYTES + 1))).is_err());
    }

    #[test]
    fn the_documented_limits_are_the_checked_ones() {
        let documented = PageQuery::into_params(|| None);
        let text = serde_json::to_string(&documented).unwrap();
        assert!(text.contains(&format!("\"maximum\":{MAX_PAGE_LIMIT}")), "{text}");
        assert!(text.contains(&format!("\"default\":{DEFAULT_PAGE_LIMIT}")), "{text}");
        assert!(text.contains(&format!("\"maxLength\":{MAX_CURSOR_BYTES}")), "{text}");
    }
}
