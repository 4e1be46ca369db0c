//! Which headers pass, which are ours alone, and which make a request unreadable.

use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRAILER};

use keyward_core::error::{Error, ErrorCode, Result};

use crate::lookup::{find, find_all, is_repeated};
use crate::proxy::trailers::Of;

/// Headers that may stand in a request once at most.
static ONCE: [HeaderName; 2] = [CONTENT_TYPE, HeaderName::from_static("idempotency-key")];

/// Headers that end here: those of one hop, of framing, of credentials, and those with which an
/// upstream could be told another caller, address, method or path than the one that was decided.
const ENDS_HERE: [&str; 39] = [
    "authorization",
    "cf-connecting-ip",
    "client-ip",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "fastly-client-ip",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "remote-addr",
    "remote-user",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "via",
    "x-api-key",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-organization-id",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-remote-user",
    "x-request-id",
    "x-rewrite-url",
    "x-tenant-id",
    "x-workspace-id",
];
const ENDS_HERE_PREFIXES: [&str; 4] = ["keyward-", "proxy-", "x-forwarded-", "x-user-"];

/// Of these, what another proxy that forwards must take away by name: what tells an upstream who
/// calls, and what could tell it another method or path.
pub(crate) const SPEAKS_OF_CALLER: [&str; 19] = [
    "authorization",
    "remote-user",
    "x-api-key",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-user",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-organization-id",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-remote-user",
    "x-rewrite-url",
    "x-tenant-id",
    "x-workspace-id",
];

/// Whether another proxy that forwards must take this header away, in either spelling.
pub(crate) fn speaks_of_caller(name: &str) -> bool {
    let dashed = name.replace('_', "-");
    SPEAKS_OF_CALLER.contains(&dashed.as_str())
        || ["keyward-", "x-user-"].iter().any(|prefix| dashed.starts_with(prefix))
}

/// Headers a `Connection` header may name although they end here.
const HOP_BY_HOP: [&str; 7] =
    ["close", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"];

/// Where the listed names begin and end that have this first byte: there are few, or none.
static BY_FIRST: [(u8, u8); 128] = by_first();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "the compiler evaluates it, and refuses what is outside; the list is short"
)]
const fn by_first() -> [(u8, u8); 128] {
    let mut ranges = [(0, 0); 128];
    let mut at = 0;
    while at < ENDS_HERE.len() {
        let first = ENDS_HERE[at].as_bytes()[0] as usize;
        if ranges[first].1 == 0 {
            ranges[first].0 = at as u8;
        }
        at += 1;
        ranges[first].1 = at as u8;
    }
    ranges
}

fn is_listed(name: &str) -> bool {
    let Some(first) = name.bytes().next() else {
        return false;
    };
    let (begin, end) = BY_FIRST.get(usize::from(first)).copied().unwrap_or_default();
    let alike = ENDS_HERE.get(usize::from(begin)..usize::from(end)).unwrap_or_default();
    // comparing texts compares their lengths first
    alike.contains(&name)
        || (matches!(first, b'k' | b'p' | b'x')
            && ENDS_HERE_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// Whether a header ends here. A CGI gateway reads `_` as `-`, so both spellings do, and a second
/// spelling of a header that comes once.
pub(crate) fn ends_here(name: &str) -> bool {
    if name.bytes().any(|byte| byte == b'_') {
        let dashed = name.replace('_', "-");
        is_listed(&dashed) || ONCE.iter().any(|once| *once == *dashed)
    } else {
        is_listed(name)
    }
}

/// Whether this is the tenant header of the product, in either spelling.
pub(crate) fn is_tenant_header(name: &str, tenant_header: Option<&HeaderName>) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    tenant_header.is_some_and(|header| {
        let header = header.as_str();
        header.len() == name.len() && header.bytes().map(dashed).eq(name.bytes().map(dashed))
    })
}

/// Refuses headers that two readers could understand differently.
pub(crate) fn check_headers(headers: &HeaderMap, tenant_header: Option<&HeaderName>) -> Result<()> {
    for name in ONCE.iter().chain(tenant_header) {
        if is_repeated(headers, name) {
            let text = format!("The {name} header may be sent once only");
            return Err(Error::new(ErrorCode::InvalidRequest, text).with("header", name.as_str()));
        }
    }
    for name in connection_tokens(headers) {
        let ours = ends_here(&name) && !HOP_BY_HOP.contains(&name.as_str());
        let tenant = is_tenant_header(&name, tenant_header);
        if ours || tenant || ONCE.iter().any(|once| *once == *name) {
            let text = format!("The Connection header may not name {name}");
            return Err(Error::new(ErrorCode::InvalidRequest, text).with("header", "connection"));
        }
    }
    Ok(())
}

/// The headers of a request that reach its upstream.
pub(super) fn passing<'h>(
    headers: &'h HeaderMap,
    tenant_header: Option<&'h HeaderName>,
) -> impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)> {
    // most requests have none
    let has_connection = find(headers, &CONNECTION).is_some();
    headers.iter().filter(move |(name, _)| {
        let name = name.as_str();
        let ends = ends_here(name)
            || is_tenant_header(name, tenant_header)
            || (has_connection && is_of_this_hop(headers, name));
        !ends
    })
}

/// Whether a `Connection` header names this one.
fn is_of_this_hop(headers: &HeaderMap, name: &str) -> bool {
    let lines = headers.get_all(CONNECTION).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether a header of an answer is ours to set, or nobody's.
pub(crate) fn is_ours_in_an_answer(name: &str) -> bool {
    name.starts_with("keyward-") || name.starts_with("access-control-") || name == "x-request-id"
}

/// Removes from an answer what must not reach the caller. What it announces of trailers stays when
/// the caller takes them.
pub(super) fn strip_response(headers: &mut HeaderMap, wants_trailers: bool) {
    for name in connection_tokens(headers) {
        headers.remove(name.as_str());
    }
    let mut announced = None;
    let doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            is_ours_in_an_answer(name)
                || matches!(
                    name,
                    "connection"
                        | "keep-alive"
                        | "proxy-connection"
                        | "te"
                        | "trailer"
                        | "transfer-encoding"
                        | "upgrade"
                )
        })
        .cloned()
        .collect();
    for name in doomed {
        if wants_trailers && name == TRAILER {
            announced = Of::Answer.announced(headers);
        }
        headers.remove(name);
    }
    if let Some(announced) = announced {
        headers.insert(TRAILER, announced);
    }
}

/// The names in all `Connection` headers, in lower case.
fn connection_tokens(headers: &HeaderMap) -> Vec<String> {
    find_all(headers, &CONNECTION)
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|token| String::from_utf8_lossy(token.trim_ascii()).to_ascii_lowercase())
        .filter(|token| !token.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn names<'h>(headers: &'h HeaderMap, tenant_header: Option<&'h HeaderName>) -> Vec<&'h str> {
        passing(headers, tenant_header).map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn the_list_is_sorted_for_its_search() {
        assert!(ENDS_HERE.is_sorted(), "names with one first byte stand together");
        assert!(ENDS_HERE_PREFIXES.iter().all(|prefix| prefix.starts_with(['k', 'p', 'x'])));
    }

    #[test]
    fn what_is_listed_is_found_and_nothing_beside_it() {
        for name in ENDS_HERE {
            assert!(is_listed(name), "{name}");
            let (first, rest) = name.split_at(1);
            for other in [format!("{first}x{rest}"), format!("q{rest}"), format!("{name}s")] {
                let known = ENDS_HERE.contains(&other.as_str())
                    || ENDS_HERE_PREFIXES.iter().any(|prefix| other.starts_with(prefix));
                assert_eq!(is_listed(&other), known, "{other}");
            }
        }
        for prefix in ENDS_HERE_PREFIXES {
            assert!(is_listed(&format!("{prefix}{}", "y".repeat(60))), "{prefix}");
        }
        for name in ["", "\u{e9}", &"x".repeat(200), &"a".repeat(45)] {
            assert!(!is_listed(name), "{name}");
        }
    }

    #[test]
    fn what_speaks_of_a_caller_ends_here_too() {
        for name in SPEAKS_OF_CALLER.into_iter().chain(["keyward_tenant", "x_user_email"]) {
            assert!(speaks_of_caller(name) && ends_here(name), "{name}");
        }
        for name in ["x-forwarded-for", "cookie", "traceparent", "accept"] {
            assert!(!speaks_of_caller(name), "{name}");
        }
    }

    #[test]
    fn what_ends_here_does_in_both_spellings() {
        for name in [
            "keyward-tenant",
            "keyward_tenant",
            "x_tenant_id",
            "x-tenant_id",
            "x-user-email",
            "x_user_id",
            "x_forwarded_for",
            "x-forwarded-host",
            "proxy-authorization",
            "transfer_encoding",
            "content_length",
            "content_type",
            "idempotency_key",
            "x-http-method-override",
        ] {
            assert!(ends_here(name), "{name}");
        }
        for name in ["accept", "content-type", "x-trace", "my_header", "user-agent", "tracestate"] {
            assert!(!ends_here(name), "{name}");
        }
    }

    #[test]
    fn a_connection_header_takes_its_own_along_and_none_of_ours() {
        let map = headers(&[("connection", "x-once, Keep-Alive"), ("x-once", "1"), ("a", "b")]);
        check_headers(&map, None).unwrap();
        assert_eq!(names(&map, None), ["a"]);
        for named in [
            "keyward-tenant",
            "x-forwarded-for",
            "authorization",
            "Host",
            "content-length",
            "x_tenant_id",
            "idempotency-key",
            "x-org",
            "X_Org",
        ] {
            let map = headers(&[("connection", named)]);
            let tenant_header = HeaderName::from_static("x-org");
            assert!(check_headers(&map, Some(&tenant_header)).is_err(), "{named}");
        }
    }

    #[test]
    fn the_tenant_header_ends_here_in_both_spellings() {
        let sent = [("x-acme-org", "a"), ("x_acme_org", "b"), ("x-acme_org", "c"), ("x-acme", "d")];
        for configured in ["x-acme-org", "x_acme_org"] {
            let tenant_header = HeaderName::from_static(configured);
            let map = headers(&sent);
            assert_eq!(names(&map, Some(&tenant_header)), ["x-acme"], "{configured}");
        }
    }

    #[test]
    fn some_headers_come_once() {
        let twice = headers(&[("content-type", "a/b"), ("content-type", "a/b")]);
        assert!(check_headers(&twice, None).is_err());
        let twice = headers(&[("idempotency-key", "a"), ("idempotency-key", "a")]);
        assert!(check_headers(&twice, None).is_err());
        let twice = headers(&[("x-org", "a"), ("x-org", "a")]);
        assert!(check_headers(&twice, Some(&HeaderName::from_static("x-org"))).is_err());
        assert!(check_headers(&twice, None).is_ok());
    }
}
