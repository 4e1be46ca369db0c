//! The request target, read once. What two parsers could read differently is refused, so that the
//! bytes that were matched against the allowlist are the bytes that are forwarded.

use std::borrow::Cow;
use std::str;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorCode};
use crate::key::TokenFormat;

/// The most bytes in a path.
pub const MAX_PATH_BYTES: usize = 4 * 1024;
/// The most bytes in a query, without the question mark.
pub const MAX_QUERY_BYTES: usize = 8 * 1024;

/// A path that reads one way only, and the query behind it as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path, from its first slash.
    pub path: &'a str,
    /// What stands behind the question mark, if there is one.
    pub query: Option<&'a str>,
}

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// Neither a path nor an address with a path.
    #[error("begin the path with '/'")]
    NotAPath,
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("the path is longer than 4096 bytes")]
    PathTooLong,
    /// Longer than [`MAX_QUERY_BYTES`].
    #[error("the query is longer than 8192 bytes")]
    QueryTooLong,
    /// `//` somewhere.
    #[error("the path has an empty segment ('//')")]
    EmptySegment,
    /// `.` or `..` as a segment.
    #[error("the path has a '.' or '..' segment")]
    DotSegment,
    /// A byte that has no place in a path or query.
    #[error("the path has a character that must be percent-encoded")]
    ForeignByte,
    /// `;`, plain or encoded.
    #[error("the path has a ';', which some servers cut at")]
    Parameter,
    /// `\`, plain or encoded.
    #[error("the path has a backslash")]
    Backslash,
    /// `%2F`.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// `%00` and other control characters.
    #[error("the path has an encoded control character")]
    EncodedControl,
    /// `%61` and other characters that need no encoding.
    #[error("the path encodes a letter, digit, '-', '.', '_' or '~'; send it plain")]
    NeedlessEncoding,
    /// `%25` before two hexadecimal digits.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// `%` without two hexadecimal digits.
    #[error("the path has a '%' without two hexadecimal digits")]
    BadEncoding,
    /// A segment that does not decode to UTF-8.
    #[error("the path does not decode to UTF-8")]
    NotUtf8,
    /// `#` and what follows belongs to the client.
    #[error("the address has a fragment ('#'); leave it out")]
    Fragment,
}

impl From<InvalidTarget> for Error {
    fn from(reason: InvalidTarget) -> Self {
        Self::new(ErrorCode::InvalidPath, format!("The path was refused: {reason}"))
    }
}

impl<'a> Target<'a> {
    /// Reads a target in origin form, such as `/v1/reports?limit=2`.
    pub fn parse(text: &'a str) -> Result<Self, InvalidTarget> {
        if is_plain(text) {
            return Ok(Self { path: text, query: None });
        }
        if text.contains('#') {
            return Err(InvalidTarget::Fragment);
        }
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        check_path(path)?;
        if let Some(query) = query {
            check_query(query)?;
        }
        Ok(Self { path, query })
    }
}

/// What in a text, such as an address that could not be read, looks like a key, as it stands there
/// or percent-encoded.
pub fn carried_credential<'a>(text: &'a str, format: &TokenFormat) -> Option<Cow<'a, str>> {
    match Cow::from(percent_decode_str(text)) {
        Cow::Borrowed(_) => format.find_in(text).map(Cow::Borrowed),
        Cow::Owned(decoded) => format.find_in(text).map(Cow::Borrowed).or_else(|| {
            let decoded = String::from_utf8_lossy(&decoded);
            format.find_in(&decoded).map(|found| Cow::Owned(found.to_owned()))
        }),
    }
}

/// Whether it is a path of letters, digits, `-` and `_` alone, as most are: nothing else can be
/// wrong with it than an empty segment.
fn is_plain(text: &str) -> bool {
    let mut before = b' ';
    let mut plain = |byte: u8| {
        let doubled = byte == b'/' && before == b'/';
        before = byte;
        !doubled && (byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_'))
    };
    text.starts_with('/') && text.len() <= MAX_PATH_BYTES && text.bytes().all(&mut plain)
}

fn check_path(path: &str) -> Result<(), InvalidTarget> {
    if path.len() > MAX_PATH_BYTES {
        return Err(InvalidTarget::PathTooLong);
    }
    let rest = path.strip_prefix('/').ok_or(InvalidTarget::NotAPath)?;
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            // a trailing slash is another route, not another spelling
            "" if last => {}
            "" => return Err(InvalidTarget::EmptySegment),
            "." | ".." => return Err(InvalidTarget::DotSegment),
            _ => check_segment(segment)?,
        }
    }
    Ok(())
}

fn check_segment(segment: &str) -> Result<(), InvalidTarget> {
    let mut encoded = false;
    let mut rest = segment.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let [high, low, tail @ ..] = tail else {
                    return Err(InvalidTarget::BadEncoding);
                };
                check_octet(hex(*high)? << 4 | hex(*low)?, tail)?;
                encoded = true;
                rest = tail;
            }
            b';' => return Err(InvalidTarget::Parameter),
            b'\\' => return Err(InvalidTarget::Backslash),
            byte if is_segment_byte(*byte) => {}
            _ => return Err(InvalidTarget::ForeignByte),
        }
    }
    if encoded {
        let decoded = percent_decode_str(segment).decode_utf8();
        let decoded = decoded.map_err(|_| InvalidTarget::NotUtf8)?;
        if decoded.chars().any(char::is_control) {
            return Err(InvalidTarget::EncodedControl);
        }
    }
    Ok(())
}

/// One decoded octet, with what follows it in the text.
fn check_octet(octet: u8, tail: &[u8]) -> Result<(), InvalidTarget> {
    match octet {
        b'/' => Err(InvalidTarget::EncodedSlash),
        b'\\' => Err(InvalidTarget::Backslash),
        b';' => Err(InvalidTarget::Parameter),
        0..=0x1f | 0x7f => Err(InvalidTarget::EncodedControl),
        octet if is_unreserved(octet) => Err(InvalidTarget::NeedlessEncoding),
        b'%' => match tail {
            [high, low, ..] if hex(*high).is_ok() && hex(*low).is_ok() => {
                Err(InvalidTarget::DoubleEncoding)
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn check_query(query: &str) -> Result<(), InvalidTarget> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(InvalidTarget::QueryTooLong);
    }
    if query.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(InvalidTarget::ForeignByte)
    }
}

fn hex(digit: u8) -> Result<u8, InvalidTarget> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(InvalidTarget::BadEncoding),
    }
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 `pchar` without `%` and `;`.
const fn is_segment_byte(byte: u8) -> bool {
    let delimiter = matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@'
    );
    is_unreserved(byte) || delimiter
}

#[cfg(test)]
mod tests;
