//! The one error of the product: a code for programs, a text for people, a context for operators.

use std::borrow::Cow;

use serde_json::{Map, Value};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What went wrong, as programs see it. The table in `keyward-api` gives status and help.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// Every code, in the order of the error reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// No credential was sent.
    MissingApiKey = "missing_api_key",
    /// More than one credential was sent.
    AmbiguousApiKey = "ambiguous_api_key",
    /// The key is malformed or unknown.
    InvalidApiKey = "invalid_api_key",
    /// The key's time has run out.
    ExpiredApiKey = "expired_api_key",
    /// The key was revoked.
    Unauthorized = "unauthorized",
    /// The key belongs to another environment.
    EnvironmentMismatch = "environment_mismatch",
    /// The route is not public, or the key lacks a required scope.
    Forbidden = "forbidden",
    /// The role of the key's owner does not allow this now.
    RbacDenied = "rbac_denied",
    /// The tenant header names another tenant, or is missing.
    TenantMismatch = "tenant_mismatch",
    /// The caller's address is not on the key's list.
    IpNotAllowed = "ip_not_allowed",
    /// A secret key was used from a browser.
    BrowserOriginRefused = "browser_origin_refused",
    /// A key crossed the network in clear text.
    TlsRequired = "tls_required",
    /// The request is not one we can read.
    InvalidRequest = "invalid_request",
    /// The path could be read in two ways.
    InvalidPath = "invalid_path",
    /// A key stood in the URL.
    CredentialInUrl = "credential_in_url",
    /// There is no such thing, or it is another tenant's.
    NotFound = "not_found",
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed",
    /// The header block is larger than the limit.
    HeadersTooLarge = "headers_too_large",
    /// The state of the record does not allow this.
    Conflict = "conflict",
    /// The first request with this idempotency key still runs.
    IdempotencyInProgress = "idempotency_in_progress",
    /// Nobody can know whether the first request took effect.
    IdempotencyOutcomeUnknown = "idempotency_outcome_unknown",
    /// The idempotency key was used for another request.
    IdempotencyKeyReused = "idempotency_key_reused",
    /// It was there and is no more.
    Gone = "gone",
    /// A precondition of the request does not hold.
    PreconditionFailed = "precondition_failed",
    /// The body is larger than the limit.
    PayloadTooLarge = "payload_too_large",
    /// The content type is not one we read.
    UnsupportedMediaType = "unsupported_media_type",
    /// A field has a value we do not accept.
    ValidationFailed = "validation_failed",
    /// Too many requests in a window.
    RateLimited = "rate_limited",
    /// The quota of the period is used up.
    QuotaExceeded = "quota_exceeded",
    /// A defect of ours.
    Internal = "internal",
    /// The upstream could not be reached.
    UpstreamUnreachable = "upstream_unreachable",
    /// The upstream did not answer in time.
    UpstreamTimeout = "upstream_timeout",
    /// We cannot decide just now.
    Unavailable = "unavailable",
}

/// An error with two texts: the public one leaves the product, the internal one goes to the log.
///
/// There is deliberately no `Display` that joins the two.
#[derive(Debug)]
pub struct Error {
    code: ErrorCode,
    public: Cow<'static, str>,
    details: Map<String, Value>,
    internal: Option<String>,
}

/// The result of everything that can fail on behalf of a caller.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with its public text: what is wrong and what to do about it.
    pub fn new(code: ErrorCode, public: impl Into<Cow<'static, str>>) -> Self {
        Self { code, public: public.into(), details: Map::new(), internal: None }
    }

    /// A defect of ours. `internal` goes to the log only.
    pub fn internal(internal: impl Into<String>) -> Self {
        Self::new(
            ErrorCode::Internal,
            "Something failed on our side; retry, or report the request id",
        )
        .because(internal)
    }

    /// There is no such `what` for this caller.
    pub fn not_found(what: &'static str) -> Self {
        Self::new(ErrorCode::NotFound, format!("No such {what}"))
    }

    /// The record's state does not allow the change.
    pub fn conflict(public: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Conflict, public)
    }

    /// A field has a value we do not accept. `field` is its path in the body or query.
    pub fn validation(field: &str, public: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::ValidationFailed, public).with("field", field)
    }

    /// Adds a member to the public details.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Adds context for the log, before what is there.
    #[must_use]
    pub fn because(mut self, internal: impl Into<String>) -> Self {
        let internal = internal.into();
        self.internal = Some(match self.internal.take() {
            Some(inner) => format!("{internal}: {inner}"),
            None => internal,
        });
        self
    }

    /// The code on the wire.
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// The text for the caller.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Machine-readable particulars for the caller.
    pub const fn details(&self) -> &Map<String, Value> {
        &self.details
    }

    /// The text for the log, if there is one.
    pub fn internal_context(&self) -> Option<&str> {
        self.internal.as_deref()
    }
}
