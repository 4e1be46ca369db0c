//! Whether an assertion is to be believed, for this request.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName};

use keyward_core::Caller;
use keyward_core::Timestamp;
use keyward_core::assertion::{self, AssertionError, Claims, VerifyKey};

use crate::jwks::Jwks;

static ASSERTION: HeaderName = HeaderName::from_static(assertion::HEADER);
static REQUEST_ID: HeaderName = HeaderName::from_static("keyward-request-id");

/// Tells the time of day.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Why a request is not believed to come through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It carries no assertion.
    #[error("the request carries no assertion")]
    Missing,
    /// It carries more than one, or one that is no text.
    #[error("the request carries no single assertion")]
    Ambiguous,
    /// The assertion itself does not hold.
    #[error(transparent)]
    Assertion(#[from] AssertionError),
    /// It was made for another method, path or request id.
    #[error("the assertion is for another request")]
    AnotherRequest,
    /// No published key has the id that it names.
    #[error("no key of the gateway has the id that the assertion names")]
    UnknownKey,
    /// The published keys could not be fetched.
    #[error("the keys of the gateway could not be fetched")]
    Unavailable,
}

/// Verifies assertions that were made for one audience.
pub struct AssertionVerifier {
    audience: String,
    keys: Keys,
    now: Now,
}

enum Keys {
    /// Secrets shared with the gateway, the newest first.
    Shared(Box<[VerifyKey]>),
    /// Public keys, fetched from the gateway.
    Published(Jwks),
}

impl AssertionVerifier {
    /// A verifier with the secrets shared with the gateway. There is one, except while it is
    /// changed: then the new one and the old one.
    ///
    /// # Errors
    /// [`AssertionError::InvalidKey`] when there is none, or one has fewer than 32 bytes.
    pub fn shared<'s>(
        audience: impl Into<String>,
        secrets: impl IntoIterator<Item = &'s [u8]>,
    ) -> Result<Self, AssertionError> {
        let keys = secrets.into_iter().map(VerifyKey::hs256).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(AssertionError::InvalidKey);
        }
        Ok(Self { audience: audience.into(), keys: Keys::Shared(keys.into()), now: system_time() })
    }

    /// A verifier with the public keys of the gateway.
    pub fn published(audience: impl Into<String>, keys: Jwks) -> Self {
        Self { audience: audience.into(), keys: Keys::Published(keys), now: system_time() }
    }

    /// The same by another clock.
    #[must_use]
    pub fn at(mut self, now: Now) -> Self {
        self.now = now;
        self
    }

    /// Who made a request that came through the gateway.
    ///
    /// The path is compared as it was received, so nothing may have taken a prefix off.
    ///
    /// # Errors
    /// Why the request is not believed. Never answer it with data then.
    pub async fn caller(&self, parts: &Parts) -> Result<Caller, Refused> {
        let token = only(&parts.headers, &ASSERTION)?;
        let now = (self.now)();
        let verified = match &self.keys {
            Keys::Shared(keys) => verify_shared(keys, token, &self.audience, now)?,
            Keys::Published(jwks) => {
                let id = assertion::key_id(token)?.ok_or(AssertionError::WrongAlgorithm)?;
                let key = jwks.key(&id, now).await?;
                assertion::verify(token, &key, &self.audience, now)?
            }
        };
        let claims = verified.claims()?;
        check_request(&claims, parts)?;
        Ok(to_caller(&claims)?)
    }
}

/// The one value of a header.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Refused::Missing),
        (Some(one), None) => one.to_str().map_err(|_| Refused::Ambiguous),
        (Some(_), Some(_)) => Err(Refused::Ambiguous),
    }
}

/// By whichever of the secrets it was signed with.
fn verify_shared(
    keys: &[VerifyKey],
    token: &str,
    audience: &str,
    now: Timestamp,
) -> Result<assertion::Verified, AssertionError> {
    let mut last = AssertionError::InvalidKey;
    for key in keys {
        match assertion::verify(token, key, audience, now) {
            Err(AssertionError::WrongSignature) => last = AssertionError::WrongSignature,
            other => return other,
        }
    }
    Err(last)
}

fn check_request(claims: &Claims<'_>, parts: &Parts) -> Result<(), Refused> {
    let same = claims.method == parts.method.as_str() && claims.path == parts.uri.path();
    let mut ids = parts.headers.get_all(&REQUEST_ID).iter();
    let same_id = ids.all(|id| id.as_bytes() == claims.request_id.as_bytes());
    if same && same_id { Ok(()) } else { Err(Refused::AnotherRequest) }
}

fn to_caller(claims: &Claims<'_>) -> Result<Caller, AssertionError> {
    let malformed = |_| AssertionError::Malformed;
    Ok(Caller {
        tenant: claims.tenant.parse().map_err(malformed)?,
        environment: claims.environment.parse().map_err(|_| AssertionError::Malformed)?,
        key: claims.sub.parse().map_err(malformed)?,
        key_name: None,
        scopes: claims.scopes.iter().map(|scope| Box::from(*scope)).collect(),
        role: claims.role.into(),
        actor: claims.actor.parse().map_err(malformed)?,
        request_id: claims.request_id.parse().map_err(malformed)?,
    })
}

/// The time of day of this machine.
fn system_time() -> Now {
    Arc::new(|| {
        #[expect(clippy::disallowed_methods, reason = "the one place where it comes from")]
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}
