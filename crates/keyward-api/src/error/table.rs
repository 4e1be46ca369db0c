//! The table of error codes.

use keyward_core::ErrorCode;

use super::ErrorInfo;

/// The row for defects of ours.
pub(super) const INTERNAL: ErrorInfo = ErrorInfo {
    code: ErrorCode::Internal,
    status: 500,
    retryable: true,
    title: "Something failed on our side",
    meaning: "A defect of Keyward. Its text stays in the log, under the request id.",
    causes: &["A bug, or a dependency that behaved in a way nobody expected."],
    fix: "Retry with backoff. If it goes on, report the request id to the operator.",
};

/// Every code, in the order of the error reference.
pub const ERRORS: &[ErrorInfo] = &[
    ErrorInfo {
        code: ErrorCode::MissingApiKey,
        status: 401,
        retryable: false,
        title: "No credential was sent",
        meaning: "The request carries no credential where one is expected.",
        causes: &[
            "The header is missing or empty.",
            "The credential was sent in another header than the product or this API expects.",
            "A proxy or a redirect to another host dropped the header.",
        ],
        fix: "Send the credential in the header that `WWW-Authenticate` and the message name.",
    },
    ErrorInfo {
        code: ErrorCode::AmbiguousApiKey,
        status: 401,
        retryable: false,
        title: "More than one credential was sent",
        meaning: "The request carries several credentials, and picking one would be a guess.",
        causes: &[
            "Two headers carry a key, such as `Authorization` and `x-api-key`.",
            "The same header is sent twice.",
        ],
        fix: "Send exactly one credential.",
    },
    ErrorInfo {
        code: ErrorCode::InvalidApiKey,
        status: 401,
        retryable: false,
        title: "The credential is not valid",
        meaning: "The credential is malformed, or nobody has it.",
        causes: &[
            "The key was cut off or altered when it was copied; its checksum tells.",
            "It belongs to another product or deployment.",
            "It was replaced by a re-issued secret.",
        ],
        fix: "Copy the whole key again, or make a new one. `keyward key identify -` tells whose a \
              key is.",
    },
    ErrorInfo {
        code: ErrorCode::ExpiredApiKey,
        status: 401,
        retryable: false,
        title: "The key has expired",
        meaning: "The key was valid until its expiry, or until the overlap of its rotation ran \
                  out.",
        causes: &[
            "The expiry set at creation has passed.",
            "The key was rotated and this is the old one.",
        ],
        fix: "Use the key that replaced it, or make a new one. An expiry cannot be moved later.",
    },
    ErrorInfo {
        code: ErrorCode::Unauthorized,
        status: 401,
        retryable: false,
        title: "The credential is revoked",
        meaning: "The key was revoked, for ever, its tenant is suspended, or it is suspect since a \
                  restore; `details.reason` says which.",
        causes: &[
            "Somebody revoked or deleted the key.",
            "The overlap of its rotation was ended by hand.",
            "The tenant was suspended.",
            "The deployment was restored from a backup, and nobody has confirmed the key since.",
        ],
        fix: "Make a new key, ask the operator to resume the tenant, or have whoever manages the \
              key confirm it.",
    },
    ErrorInfo {
        code: ErrorCode::EnvironmentMismatch,
        status: 401,
        retryable: false,
        title: "The key belongs to another environment",
        meaning: "The key is valid, but not in an environment that this address serves.",
        causes: &["A test key was sent to the live address, or the other way round."],
        fix: "Use a key of an environment in `details.servedEnvironments`, or call the address of \
              the key's own.",
    },
    ErrorInfo {
        code: ErrorCode::Forbidden,
        status: 403,
        retryable: false,
        title: "This credential may not do this",
        meaning: "The route is not open to keys, or the credential lacks a required scope; \
                  `details.failed` says which.",
        causes: &[
            "The key was made without the scope.",
            "Scopes were taken from the key.",
            "The route is not part of the public API.",
        ],
        fix: "Make a key with one of `details.requiredScopes`, or call a route of the API \
              reference.",
    },
    ErrorInfo {
        code: ErrorCode::RbacDenied,
        status: 403,
        retryable: false,
        title: "The role does not allow this",
        meaning: "The key may do no more than the role of its owner, and that role does not reach \
                  this product area now.",
        causes: &[
            "The owner's role was changed.",
            "The owner has left the tenant.",
            "The key was made for an area the role never had.",
        ],
        fix: "Ask an administrator for another role, or use a key of somebody whose role allows \
              it.",
    },
    ErrorInfo {
        code: ErrorCode::TenantMismatch,
        status: 403,
        retryable: false,
        title: "The tenant header does not fit the key",
        meaning: "The product requires a tenant header, and it is missing or names another tenant \
                  than the key's.",
        causes: &["The header is missing.", "The id was copied from another tenant."],
        fix: "Send the id of the key's own tenant in the header that the message names.",
    },
    ErrorInfo {
        code: ErrorCode::IpNotAllowed,
        status: 403,
        retryable: false,
        title: "This address is not on the key's list",
        meaning: "The key may be used from some networks only, and the caller's address is in none \
                  of them.",
        causes: &[
            "The service moved to another network.",
            "A proxy in between changed the address that is seen.",
        ],
        fix: "Call from a listed network, or add the network to the key's list.",
    },
    ErrorInfo {
        code: ErrorCode::BrowserOriginRefused,
        status: 403,
        retryable: false,
        title: "A secret key was used from a browser",
        meaning: "The request looks as if a web page had sent it, and a secret in a page is a \
                  secret no more.",
        causes: &["A key was built into front-end code."],
        fix: "Call from your own server, revoke the exposed key, and let the page talk to your \
              server.",
    },
    ErrorInfo {
        code: ErrorCode::TlsRequired,
        status: 403,
        retryable: false,
        title: "A key was sent without TLS",
        meaning: "The request came over plain HTTP, where everybody on the way can read the key. \
                  It was not carried out, and the key is marked as exposed.",
        causes: &[
            "The address begins with `http://` instead of `https://`.",
            "A proxy passes on what reaches it without TLS.",
        ],
        fix: "Call the `https://` address, and rotate the key.",
    },
    ErrorInfo {
        code: ErrorCode::InvalidRequest,
        status: 400,
        retryable: false,
        title: "The request cannot be read",
        meaning: "The request is not well-formed: its syntax, a header or its body.",
        causes: &[
            "The body is not valid JSON.",
            "A header has a malformed value.",
            "Two `Content-Length` or `Host` headers contradict each other.",
        ],
        fix: "Correct what the message names.",
    },
    ErrorInfo {
        code: ErrorCode::InvalidPath,
        status: 400,
        retryable: false,
        title: "The path could be read in two ways",
        meaning: "The path contains something two parsers would read differently, and is refused \
                  before anybody guesses.",
        causes: &[
            "An encoded slash, dot or backslash.",
            "`//`, `/../` or a control character.",
            "A `%` without two hexadecimal digits.",
        ],
        fix: "Send the plain path, with reserved characters only where the API reference has them.",
    },
    ErrorInfo {
        code: ErrorCode::CredentialInUrl,
        status: 400,
        retryable: false,
        title: "A key stood in the URL",
        meaning: "URLs end up in logs and histories, so a key in one is refused and must be seen \
                  as exposed.",
        causes: &["A key was sent as a query parameter."],
        fix: "Revoke the key, make a new one, and send it in the header.",
    },
    ErrorInfo {
        code: ErrorCode::NotFound,
        status: 404,
        retryable: false,
        title: "There is no such thing",
        meaning: "The record or path does not exist, or belongs to another tenant.",
        causes: &[
            "A wrong id or a typing error in the path.",
            "The record is in another tenant or environment.",
        ],
        fix: "Check the id and the path.",
    },
    ErrorInfo {
        code: ErrorCode::MethodNotAllowed,
        status: 405,
        retryable: false,
        title: "The path does not accept this method",
        meaning: "The path exists, the method on it does not.",
        causes: &["`GET` instead of `POST`, or the like."],
        fix: "Use one of the methods in the `Allow` header.",
    },
    ErrorInfo {
        code: ErrorCode::HeadersTooLarge,
        status: 431,
        retryable: false,
        title: "The headers are too large",
        meaning: "The header block exceeds the limit of this listener.",
        causes: &["Large cookies.", "Header values grown without bound."],
        fix: "Send fewer or shorter headers.",
    },
    ErrorInfo {
        code: ErrorCode::Conflict,
        status: 409,
        retryable: false,
        title: "The state of the record does not allow this",
        meaning: "The request is well-formed, but does not fit what the record is now.",
        causes: &[
            "Editing a key that is revoked or expired.",
            "Rotating a key that is being rotated.",
            "A name or address that is taken.",
        ],
        fix: "Read the record again and decide anew; the message says what is in the way.",
    },
    ErrorInfo {
        code: ErrorCode::IdempotencyInProgress,
        status: 409,
        retryable: true,
        title: "The first request still runs",
        meaning: "A request with the same idempotency key has not been answered yet.",
        causes: &["A retry came before the first request had ended."],
        fix: "Wait for `Retry-After` and send the same request again.",
    },
    ErrorInfo {
        code: ErrorCode::IdempotencyOutcomeUnknown,
        status: 409,
        retryable: false,
        title: "Nobody can know whether it took effect",
        meaning: "The first request with this idempotency key broke off after it had been handed \
                  on. Running it again could do the work twice, so it is not run again.",
        causes: &[
            "A crash or a broken connection between the first byte sent and the answer.",
            "The product answered with a server error whose effect is not declared.",
        ],
        fix: "Look whether the work was done; if not, send it with a new idempotency key.",
    },
    ErrorInfo {
        code: ErrorCode::IdempotencyKeyReused,
        status: 422,
        retryable: false,
        title: "The idempotency key belongs to another request",
        meaning: "The key was used for a request with another method, path or body.",
        causes: &["One key for several requests.", "The body was changed between retries."],
        fix: "Use a new idempotency key for each request, and the same one for its retries only.",
    },
    ErrorInfo {
        code: ErrorCode::Gone,
        status: 410,
        retryable: false,
        title: "It was there and is no more",
        meaning: "The record existed and was removed, or a link has been used up.",
        causes: &[
            "A setup link that was used or has run out.",
            "A record whose time of keeping has passed.",
        ],
        fix: "Ask for a new one.",
    },
    ErrorInfo {
        code: ErrorCode::PreconditionFailed,
        status: 412,
        retryable: false,
        title: "A precondition does not hold",
        meaning: "A condition the request itself made is not met.",
        causes: &["`If-Match` names another version than the record has."],
        fix: "Read the record again and repeat the change on its present version.",
    },
    ErrorInfo {
        code: ErrorCode::PayloadTooLarge,
        status: 413,
        retryable: false,
        title: "The body is too large",
        meaning: "The body exceeds the limit of this operation.",
        causes: &["A file or list larger than allowed."],
        fix: "Send less at once; the message names the limit.",
    },
    ErrorInfo {
        code: ErrorCode::UnsupportedMediaType,
        status: 415,
        retryable: false,
        title: "The content type is not one we read",
        meaning: "The body has another `Content-Type` than the operation reads.",
        causes: &["`Content-Type` is missing.", "A form was sent instead of JSON."],
        fix: "Send `Content-Type: application/json` and JSON.",
    },
    ErrorInfo {
        code: ErrorCode::ValidationFailed,
        status: 422,
        retryable: false,
        title: "A field has a value we do not accept",
        meaning: "The request is well-formed, but one of its values is not acceptable; \
                  `details.field` names it.",
        causes: &[
            "An unknown field or a typing error in its name.",
            "A value out of its bounds.",
            "A scope that is unknown, bare or a wildcard.",
        ],
        fix: "Correct the field; the message says what it accepts.",
    },
    ErrorInfo {
        code: ErrorCode::RateLimited,
        status: 429,
        retryable: true,
        title: "Too many requests",
        meaning: "More requests came in a window than a limit allows. `RateLimit-Policy` names the \
                  limits.",
        causes: &[
            "A burst without backoff.",
            "Several services share one key.",
            "Too many wrong credentials from one address.",
        ],
        fix: "Wait for `Retry-After`, and spread requests with backoff and jitter.",
    },
    ErrorInfo {
        code: ErrorCode::QuotaExceeded,
        status: 429,
        retryable: false,
        title: "The quota is used up",
        meaning: "The tenant has used all requests of its billing period.",
        causes: &["More traffic than the plan covers."],
        fix: "Wait for the next period that `Retry-After` names, or ask for a larger quota.",
    },
    INTERNAL,
    ErrorInfo {
        code: ErrorCode::UpstreamUnreachable,
        status: 502,
        retryable: true,
        title: "The product could not be reached",
        meaning: "Keyward accepted the request, and the product behind it could not be reached or \
                  broke off.",
        causes: &[
            "The product is being restarted.",
            "A network or TLS problem between Keyward and the product.",
        ],
        fix: "Retry safe requests with backoff; unsafe ones with an idempotency key only.",
    },
    ErrorInfo {
        code: ErrorCode::UpstreamTimeout,
        status: 504,
        retryable: true,
        title: "The product did not answer in time",
        meaning: "Keyward handed the request on and got no answer before the deadline. It may have \
                  taken effect.",
        causes: &[
            "The product is overloaded.",
            "The operation takes longer than the deadline of its route.",
        ],
        fix: "Retry safe requests with backoff; unsafe ones with an idempotency key only.",
    },
    ErrorInfo {
        code: ErrorCode::Unavailable,
        status: 503,
        retryable: true,
        title: "We cannot decide just now",
        meaning: "Keyward cannot reach what it needs to be sure, and refuses rather than guesses.",
        causes: &[
            "The database is away and what is in memory is too old to rely on.",
            "The server is starting or stopping.",
            "Every address of the product behind Keyward is down.",
            "Too many requests wait for the same resource.",
        ],
        fix: "Retry with backoff, after `Retry-After` when it is there.",
    },
];
