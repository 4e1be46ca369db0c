//! The framing of a chunked body, in the one spelling that every reader shares.

use std::io;

/// Digits in the size of a chunk.
const MAX_SIZE_DIGITS: u8 = 15;
/// Bytes in the trailer section.
const MAX_TRAILER_BYTES: u16 = 8 * 1024;

/// Where a chunked body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        value: u64,
        digits: u8,
    },
    SizeFeed {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataFeed,
    /// The first byte of a trailer, or the return of the last line.
    LineStart {
        total: u16,
    },
    Name {
        total: u16,
    },
    Value {
        total: u16,
    },
    LineFeed {
        total: u16,
    },
    LastFeed,
}

/// What follows the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More of this body.
    More,
    /// The next head.
    Ended,
}

impl Chunked {
    pub(super) const fn new() -> Self {
        Self { state: State::Size { value: 0, digits: 0 } }
    }

    /// Reads on; says how many bytes belong to this body. Chunk extensions are refused: nobody
    /// needs them, and readers differ about where they end.
    pub(super) fn read(&mut self, bytes: &[u8]) -> io::Result<(usize, Step)> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let State::Data { left } = self.state {
                let there = (bytes.len() - at) as u64;
                let taken = left.min(there);
                at += usize::try_from(taken).unwrap_or(usize::MAX);
                self.state = match left - taken {
                    0 => State::DataReturn,
                    left => State::Data { left },
                };
                continue;
            }
            at += 1;
            if self.state == State::LastFeed && *byte == b'\n' {
                return Ok((at, Step::Ended));
            }
            self.state = self.state.after(*byte).ok_or_else(broken)?;
        }
        Ok((at, Step::More))
    }
}

impl State {
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { value, digits }, byte) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return None;
                }
                let digit = char::from(byte).to_digit(16)?;
                Self::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { value, digits }, b'\r') if digits > 0 => Self::SizeFeed { value },
            (Self::SizeFeed { value: 0 }, b'\n') => Self::LineStart { total: 0 },
            (Self::SizeFeed { value }, b'\n') => Self::Data { left: value },
            (Self::DataReturn, b'\r') => Self::DataFeed,
            (Self::DataFeed, b'\n') => Self::Size { value: 0, digits: 0 },
            (Self::LineStart { .. }, b'\r') => Self::LastFeed,
            (Self::Name { total } | Self::Value { total } | Self::LineStart { total }, _)
                if total >= MAX_TRAILER_BYTES =>
            {
                return None;
            }
            (Self::LineStart { total } | Self::Name { total }, byte) if is_token(byte) => {
                Self::Name { total: total + 1 }
            }
            (Self::Value { total }, b'\r') => Self::LineFeed { total },
            (Self::Name { total }, b':') | (Self::Value { total }, b'\t' | b' '..=b'~') => {
                Self::Value { total: total + 1 }
            }
            (Self::LineFeed { total }, b'\n') => Self::LineStart { total },
            _ => return None,
        })
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the chunks of the body are malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<(usize, Step)> {
        Chunked::new().read(text.as_bytes()).ok()
    }

    #[test]
    fn well_formed_bodies_end_where_they_end() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n0\r\n\r\n",
            "000a\r\n0123456789\r\n000\r\n\r\n",
            "1\r\na\r\n0\r\nx-sum: 1\r\ny:\r\n\r\n",
        ] {
            let with_next = format!("{body}GET / HTTP/1.1\r\n");
            assert_eq!(whole(&with_next), Some((body.len(), Step::Ended)), "{body:?}");
            let mut bytewise = Chunked::new();
            for (at, byte) in body.bytes().enumerate() {
                let step = bytewise.read(&[byte]).unwrap().1;
                assert_eq!(step == Step::Ended, at + 1 == body.len(), "{body:?} at {at}");
            }
        }
        assert_eq!(whole("5\r\nhel"), Some((6, Step::More)));
    }

    #[test]
    fn everything_else_is_refused() {
        for body in [
            "\r\n",
            ";\r\n",
            "5;ext\r\nhello\r\n",
            "5 \r\nhello\r\n",
            " 5\r\nhello\r\n",
            "+5\r\n",
            "0x5\r\n",
            "5\nhello\r\n",
            "5\r\nhello\n",
            "5\r\nhelloX",
            "5\rhello",
            "ffffffffffffffff\r\n",
            "0\r\nbad trailer\r\n",
            "0\r\nx: a\0\r\n",
            "0\r\nx: a\n\r\n",
            "0\r\n: a\r\n",
            "0\r\n folded\r\n",
            "0\n\n",
        ] {
            assert_eq!(whole(body), None, "{body:?}");
        }
        let long = format!("0\r\nx: {}\r\n\r\n", "y".repeat(9_000));
        assert_eq!(whole(&long), None);
    }
}
