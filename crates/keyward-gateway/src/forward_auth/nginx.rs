//! What nginx's `auth_request` understands: 200, 401 and 403, and of those nothing but headers.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::proxy::body::PlaneBody;
use crate::request_id::ascii_header;

/// The status that the client is to be told.
static STATUS: HeaderName = HeaderName::from_static("keyward-status");
/// The envelope that the client is to be told, in base64.
static ERROR_BODY: HeaderName = HeaderName::from_static("keyward-error-body");
/// The same as JSON in ASCII, for a configuration that cannot decode.
static ERROR: HeaderName = HeaderName::from_static("keyward-error");

/// The same answer in the statuses that nginx knows. Every other would become a 500.
pub(super) fn in_its_words(mut response: Response<PlaneBody>) -> Response<PlaneBody> {
    let status = response.status();
    if status == StatusCode::OK {
        return response;
    }
    let envelope = match response.body() {
        PlaneBody::Whole(Some(bytes)) => bytes.clone(),
        _ => Bytes::new(),
    };
    let headers = response.headers_mut();
    headers.insert(&STATUS, HeaderValue::from(status.as_u16()));
    headers.insert(&ERROR_BODY, ascii_header(STANDARD.encode(&envelope)));
    headers.insert(&ERROR, ascii_header(ascii_json(&String::from_utf8_lossy(&envelope))));
    if status != StatusCode::UNAUTHORIZED {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
}

/// JSON with every character that a header value may not hold escaped. Outside of its strings JSON
/// has none of them.
fn ascii_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut units) {
            // writing to memory cannot fail
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_a_header_reads_as_the_same() {
        for text in ["plain", "Nächtlich", "雨", "🔑", "del\u{7f}", "\"\\ \n\t"] {
            let json = serde_json::json!({ "error": text }).to_string();
            let ascii = ascii_json(&json);
            assert!(HeaderValue::from_str(&ascii).is_ok(), "{ascii}");
            let read: serde_json::Value = serde_json::from_str(&ascii).unwrap();
            assert_eq!(read["error"], text);
        }
    }
}
