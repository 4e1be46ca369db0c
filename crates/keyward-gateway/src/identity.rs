//! What an upstream is told of a caller: the identity headers and the assertion. The same for what
//! is forwarded here and for what another proxy forwards.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName};
use http::{HeaderValue, Method, Response};

use keyward_core::assertion::{self, Claims, SigningKey};
use keyward_core::catalog::Catalog;
use keyward_core::decision::Permit;
use keyward_core::time::Timestamp;

use crate::keyset::KnownKey;
use crate::proxy::body::PlaneBody;

static SCOPES: HeaderName = HeaderName::from_static("keyward-scopes");
static TENANT: HeaderName = HeaderName::from_static("keyward-tenant");
static ENVIRONMENT: HeaderName = HeaderName::from_static("keyward-environment");
static KEY_ID: HeaderName = HeaderName::from_static("keyward-key-id");
static KEY_NAME: HeaderName = HeaderName::from_static("keyward-key-name");
static ROLE: HeaderName = HeaderName::from_static("keyward-role");
static ACTOR: HeaderName = HeaderName::from_static("keyward-actor");
static REQUEST_ID: HeaderName = HeaderName::from_static("keyward-request-id");
static ASSERTION: HeaderName = HeaderName::from_static(assertion::HEADER);

/// The header without which no answer of ours grants anything.
static DECISION: HeaderName = HeaderName::from_static("keyward-decision");
const ALLOW: &str = "allow";

/// The headers that an [`Identity`] is.
pub(crate) static NAMES: [&HeaderName; IDENTITY_HEADERS] =
    [&TENANT, &ENVIRONMENT, &KEY_ID, &KEY_NAME, &SCOPES, &ROLE, &ACTOR, &REQUEST_ID, &ASSERTION];
/// How many they are.
pub(crate) const IDENTITY_HEADERS: usize = 9;
/// Headers of an answer that vouches for a request.
const VOUCHED_HEADERS: usize = IDENTITY_HEADERS + 6;
/// Bytes that hold the values of these headers on nearly every request.
pub(crate) const USUAL_VALUE_BYTES: usize = 1280;

/// Who makes a permitted request, and whom that is told.
pub(crate) struct Identity<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) key: &'a KnownKey<'a>,
    pub(crate) method: &'a Method,
    /// The path as it is forwarded, without the query.
    pub(crate) path: &'a str,
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) audience: &'a str,
    pub(crate) assertion_key: &'a SigningKey,
    pub(crate) now: Timestamp,
}

impl Identity<'_> {
    /// Sets all headers, in the place of any that are there; none of them is ever empty.
    pub(crate) fn set(&self, sheet: &mut impl Sheet) {
        let Self { catalog, key, .. } = *self;
        let (key_id, actor) = (key.id.text(), key.owner.text());
        let role = key.role_name(catalog);
        let claims = Claims {
            sub: ascii_text(&key_id),
            actor: ascii_text(&actor),
            role,
            scopes: catalog.scope_names(key.scopes).collect(),
            ..self.claims()
        };
        let mut signed = Vec::with_capacity(USUAL_VALUE_BYTES);
        self.assertion_key.sign_into(&claims, &mut signed);
        sheet.write(&ASSERTION, |out| out.extend_from_slice(&signed));
        sheet.write(&SCOPES, |out| push_joined(out, &claims.scopes));
        sheet.write(&KEY_NAME, |out| push_name(out, &key.name));
        sheet.write_text(&ROLE, role);
        sheet.write_text(&KEY_ID, claims.sub);
        sheet.write_text(&ACTOR, claims.actor);
        sheet.set(&TENANT, &key.tenant.header);
        sheet.write_text(&ENVIRONMENT, key.environment.as_str());
        sheet.set(&REQUEST_ID, self.request_id);
    }

    /// The answer to the proxy that will forward a permitted request.
    pub(crate) fn vouched(&self, _permit: Permit<'_>) -> Response<PlaneBody> {
        let mut response = Response::new(PlaneBody::Whole(None));
        let headers = response.headers_mut();
        headers.reserve(VOUCHED_HEADERS);
        self.set(&mut Inked::new(headers));
        headers.insert(&DECISION, HeaderValue::from_static(ALLOW));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// The claims that need nothing to be written first.
    fn claims(&self) -> Claims<'_> {
        let issued = self.now.as_seconds();
        Claims {
            iss: assertion::ISSUER,
            aud: self.audience,
            iat: issued,
            exp: issued + assertion::LIFETIME_SECONDS,
            sub: "",
            tenant: text(&self.key.tenant.header),
            environment: self.key.environment.as_str(),
            scopes: Vec::new(),
            role: "",
            actor: "",
            method: self.method.as_str(),
            path: self.path.into(),
            request_id: text(self.request_id),
        }
    }
}

/// Where headers are set, in the place of any that are there.
pub(crate) trait Sheet {
    /// Sets a value as it is.
    fn set(&mut self, name: &HeaderName, value: &HeaderValue);

    /// Sets what is written, `-` when that is nothing. All of it is ASCII by construction.
    fn write(&mut self, name: &HeaderName, write: impl FnOnce(&mut BytesMut));

    fn write_text(&mut self, name: &HeaderName, text: &str) {
        self.write(name, |out| out.extend_from_slice(text.as_bytes()));
    }
}

/// A map of headers whose values are written one behind the other into one allocation.
pub(crate) struct Inked<'h> {
    headers: &'h mut HeaderMap,
    ink: BytesMut,
}

impl<'h> Inked<'h> {
    pub(crate) fn new(headers: &'h mut HeaderMap) -> Self {
        Self { headers, ink: BytesMut::with_capacity(USUAL_VALUE_BYTES) }
    }
}

impl Sheet for Inked<'_> {
    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.headers.insert(name, value.clone());
    }

    fn write(&mut self, name: &HeaderName, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.ink);
        let written = self.ink.split().freeze();
        let value = if written.is_empty() { None } else { ascii(written) };
        self.headers.insert(name, value.unwrap_or_else(absent));
    }
}

fn ascii(written: Bytes) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(written).ok()
}

/// The lines of a head of HTTP/1.1. Whoever writes there sets no header twice.
pub(crate) struct Lines<'o>(pub(crate) &'o mut BytesMut);

impl Sheet for Lines<'_> {
    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        // as it is, also when it is empty: it may be what a caller sent
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            self.0.extend_from_slice(part);
        }
    }

    fn write(&mut self, name: &HeaderName, write: impl FnOnce(&mut BytesMut)) {
        let Self(out) = self;
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        let begin = out.len();
        write(out);
        if out.len() == begin {
            out.extend_from_slice(ABSENT.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

const ABSENT: &str = "-";

/// What stands for nothing, so that no identity header is ever empty.
pub(crate) const fn absent() -> HeaderValue {
    HeaderValue::from_static(ABSENT)
}

/// Text that is ASCII by construction.
fn ascii_text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or(ABSENT)
}

/// The text of a header value we made of ASCII.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or(ABSENT)
}

fn push_joined(out: &mut BytesMut, words: &[&str]) {
    for (position, word) in words.iter().enumerate() {
        if position > 0 {
            out.extend_from_slice(b" ");
        }
        out.extend_from_slice(word.as_bytes());
    }
}

/// A name for people as header text: printable ASCII stays, everything else is percent-encoded.
fn push_name(out: &mut BytesMut, name: &str) {
    if name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%') {
        out.extend_from_slice(name.as_bytes());
        return;
    }
    for byte in name.bytes() {
        match byte {
            b'%' => out.extend_from_slice(b"%25"),
            b' '..=b'~' => out.extend_from_slice(&[byte]),
            _ => {
                // writing to memory cannot fail
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_people_become_header_text() {
        for (name, text) in
            [("Nightly sync", "Nightly sync"), ("100% é\r\n", "100%25 %C3%A9%0D%0A"), ("", "-")]
        {
            let mut headers = HeaderMap::new();
            Inked::new(&mut headers).write(&KEY_NAME, |out| push_name(out, name));
            assert_eq!(headers[&KEY_NAME], text);
            let mut lines = BytesMut::new();
            Lines(&mut lines).write(&KEY_NAME, |out| push_name(out, name));
            assert_eq!(lines, format!("keyward-key-name: {text}\r\n"));
        }
    }
}
