//! The head of a request, read as strictly as anyone could read it.

use std::mem::MaybeUninit;

use httparse::{Error as ParseError, Header, Request, Status};

use keyward_core::error::{Error, ErrorCode};

/// The most headers in one request.
pub(crate) const MAX_HEADERS: usize = 100;

/// The most digits in the port of a `Host` header.
const MAX_PORT_DIGITS: usize = 5;

/// Why a head is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BadHead {
    /// Not HTTP/1.1, or written in a way that two readers could understand differently.
    Malformed = 0,
    /// Too many bytes or headers.
    TooLarge = 1,
    /// The target is no path and no address.
    Target = 2,
    /// No `Host` header, more than one, or one that names no host.
    Host = 3,
    /// No single reading of where the body ends.
    Framing = 4,
}

impl BadHead {
    pub(crate) fn of(number: u8) -> Self {
        let all = [Self::TooLarge, Self::Target, Self::Host, Self::Framing];
        let known = all.into_iter().find(|bad| *bad as u8 == number);
        known.unwrap_or(Self::Malformed)
    }
}

impl From<BadHead> for Error {
    fn from(bad: BadHead) -> Self {
        match bad {
            BadHead::Malformed => Self::new(
                ErrorCode::InvalidRequest,
                "The head of the request is not well-formed HTTP",
            ),
            BadHead::TooLarge => Self::new(
                ErrorCode::HeadersTooLarge,
                "The head of the request is too large; send fewer or shorter headers",
            ),
            BadHead::Target => Self::new(
                ErrorCode::InvalidPath,
                "The path was refused: it is no path of visible ASCII characters",
            ),
            BadHead::Host => Self::new(
                ErrorCode::InvalidRequest,
                "The request must name one host, with perhaps a port: in one Host header, or as \
                 :authority of HTTP/2",
            ),
            BadHead::Framing => Self::new(
                ErrorCode::InvalidRequest,
                "The end of the body is not clear: send one Content-Length of digits, \
                 or Transfer-Encoding: chunked, not both",
            ),
        }
    }
}

/// Where the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// A whole head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) bytes: usize,
    pub(super) framing: Framing,
}

/// The length of the head at the front of `bytes`, when it is whole and would be passed on. For
/// programs that try the reader with bytes of their own.
pub fn head_length(bytes: &[u8], max_bytes: usize) -> Option<usize> {
    read(bytes, max_bytes).ok().flatten().map(|head| head.bytes)
}

/// Reads a head from the front of `bytes`; `None` while it is not whole.
pub(super) fn read(bytes: &[u8], max_bytes: usize) -> Result<Option<Head>, BadHead> {
    let mut slots = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut slots) {
        Ok(Status::Complete(length)) if length > max_bytes => return Err(BadHead::TooLarge),
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if bytes.len() > max_bytes => return Err(BadHead::TooLarge),
        Ok(Status::Partial) => return Ok(None),
        Err(ParseError::TooManyHeaders) => return Err(BadHead::TooLarge),
        Err(_) if has_bad_target(bytes) => return Err(BadHead::Target),
        Err(_) => return Err(BadHead::Malformed),
    };
    if has_bare_line_feed(bytes.get(..length).unwrap_or_default()) {
        return Err(BadHead::Malformed);
    }
    if !is_carried_verbatim(request.path.unwrap_or_default()) {
        return Err(BadHead::Target);
    }
    let is_http_11 = request.version == Some(1);
    let framing = check(request.headers, is_http_11)?;
    Ok(Some(Head { bytes: length, framing }))
}

fn check(headers: &[Header<'_>], is_http_11: bool) -> Result<Framing, BadHead> {
    let mut hosts = 0;
    let mut framing = None;
    for header in headers {
        let named = |name: &str| header.name.eq_ignore_ascii_case(name);
        let found = match header.name.len() {
            4 if named("host") => {
                hosts += 1;
                if !is_host(header.value) {
                    return Err(BadHead::Host);
                }
                None
            }
            14 if named("content-length") => Some(Framing::Length(digits(header.value)?)),
            17 if named("transfer-encoding") => {
                if !is_http_11 || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadHead::Framing);
                }
                Some(Framing::Chunked)
            }
            _ => None,
        };
        if found.is_some() && framing.is_some() {
            return Err(BadHead::Framing);
        }
        framing = framing.or(found);
    }
    if hosts > 1 || (hosts == 0 && is_http_11) {
        return Err(BadHead::Host);
    }
    Ok(match framing {
        None | Some(Framing::Length(0)) => Framing::None,
        Some(framing) => framing,
    })
}

/// Whether it is a name or address, perhaps with a port, as RFC 9112 §3.2 wants it checked. Of the
/// characters that a name may have, only those are taken that names do have.
pub(in crate::server) fn is_host(value: &[u8]) -> bool {
    let bracketed = value.first() == Some(&b'[');
    let end = if bracketed { b']' } else { b':' };
    let end = value.iter().position(|byte| *byte == end).unwrap_or(value.len());
    let (name, rest) = value.split_at(end);
    let (name, port) = match (name, rest) {
        ([b'[', name @ ..], [b']', port @ ..]) => (name, port),
        ([b'[', ..], _) => return false,
        (name, port) => (name, port),
    };
    let in_address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let is_well_formed =
        if bracketed { name.iter().all(in_address) } else { name.iter().all(in_name) };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= MAX_PORT_DIGITS && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    !name.is_empty() && is_well_formed && is_port
}

/// A length is digits and nothing else, at most as many as fit.
fn digits(value: &[u8]) -> Result<u64, BadHead> {
    let text = str::from_utf8(value).map_err(|_| BadHead::Framing)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadHead::Framing);
    }
    // hyper keeps the two highest numbers for itself
    match text.parse::<u64>() {
        Ok(length) if length < u64::MAX - 1 => Ok(length),
        _ => Err(BadHead::Framing),
    }
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    let following = head.get(1..).unwrap_or_default();
    let bare = |before, byte| u8::from(byte == b'\n') & u8::from(before != b'\r');
    // looking at every byte lets the compiler look at many at a time
    let found = head.iter().zip(following).fold(0, |found, (a, b)| found | bare(*a, *b));
    head.first() == Some(&b'\n') || found != 0
}

/// Whether hyper hands on exactly these bytes: it cuts fragments off, and refuses some characters
/// with a bare answer.
pub(in crate::server) fn is_carried_verbatim(target: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`');
    target.bytes().all(plain)
        && (target.starts_with('/') || (target.starts_with("http") && is_absolute(target)))
}

fn is_absolute(target: &str) -> bool {
    let uri: Result<http::Uri, _> = target.parse();
    uri.is_ok_and(|uri| uri.scheme().is_some() && uri.authority().is_some())
}

/// Whether a head that does not parse has bytes in its target that have no place there.
fn has_bad_target(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let rest = words.next().unwrap_or_default();
    let target = [b" HTTP/1.1", b" HTTP/1.0"].into_iter().find_map(|end| rest.strip_suffix(end));
    method.iter().all(u8::is_ascii_uppercase)
        && !method.is_empty()
        && target.is_some_and(|it| it.starts_with(b"/") && !it.iter().all(u8::is_ascii_graphic))
}

/// A well-formed head for the place of a bad one. Its method says only whether the answer may have
/// a body.
pub(super) fn stand_in(bad: &[u8]) -> &'static [u8] {
    if bad.starts_with(b"HEAD ") {
        b"HEAD / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n"
    } else {
        b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_never_past_their_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            if let Ok(Some(head)) = read(&bytes, 16 * 1024) {
                prop_assert!(head.bytes <= bytes.len());
            }
        }

        #[test]
        fn a_head_with_one_byte_changed_is_refused_or_framed_once(
            at in 0_usize..90, byte: u8,
        ) {
            let whole = b"POST /v1 HTTP/1.1\r\nhost: a\r\ncontent-length: 12\r\nx-a: b\r\n\r\n";
            let mut head = whole.to_vec();
            if let Some(slot) = head.get_mut(at) {
                *slot = byte;
            }
            if let Ok(Some(read)) = read(&head, 16 * 1024) {
                let head = head.get(..read.bytes).unwrap_or_default();
                prop_assert!(!has_bare_line_feed(head));
                prop_assert!(head.ends_with(b"\r\n\r\n"));
            }
        }

        #[test]
        fn no_part_of_a_head_is_a_whole_one(cut in 0_usize..57) {
            let whole = b"POST /v1 HTTP/1.1\r\nhost: a\r\ncontent-length: 12\r\nx-a: b\r\n\r\n";
            let part = whole.get(..cut).unwrap_or_default();
            prop_assert_eq!(read(part, 16 * 1024), Ok(None));
        }
    }

    fn of(head: &str) -> Result<Framing, BadHead> {
        let head = head.replace('\n', "\r\n");
        let read = read(head.as_bytes(), 16 * 1024)?.expect("a whole head");
        assert_eq!(read.bytes, head.len());
        Ok(read.framing)
    }

    fn with(headers: &str) -> Result<Framing, BadHead> {
        of(&format!("POST /v1 HTTP/1.1\nhost: a\n{headers}\n"))
    }

    #[test]
    fn one_reading_of_the_framing() {
        assert_eq!(with(""), Ok(Framing::None));
        assert_eq!(with("content-length: 0\n"), Ok(Framing::None));
        assert_eq!(with("Content-Length: 12\n"), Ok(Framing::Length(12)));
        assert_eq!(with("Transfer-Encoding: Chunked\n"), Ok(Framing::Chunked));
        for bad in [
            "content-length: 1\ncontent-length: 1\n",
            "content-length: 1\ncontent-length: 2\n",
            "content-length: 1\ntransfer-encoding: chunked\n",
            "transfer-encoding: chunked\ncontent-length: 1\n",
            "transfer-encoding: chunked\ntransfer-encoding: chunked\n",
            "transfer-encoding: gzip, chunked\n",
            "transfer-encoding: identity\n",
            "transfer-encoding: xchunked\n",
            "transfer-encoding: chunked,\n",
            "content-length: +1\n",
            "content-length: -1\n",
            "content-length: 0x1\n",
            "content-length: 1_0\n",
            "content-length: 1, 1\n",
            "content-length: \n",
            "content-length: 1 1\n",
            "content-length: 99999999999999999999\n",
            "content-length: 18446744073709551615\n",
        ] {
            assert_eq!(with(bad), Err(BadHead::Framing), "{bad:?}");
        }
        let old = of("POST / HTTP/1.0\nhost: a\ntransfer-encoding: chunked\n\n");
        assert_eq!(old, Err(BadHead::Framing));
    }

    #[test]
    fn what_lenient_readers_accept() {
        for bad in [
            "x : y\n",
            " folded\n",
            "x: y\n folded\n",
            "x: a\0b\n",
            "x: a\rb\n",
            "x\n",
            ": y\n",
            "x y: z\n",
        ] {
            assert_eq!(with(bad), Err(BadHead::Malformed), "{bad:?}");
        }
        let feeds: &[u8] = b"GET / HTTP/1.1\nhost: a\n\n";
        assert_eq!(read(feeds, 1024), Err(BadHead::Malformed));
        let feeds: &[u8] = b"GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n";
        assert_eq!(read(feeds, 1024), Err(BadHead::Malformed));
        assert_eq!(of("GET / HTTP/2.0\nhost: a\n\n"), Err(BadHead::Malformed));
        assert_eq!(of("GET  / HTTP/1.1\nhost: a\n\n"), Err(BadHead::Malformed));
        assert_eq!(of("GET / HTTP/1.1\n\n"), Err(BadHead::Host));
        assert_eq!(of("GET / HTTP/1.1\nhost: a\nhost: a\n\n"), Err(BadHead::Host));
        assert_eq!(of("GET / HTTP/1.0\n\n"), Ok(Framing::None));
    }

    #[test]
    fn targets_that_hyper_would_change_or_refuse() {
        let target = |target: &str| of(&format!("GET {target} HTTP/1.1\nhost: a\n\n")).err();
        assert_eq!(target("/v1/a?b=c"), None);
        assert_eq!(target("http://a/v1"), None);
        for bad in
            ["/v1#f", "/<v1>", "/`", "/?\"", "*", "v1", "a:443", "http://", "ftp://a/", "/v1 /x"]
        {
            assert_eq!(target(bad), Some(BadHead::Target), "{bad:?}");
        }
        assert_eq!(target("/caf\u{e9}"), Some(BadHead::Target));
        assert_eq!(target("/a\0b"), Some(BadHead::Target));
    }

    #[test]
    fn bounds() {
        let many = "x: y\n".repeat(MAX_HEADERS);
        assert_eq!(with(&many), Err(BadHead::TooLarge));
        let long = format!("x: {}\n", "y".repeat(20_000));
        assert_eq!(with(&long), Err(BadHead::TooLarge));
        assert_eq!(read(b"GET / HTTP/1.1\r\nhost", 1024), Ok(None));
        assert_eq!(read(&[b'A'; 2048], 1024), Err(BadHead::TooLarge));
    }
}
