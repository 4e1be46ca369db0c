//! Errors on the wire: one table from code to status and help, one envelope for every plane.

mod reference;
mod table;

use http::StatusCode;
use keyward_core::id::RequestId;
use keyward_core::{Error, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub use reference::reference;
pub use table::ERRORS;

/// Where the error reference is served when the deployment names no other place.
pub const DEFAULT_DOCS_BASE: &str = "/docs";

/// What is known about an error code.
#[derive(Clone, Copy, Debug)]
pub struct ErrorInfo {
    /// The code.
    pub code: ErrorCode,
    /// The HTTP status.
    pub status: u16,
    /// Whether the same request may succeed later without a change.
    pub retryable: bool,
    /// A title for people.
    pub title: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What usually leads to it.
    pub causes: &'static [&'static str],
    /// What to do about it.
    pub fix: &'static str,
}

impl ErrorInfo {
    /// What is known about this code.
    pub fn of(code: ErrorCode) -> &'static Self {
        // a test proves that every code has its row
        ERRORS.iter().find(|info| info.code == code).unwrap_or(&table::INTERNAL)
    }

    /// The HTTP status.
    pub fn http_status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// The HTTP status of a code.
pub fn status(code: ErrorCode) -> StatusCode {
    ErrorInfo::of(code).http_status()
}

/// The body of every error of every plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Error)]
pub struct Envelope {
    /// The error.
    pub error: ErrorBody,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// The code, for programs. The error reference lists all of them.
    #[schema(value_type = crate::schema::ErrorCode)]
    pub code: String,
    /// What is wrong and what to do about it, for people.
    pub message: String,
    /// Particulars: `docUrl` always, `failed` for a failed check, `field` for a bad value, …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = crate::schema::ErrorDetails)]
    pub details: Map<String, Value>,
    /// The id of the request, also in the `x-request-id` header and in the logs.
    pub request_id: String,
}

impl Envelope {
    /// The envelope of an error. Its internal text stays behind. `docs_base` is where the error
    /// reference is served, such as [`DEFAULT_DOCS_BASE`].
    pub fn new(error: &Error, request_id: RequestId, docs_base: &str) -> Self {
        let mut details = error.details().clone();
        let url = format!("{}/errors/{}", docs_base.trim_end_matches('/'), error.code().as_str());
        details.insert("docUrl".to_owned(), Value::String(url));
        Self {
            error: ErrorBody {
                code: error.code().as_str().to_owned(),
                message: error.public().to_owned(),
                details,
                request_id: request_id.to_string(),
            },
        }
    }

    /// The body as it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        // strings and JSON values always serialise; the fallback keeps the promise without a panic
        serde_json::to_vec(self).unwrap_or_else(|_| {
            br#"{"error":{"code":"internal","message":"","requestId":""}}"#.to_vec()
        })
    }
}

/// Status and body of an error, for every plane.
pub fn render(error: &Error, request_id: RequestId, docs_base: &str) -> (StatusCode, Vec<u8>) {
    (status(error.code()), Envelope::new(error, request_id, docs_base).to_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write;

    use super::*;

    #[test]
    fn every_code_has_one_row() {
        let rows: Vec<ErrorCode> = ERRORS.iter().map(|info| info.code).collect();
        assert_eq!(rows, ErrorCode::ALL, "the table follows the order of the codes");
        for info in ERRORS {
            assert_ne!(info.http_status().as_u16(), 0, "{:?}", info.code);
            assert!(!info.causes.is_empty(), "{:?}", info.code);
            for text in [info.title, info.meaning, info.fix] {
                assert!(!text.is_empty(), "{:?}", info.code);
            }
        }
    }

    #[test]
    fn statuses_are_those_of_the_contract() {
        let statuses: BTreeSet<u16> = ERRORS.iter().map(|info| info.status).collect();
        let contract =
            [400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 422, 429, 431, 500, 502, 503, 504];
        assert_eq!(statuses, BTreeSet::from(contract));
    }

    #[test]
    fn the_table() {
        let mut text = String::new();
        for info in ERRORS {
            let retry = if info.retryable { "retry" } else { "final" };
            let code = info.code.as_str();
            writeln!(text, "{} {retry} {code}: {}", info.status, info.title).unwrap();
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_internal_text_stays_inside() {
        let error = Error::internal("secret of the log").with("hint", "public");
        let (status, body) = render(&error, RequestId::from_bits(7), "/docs/");
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        insta::assert_snapshot!(String::from_utf8(body).unwrap());
    }
}
