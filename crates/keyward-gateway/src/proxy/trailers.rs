//! Fields behind a body: which may stand there, in either direction.

use http::header::{HeaderMap, HeaderName, HeaderValue, TE, TRAILER};

use crate::lookup::words;
use crate::proxy::headers::{ends_here, is_ours_in_an_answer, is_tenant_header};

/// Fields that say how a message is framed, routed, authenticated or read, and are too late behind
/// it (RFC 9110 §6.5.1).
const TOO_LATE: [&str; 23] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "expect",
    "expires",
    "host",
    "keep-alive",
    "location",
    "max-forwards",
    "proxy-connection",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
];

/// The direction of a message.
#[derive(Clone, Copy)]
pub(super) enum Of<'h> {
    /// A request of a product with this tenant header.
    Request(Option<&'h HeaderName>),
    /// An answer.
    Answer,
}

impl Of<'_> {
    fn may_trail(self, name: &str) -> bool {
        if TOO_LATE.binary_search(&name).is_ok() {
            return false;
        }
        match self {
            Self::Request(tenant_header) => {
                !ends_here(name) && !is_tenant_header(name, tenant_header)
            }
            Self::Answer => !is_ours_in_an_answer(name),
        }
    }

    /// What of the trailers may pass; `None` when nothing does.
    pub(super) fn passing(self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        let doomed: Vec<HeaderName> =
            trailers.keys().filter(|name| !self.may_trail(name.as_str())).cloned().collect();
        for name in doomed {
            trailers.remove(name);
        }
        (!trailers.is_empty()).then_some(trailers)
    }

    /// The names that a message announces and that may pass, as a header again.
    pub(super) fn announced(self, headers: &HeaderMap) -> Option<HeaderValue> {
        let names: Vec<&str> =
            words(headers, &TRAILER).filter(|name| self.may_trail_in_any_case(name)).collect();
        if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
    }

    fn may_trail_in_any_case(self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        HeaderName::try_from(name.as_str()).is_ok() && self.may_trail(&name)
    }
}

/// Whether a caller takes trailers behind an answer (RFC 9110 §10.1.4).
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    words(headers, &TE).any(|word| word.eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn the_list_is_sorted_for_its_search() {
        assert!(TOO_LATE.is_sorted());
    }

    #[test]
    fn what_would_change_a_message_behind_its_body_does_not_pass() {
        let tenant = HeaderName::from_static("x-org");
        let sent = [
            ("grpc-status", "0"),
            ("x-sum", "1"),
            ("keyward-tenant", "forged"),
            ("keyward_tenant", "forged"),
            ("x-org", "forged"),
            ("x_org", "forged"),
            ("x-forwarded-for", "6.6.6.6"),
            ("authorization", "Bearer forged"),
            ("content-length", "0"),
            ("content-type", "text/html"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=b"),
        ];
        let names = |map: Option<HeaderMap>| {
            let mut names: Vec<String> =
                map.unwrap_or_default().keys().map(ToString::to_string).collect();
            names.sort_unstable();
            names
        };
        let request = Of::Request(Some(&tenant)).passing(map(&sent));
        assert_eq!(names(request), ["grpc-status", "x-sum"]);
        let answer = Of::Answer.passing(map(&sent));
        for name in names(answer) {
            assert!(!name.starts_with("keyward-") && !TOO_LATE.contains(&name.as_str()), "{name}");
        }
        assert_eq!(Of::Answer.passing(map(&[("keyward-tenant", "forged")])), None);
    }

    #[test]
    fn announcements_are_read_word_by_word() {
        let headers = map(&[("trailer", "X-Sum, Content-Length"), ("te", "gzip, Trailers")]);
        assert_eq!(Of::Answer.announced(&headers).unwrap(), "X-Sum");
        assert!(are_wanted(&headers));
        let none = map(&[("trailer", "host,, a b"), ("te", "gzip")]);
        assert_eq!(Of::Answer.announced(&none), None);
        assert!(!are_wanted(&none));
    }
}
