//! Which headers an application behind a layer gets, and which its callers do.

use http::{HeaderMap, HeaderName};

use crate::proxy::{ends_here, is_ours_in_an_answer, is_tenant_header};

/// Headers of framing and of this hop, which an application behind a layer needs like any other
/// server, and which say nothing about who calls.
const OF_THIS_HOP: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Removes from a request all that the gateway would not forward, but for what belongs to its hop:
/// what is left does not tell who calls.
pub(super) fn strip_claims(headers: &mut HeaderMap, tenant_header: Option<&HeaderName>) {
    remove(headers, |name| {
        let ours = ends_here(name) || is_tenant_header(name, tenant_header);
        ours && OF_THIS_HOP.binary_search(&name).is_err()
    });
}

/// Removes from an answer what only we may say to a caller.
pub(super) fn strip_signs(headers: &mut HeaderMap) {
    remove(headers, is_ours_in_an_answer);
}

fn remove(headers: &mut HeaderMap, doomed: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| doomed(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
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

    fn left(map: &HeaderMap) -> Vec<&str> {
        map.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn what_an_application_gets_does_not_tell_who_calls() {
        assert!(OF_THIS_HOP.is_sorted(), "it is searched");
        let mut map = headers(&[
            ("host", "api.test"),
            ("content-length", "2"),
            ("content_length", "3"),
            ("authorization", "Bearer k"),
            ("x-api-key", "k"),
            ("keyward_tenant", "ten_other"),
            ("x-user-id", "usr_other"),
            ("x-org", "other"),
            ("cookie", "session=1"),
            ("x-forwarded-for", "203.0.113.9"),
            ("accept", "*/*"),
        ]);
        strip_claims(&mut map, Some(&HeaderName::from_static("x-org")));
        assert_eq!(left(&map), ["host", "content-length", "accept"]);
    }

    #[test]
    fn what_callers_get_is_not_said_in_our_name() {
        let mut map = headers(&[
            ("access-control-allow-origin", "*"),
            ("keyward-role", "owner"),
            ("x-request-id", "1"),
            ("content-type", "text/plain"),
        ]);
        strip_signs(&mut map);
        assert_eq!(left(&map), ["content-type"]);
    }
}
