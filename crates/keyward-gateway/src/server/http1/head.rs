//! The head of a request, read as strictly as anyone could read it.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Uri, Version};
use httparse::{Error as ParseError, Header, Request, Status};
use memchr::memchr_iter;

use keyward_core::error::{Error, ErrorCode};

use crate::spare::maps;

/// The most headers in one request.
pub(crate) const MAX_HEADERS: usize = 100;

/// The most digits in the port of a `Host` header.
const MAX_PORT_DIGITS: usize = 5;

/// Why a head is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// Not HTTP/1.1, or written in a way that two readers could understand differently.
    Malformed,
    /// Too many bytes or headers.
    TooLarge,
    /// The target is no path and no address.
    Target,
    /// No `Host` header, more than one, or one that names no host.
    Host,
    /// No single reading of where the body ends.
    Framing,
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
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) framing: Framing,
    /// Whether its caller would send another request behind it.
    pub(super) stays: bool,
    /// Whether its caller waits to be asked for the body (RFC 9110 §10.1.1).
    pub(super) expects: bool,
}

/// The length of the head at the front of `bytes`, when it is whole and would be passed on. For
/// programs that try the reader with bytes of their own.
pub fn head_length(bytes: &[u8], max_bytes: usize) -> Option<usize> {
    let mut received = BytesMut::from(bytes);
    take(&mut received, max_bytes).ok()??;
    Some(bytes.len() - received.len())
}

/// Takes a head from the front of what was received; `None` while it is not whole.
pub(super) fn take(received: &mut BytesMut, max_bytes: usize) -> Result<Option<Head>, BadHead> {
    // RFC 9112 §2.2: some send an empty line behind a body
    while received.starts_with(b"\r\n") {
        received.advance(2);
    }
    let Some(end) = end(received)? else {
        return check_part(received, max_bytes).map(|()| None);
    };
    if end > max_bytes {
        return Err(BadHead::TooLarge);
    }
    let head = received.split_to(end).freeze();
    read(&head).map(Some)
}

/// Where a head ends, which is its first empty line; `None` while there is none.
fn end(bytes: &[u8]) -> Result<Option<usize>, BadHead> {
    let mut line = 0;
    for feed in memchr_iter(b'\n', bytes) {
        let is_bare = feed.checked_sub(1).and_then(|before| bytes.get(before)) != Some(&b'\r');
        if is_bare {
            return Err(if has_bad_target(bytes) { BadHead::Target } else { BadHead::Malformed });
        }
        if feed - line == 1 {
            return Ok(Some(feed + 1));
        }
        line = feed + 1;
    }
    Ok(None)
}

/// Refuses a part of a head that cannot become a good one, so that nobody waits for the rest.
fn check_part(bytes: &[u8], max_bytes: usize) -> Result<(), BadHead> {
    let mut slots = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut slots) {
        Ok(_) if bytes.len() > max_bytes => Err(BadHead::TooLarge),
        Ok(_) => Ok(()),
        Err(error) => Err(reason(error, bytes)),
    }
}

fn reason(error: ParseError, bytes: &[u8]) -> BadHead {
    match error {
        ParseError::TooManyHeaders => BadHead::TooLarge,
        _ if has_bad_target(bytes) => BadHead::Target,
        _ => BadHead::Malformed,
    }
}

/// Reads a whole head. Its values share the head's memory.
fn read(head: &Bytes) -> Result<Head, BadHead> {
    let mut slots = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(head, &mut slots);
    let parsed = parsed.map_err(|error| reason(error, head))?;
    if parsed != Status::Complete(head.len()) {
        return Err(BadHead::Malformed);
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(BadHead::Malformed);
    };
    if !is_carried_verbatim(target) {
        return Err(BadHead::Target);
    }
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| BadHead::Malformed)?;
    let target = head.slice_ref(target.as_bytes());
    parts.uri = Uri::from_maybe_shared(target).map_err(|_| BadHead::Target)?;
    let is_http_11 = request.version == Some(1);
    parts.version = if is_http_11 { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut seen = Seen::new(is_http_11);
    parts.headers = maps::take(request.headers.len());
    for header in request.headers.iter() {
        seen.look(header)?;
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(head.slice_ref(header.value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(BadHead::Malformed);
        };
        parts.headers.append(name, value);
    }
    let framing = seen.framing()?;
    Ok(Head { parts, framing, stays: seen.stays, expects: seen.expects && is_http_11 })
}

/// What the headers say about the message itself.
struct Seen {
    is_http_11: bool,
    hosts: usize,
    framing: Option<Framing>,
    stays: bool,
    expects: bool,
}

impl Seen {
    const fn new(is_http_11: bool) -> Self {
        // RFC 9112 §9.3: a connection stays open by default since HTTP/1.1
        Self { is_http_11, hosts: 0, framing: None, stays: is_http_11, expects: false }
    }

    fn look(&mut self, header: &Header<'_>) -> Result<(), BadHead> {
        let named = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            4 if named("host") => {
                self.hosts += 1;
                if !is_host(header.value) {
                    return Err(BadHead::Host);
                }
            }
            6 if named("expect") => {
                self.expects |= header.value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if named("connection") => self.look_at_options(header.value),
            14 if named("content-length") => {
                self.frame(Framing::Length(digits(header.value)?))?;
            }
            17 if named("transfer-encoding") => {
                if !self.is_http_11 || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadHead::Framing);
                }
                self.frame(Framing::Chunked)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn look_at_options(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.stays = false;
            } else if !self.is_http_11 && option.eq_ignore_ascii_case(b"keep-alive") {
                self.stays = true;
            }
        }
    }

    fn frame(&mut self, framing: Framing) -> Result<(), BadHead> {
        let before = self.framing.replace(framing);
        if before.is_some() { Err(BadHead::Framing) } else { Ok(()) }
    }

    fn framing(&self) -> Result<Framing, BadHead> {
        if self.hosts > 1 || (self.hosts == 0 && self.is_http_11) {
            return Err(BadHead::Host);
        }
        Ok(match self.framing {
            None | Some(Framing::Length(0)) => Framing::None,
            Some(framing) => framing,
        })
    }
}

/// Whether it is a name or address, perhaps with a port, as RFC 9112 §3.2 wants it checked. Of the
/// characters that a name may have, only those are taken that names do have.
pub(crate) fn is_host(value: &[u8]) -> bool {
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
    // hyper's bodies keep the two highest numbers for themselves
    match text.parse::<u64>() {
        Ok(length) if length < u64::MAX - 1 => Ok(length),
        _ => Err(BadHead::Framing),
    }
}

/// Whether the parsed address holds exactly these bytes: fragments are cut off there, and some
/// characters have no place in it.
pub(in crate::server) fn is_carried_verbatim(target: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`');
    target.bytes().all(plain)
        && (target.starts_with('/') || (target.starts_with("http") && is_absolute(target)))
}

fn is_absolute(target: &str) -> bool {
    let uri: Result<Uri, _> = target.parse();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_never_past_their_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            if let Some(length) = head_length(&bytes, 16 * 1024) {
                prop_assert!(length <= bytes.len());
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
            if let Some(length) = head_length(&head, 16 * 1024) {
                let head = &head[..length];
                let feeds = memchr_iter(b'\n', head);
                prop_assert!(feeds.into_iter().all(|at| head[at - 1] == b'\r'));
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

    fn read(bytes: &[u8], max_bytes: usize) -> Result<Option<Framing>, BadHead> {
        let head = take(&mut BytesMut::from(bytes), max_bytes)?;
        Ok(head.map(|head| head.framing))
    }

    fn of(head: &str) -> Result<Framing, BadHead> {
        let head = head.replace('\n', "\r\n");
        let read = read(head.as_bytes(), 16 * 1024)?.expect("a whole head");
        assert_eq!(head_length(head.as_bytes(), 16 * 1024), Some(head.len()));
        Ok(read)
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
    fn whether_another_request_follows() {
        let stays = |head: &str| {
            let head = head.replace('\n', "\r\n");
            take(&mut BytesMut::from(head.as_bytes()), 1024).unwrap().unwrap().stays
        };
        assert!(stays("GET / HTTP/1.1\nhost: a\n\n"));
        assert!(stays("\n\nGET / HTTP/1.1\nhost: a\nconnection: x, keep-alive\n\n"));
        assert!(!stays("GET / HTTP/1.1\nhost: a\nconnection: x, Close\n\n"));
        assert!(!stays("GET / HTTP/1.0\nhost: a\n\n"));
        assert!(stays("GET / HTTP/1.0\nhost: a\nconnection: Keep-Alive\n\n"));
    }

    #[test]
    fn what_cannot_become_a_head_is_not_waited_for() {
        for bad in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\nhost", b"GE@T(", b" GET /"] {
            assert_eq!(read(bad, 1024), Err(BadHead::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn targets_that_are_not_carried_verbatim() {
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
