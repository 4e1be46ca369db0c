//! The head of a request over HTTP/2, brought into the form of HTTP/1.1.
//!
//! `h2` refuses what is no HTTP/2: upper case, fields of one connection, pseudo fields that are
//! missing, repeated or late, a length that the body does not have. Here the rest is refused that
//! the next hop could read differently (RFC 9113 §8.2, §8.3).

use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::server::http1::{BadHead, MAX_HEADERS, is_carried_verbatim, is_host};

/// Bytes that a field has in HTTP/1.1 besides name and value.
const FIELD_OVERHEAD: usize = 4;

/// Leaves of the target what HTTP/1.1 has, and of the host one `Host`. Of a head that is refused
/// nothing is left that could be mistaken for a request.
pub(super) fn read(parts: &mut Parts, max_bytes: usize) -> Option<BadHead> {
    let bad = rewrite(parts, max_bytes).err();
    if bad.is_some() {
        parts.headers.clear();
        parts.uri = Uri::from_static("/");
        if parts.method != Method::HEAD {
            parts.method = Method::GET;
        }
    }
    bad
}

fn rewrite(parts: &mut Parts, max_bytes: usize) -> Result<(), BadHead> {
    let headers = &mut parts.headers;
    let path = parts.uri.path_and_query().ok_or(BadHead::Target)?.clone();
    check_size(headers, path.as_str().len(), max_bytes)?;
    if !path.as_str().starts_with('/') || !is_carried_verbatim(path.as_str()) {
        return Err(BadHead::Target);
    }
    if parts.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(BadHead::Target);
    }
    if headers.values().any(is_padded) {
        return Err(BadHead::Malformed);
    }
    check_length(headers)?;
    let named = one_host(parts.uri.authority(), headers)?;
    if let Some(host) = named {
        headers.insert(HOST, host);
    }
    parts.uri = Uri::from(path);
    Ok(())
}

fn check_size(headers: &HeaderMap, target: usize, max_bytes: usize) -> Result<(), BadHead> {
    let field = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_OVERHEAD
    };
    let bytes = target + headers.iter().map(field).sum::<usize>();
    let fits = headers.len() <= MAX_HEADERS && bytes <= max_bytes;
    if fits { Ok(()) } else { Err(BadHead::TooLarge) }
}

/// A value may not begin or end with a space or a tab: HTTP/1.1 has no place for them.
fn is_padded(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(bytes.first()) || blank(bytes.last())
}

/// `h2` holds the body against the first length that is said; a second one is for somebody else.
fn check_length(headers: &HeaderMap) -> Result<(), BadHead> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let digits = |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    let well_said = lengths.next().is_none_or(|it| !it.is_empty() && digits(it));
    if well_said && lengths.next().is_none() { Ok(()) } else { Err(BadHead::Framing) }
}

/// The host that must be written into `Host`, unless it stands there: `:authority` and `Host` say
/// the same when there are both, and there is one of them.
fn one_host(
    authority: Option<&Authority>,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, BadHead> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadHead::Host);
    }
    if host.is_some_and(|it| !is_host(it.as_bytes())) {
        return Err(BadHead::Host);
    }
    let Some(authority) = authority else {
        return host.map(|_| None).ok_or(BadHead::Host);
    };
    let text = authority.as_str();
    let differs = |it: &HeaderValue| !it.as_bytes().eq_ignore_ascii_case(text.as_bytes());
    if !is_host(text.as_bytes()) || host.is_some_and(differs) {
        return Err(BadHead::Host);
    }
    if host.is_some() {
        return Ok(None);
    }
    HeaderValue::from_str(text).map(Some).map_err(|_| BadHead::Host)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    fn check(uri: &str, fields: &[(&str, &str)]) -> Result<String, BadHead> {
        let mut parts = parts(uri, fields);
        if let Some(bad) = read(&mut parts, 16 * 1024) {
            assert!(parts.headers.is_empty() && parts.uri == "/", "{uri}");
            return Err(bad);
        }
        let hosts: Vec<_> = parts.headers.get_all(HOST).iter().collect();
        assert_eq!(hosts.len(), 1, "{uri}");
        Ok(format!("{} {}", hosts[0].to_str().unwrap(), parts.uri))
    }

    #[test]
    fn one_host_and_a_path() {
        assert_eq!(check("https://a.test/v1?b=c", &[]).as_deref(), Ok("a.test /v1?b=c"));
        assert_eq!(check("https://a.test/v1", &[("host", "A.test")]).as_deref(), Ok("A.test /v1"));
        assert_eq!(check("/v1", &[("host", "a.test")]).as_deref(), Ok("a.test /v1"));
        for (uri, fields) in [
            ("/v1", &[][..]),
            ("https://a.test/v1", &[("host", "b.test")]),
            ("https://a.test/v1", &[("host", "a.test"), ("host", "a.test")]),
            ("/v1", &[("host", "a.test"), ("host", "a.test")]),
            ("https://me@a.test/v1", &[]),
            ("/v1", &[("host", "a.test/x")]),
        ] {
            assert_eq!(check(uri, fields), Err(BadHead::Host), "{uri} {fields:?}");
        }
        for uri in ["ftp://a.test/v1", "*", "a.test:443"] {
            assert_eq!(check(uri, &[]), Err(BadHead::Target), "{uri}");
        }
    }

    #[test]
    fn values_and_lengths_that_read_two_ways() {
        let with = |name, value| check("https://a.test/", &[(name, value)]);
        for padded in [" x", "x ", "\tx", "x\t"] {
            assert_eq!(with("x", padded), Err(BadHead::Malformed), "{padded:?}");
        }
        assert!(with("x", "").is_ok() && with("x", "a b").is_ok());
        for length in ["", "+1", "0x1", "1,1", "1 1"] {
            assert_eq!(with("content-length", length), Err(BadHead::Framing), "{length:?}");
        }
        let twice = [("content-length", "1"), ("content-length", "1")];
        assert_eq!(check("https://a.test/", &twice), Err(BadHead::Framing));
        assert!(with("content-length", "12").is_ok());
    }

    #[test]
    fn bounds() {
        let long = "y".repeat(17 * 1024);
        assert_eq!(check("https://a.test/", &[("x", &long)]), Err(BadHead::TooLarge));
        let many = vec![("x", "y"); MAX_HEADERS + 1];
        assert_eq!(check("https://a.test/", &many), Err(BadHead::TooLarge));
        assert!(check("https://a.test/", &vec![("x", "y"); MAX_HEADERS - 1]).is_ok());
    }
}
