//! What an upstream is told of a caller: the identity headers and the assertion. The same for what
//! is forwarded here and for what another proxy forwards.

use std::fmt::Write as _;

use bytes::BytesMut;
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
    pub(crate) key: &'a KnownKey,
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
    pub(crate) fn set(&self, headers: &mut HeaderMap, ink: &mut Ink) {
        let Self { catalog, key, .. } = *self;
        let key_id = ink.display(&key.id);
        let actor = ink.display(&key.owner);
        let role = key.role_name(catalog);
        let claims = Claims {
            sub: text(&key_id),
            actor: text(&actor),
            role,
            scopes: catalog.scope_names(key.scopes).collect(),
            ..self.claims()
        };
        let mut signed = String::with_capacity(USUAL_VALUE_BYTES);
        self.assertion_key.sign_into(&claims, &mut signed);
        headers.insert(&ASSERTION, ink.value(|out| out.extend_from_slice(signed.as_bytes())));
        headers.insert(&SCOPES, ink.value(|out| push_joined(out, &claims.scopes)));
        headers.insert(&KEY_NAME, ink.value(|out| push_name(out, &key.name)));
        headers.insert(&ROLE, ink.value(|out| out.extend_from_slice(role.as_bytes())));
        headers.insert(&KEY_ID, key_id);
        headers.insert(&ACTOR, actor);
        headers.insert(&TENANT, key.tenant.header.clone());
        headers.insert(&ENVIRONMENT, HeaderValue::from_static(key.environment.as_str()));
        headers.insert(&REQUEST_ID, self.request_id.clone());
    }

    /// The answer to the proxy that will forward a permitted request.
    pub(crate) fn vouched(&self, _permit: Permit<'_>) -> Response<PlaneBody> {
        let mut response = Response::new(PlaneBody::Whole(None));
        let headers = response.headers_mut();
        headers.reserve(VOUCHED_HEADERS);
        self.set(headers, &mut Ink::new());
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

/// Header values, written one behind the other into one allocation.
pub(crate) struct Ink(BytesMut);

impl Ink {
    pub(crate) fn new() -> Self {
        Self(BytesMut::with_capacity(USUAL_VALUE_BYTES))
    }

    /// What was written, `-` when that is nothing. All of it is ASCII by construction.
    pub(crate) fn value(&mut self, write: impl FnOnce(&mut BytesMut)) -> HeaderValue {
        write(&mut self.0);
        let written = self.0.split().freeze();
        if written.is_empty() {
            return absent();
        }
        HeaderValue::from_maybe_shared(written).unwrap_or_else(|_| absent())
    }

    pub(crate) fn display(&mut self, shown: &impl std::fmt::Display) -> HeaderValue {
        self.value(|out| {
            // writing to memory cannot fail
            let _ = write!(out, "{shown}");
        })
    }
}

/// What stands for nothing, so that no identity header is ever empty.
pub(crate) fn absent() -> HeaderValue {
    HeaderValue::from_static("-")
}

/// The text of a header value we made of ASCII.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("-")
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
        let shown = |name: &str| Ink::new().value(|out| push_name(out, name));
        assert_eq!(shown("Nightly sync"), "Nightly sync");
        assert_eq!(shown("100% é\r\n"), "100%25 %C3%A9%0D%0A");
        assert_eq!(shown(""), "-");
    }
}
