//! The head of an answer (RFC 9112 §4 to §6), read strictly.

use std::io::{self, BufRead as _};
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, StatusCode};
use httparse::{Header, ParserConfig, Status};

use crate::http1::chunked::Chunked;
use crate::http1::reading::Reading;
use crate::proxy::target::MAX_RESPONSE_HEADERS;
use crate::spare::maps;

/// Bytes of the head of an answer.
pub(super) const MAX_RESPONSE_HEAD_BYTES: usize = 64 * 1024;

/// What every answer begins with.
const BEGINNING: &[u8] = b"HTTP/1.";

/// A whole head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// Without those that only say how this one message is framed and kept.
    pub(super) headers: HeaderMap,
    pub(super) body: Reading,
    /// Whether another exchange may follow on the connection.
    pub(super) keeps: bool,
}

/// Where a head ends, found without reading any byte twice.
#[derive(Default)]
pub(super) struct Seeker {
    /// Bytes of whole lines.
    seen: usize,
}

impl Seeker {
    /// The length of the head at the front of `bytes`: that of its lines up to the first empty one.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            let mut rest = bytes.get(self.seen..).unwrap_or_default();
            // reading from memory cannot fail
            let line = rest.skip_until(b'\n').unwrap_or_default();
            let end = self.seen + line;
            if line == 0 || bytes.get(end - 1) != Some(&b'\n') {
                return None;
            }
            let is_first = self.seen == 0;
            self.seen = end;
            let is_empty = line == 1 || (line == 2 && bytes.get(end - 2) == Some(&b'\r'));
            if is_empty && !is_first {
                self.seen = 0;
                return Some(end);
            }
        }
    }
}

/// Takes a head from the front of `input`; `None` while it is not whole. An answer to `HEAD` has no
/// body whatever it says.
///
/// # Errors
/// It is no head of HTTP/1, too large, or says in two ways where the body ends.
pub(super) fn take(
    input: &mut BytesMut,
    seeker: &mut Seeker,
    asked_for_head: bool,
) -> io::Result<Option<Head>> {
    let beginning = input.get(..BEGINNING.len().min(input.len())).unwrap_or_default();
    if !BEGINNING.starts_with(beginning) {
        return Err(malformed("the answer is not HTTP/1"));
    }
    match seeker.find(input) {
        Some(length) if length <= MAX_RESPONSE_HEAD_BYTES => {
            parse(&input.split_to(length).freeze(), asked_for_head).map(Some)
        }
        None if input.len() <= MAX_RESPONSE_HEAD_BYTES => Ok(None),
        _ => Err(malformed("the head of the answer is too large")),
    }
}

fn parse(bytes: &Bytes, asked_for_head: bool) -> io::Result<Head> {
    let mut slots = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_RESPONSE_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut slots);
    match parsed {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(malformed("the answer has too many headers"));
        }
        _ => return Err(malformed("the head of the answer is malformed")),
    }
    let is_http_11 = response.version == Some(1);
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| malformed("the answer has no status"))?;
    let mut framing = Framing::default();
    let mut headers = maps::take(response.headers.len());
    let mut keeps = is_http_11;
    for header in response.headers.iter() {
        let wrong = |_| malformed("the answer has a header that is none");
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(wrong)?;
        if name == TRANSFER_ENCODING {
            framing.note_coding(header.value, is_http_11)?;
            continue;
        }
        if name == CONTENT_LENGTH {
            framing.note_length(header.value)?;
        }
        if name == CONNECTION && !says(&mut keeps, header.value) {
            continue;
        }
        let wrong = |_| malformed("the answer has a header with a bad value");
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(header.value)).map_err(wrong)?;
        headers.append(name, value);
    }
    let bodiless = asked_for_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if bodiless { Reading::Ended } else { framing.body() };
    keeps &= body != Reading::UntilClose;
    Ok(Head { status, headers, body, keeps })
}

/// Reads what a `Connection` header says of the connection; true when it says more than that.
fn says(keeps: &mut bool, value: &[u8]) -> bool {
    let mut more = false;
    for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if word.eq_ignore_ascii_case(b"close") {
            *keeps = false;
        } else if !word.is_empty() && !word.eq_ignore_ascii_case(b"keep-alive") {
            more = true;
        }
    }
    more
}

/// What a head says of its body. Said twice, it could be understood in two ways.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
}

impl Framing {
    fn note_coding(&mut self, value: &[u8], is_http_11: bool) -> io::Result<()> {
        let only = !self.is_chunked && self.length.is_none();
        if !is_http_11 || !only || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(malformed("the end of the answer's body is not clear"));
        }
        self.is_chunked = true;
        Ok(())
    }

    fn note_length(&mut self, value: &[u8]) -> io::Result<()> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = str::from_utf8(value).ok().filter(|_| digits);
        let length = text.and_then(|text| text.parse().ok());
        if length.is_none() || self.is_chunked || self.length.is_some() {
            return Err(malformed("the length of the answer's body is not clear"));
        }
        self.length = length;
        Ok(())
    }

    fn body(&self) -> Reading {
        match self.length {
            Some(0) => Reading::Ended,
            Some(length) => Reading::Length(length),
            None if self.is_chunked => Reading::chunked(Chunked::of_answer()),
            None => Reading::UntilClose,
        }
    }
}

/// The error of bytes that no HTTP server should send.
pub(super) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
