//! The framing of a chunked body (RFC 9112 §7.1), in the one spelling that every reader shares.

use std::io;

/// Digits in the size of a chunk.
const MAX_SIZE_DIGITS: u8 = 15;
/// Bytes in the trailer section.
const MAX_TRAILER_BYTES: u16 = 8 * 1024;
/// Bytes behind the size of a chunk, where they are allowed at all.
const MAX_EXTENSION_BYTES: u16 = 1024;

/// Where a chunked body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    /// Whether extensions are read over instead of refused.
    skips_extensions: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        value: u64,
        digits: u8,
    },
    /// What nobody asked for behind a size.
    Extension {
        value: u64,
        total: u16,
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

/// What the bytes are that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of the body.
    Data,
    /// Bytes that only say where others end.
    Framing,
    /// A part of the trailer section.
    Trailers,
    /// The end of the trailer section, and of the body.
    Ended,
}

impl Chunked {
    /// The body of a request. Chunk extensions are refused: nobody needs them, and readers differ
    /// about where they end.
    pub(crate) const fn new() -> Self {
        Self { state: State::Size { value: 0, digits: 0 }, skips_extensions: false }
    }

    /// The body of an answer, which is framed anew when it is passed on: extensions, and the spaces
    /// with which old servers fill sizes up, are read over (RFC 9112 §7.1.1).
    pub(crate) const fn of_answer() -> Self {
        Self { skips_extensions: true, ..Self::new() }
    }

    /// Reads bytes of one kind, and says how many they are: none only when there are none.
    ///
    /// # Errors
    /// The framing is malformed.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> io::Result<(usize, Piece)> {
        if let State::Data { left } = self.state {
            let taken = left.min(bytes.len() as u64);
            self.state = match left - taken {
                0 => State::DataReturn,
                left => State::Data { left },
            };
            return Ok((usize::try_from(taken).unwrap_or(usize::MAX), Piece::Data));
        }
        let trails = self.state.trails();
        let mut at = 0;
        for byte in bytes {
            at += 1;
            if self.state == State::LastFeed && *byte == b'\n' {
                return Ok((at, Piece::Ended));
            }
            self.state = self.state.after(*byte, self.skips_extensions).ok_or_else(broken)?;
            if matches!(self.state, State::Data { .. }) || self.state.trails() != trails {
                break;
            }
        }
        Ok((at, if trails { Piece::Trailers } else { Piece::Framing }))
    }
}

impl State {
    /// Whether what follows belongs to the trailer section.
    const fn trails(self) -> bool {
        matches!(
            self,
            Self::LineStart { .. }
                | Self::Name { .. }
                | Self::Value { .. }
                | Self::LineFeed { .. }
                | Self::LastFeed
        )
    }

    fn after(self, byte: u8, skips_extensions: bool) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { value, digits }, byte) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return None;
                }
                let digit = char::from(byte).to_digit(16)?;
                Self::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { value, digits }, b'\r') if digits > 0 => Self::SizeFeed { value },
            (Self::Size { value, digits }, b';' | b' ' | b'\t')
                if digits > 0 && skips_extensions =>
            {
                Self::Extension { value, total: 1 }
            }
            (Self::Extension { value, .. }, b'\r') => Self::SizeFeed { value },
            (Self::Extension { value, total }, b'\t' | b' '..=b'~')
                if total < MAX_EXTENSION_BYTES =>
            {
                Self::Extension { value, total: total + 1 }
            }
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

    /// How many bytes belong to a body, and whether they are all of it.
    fn read(mut chunked: Chunked, text: &str) -> Option<(usize, bool)> {
        let mut at = 0;
        loop {
            let (count, piece) = chunked.next(&text.as_bytes()[at..]).ok()?;
            at += count;
            if count == 0 || piece == Piece::Ended {
                return Some((at, count > 0));
            }
        }
    }

    fn whole(text: &str) -> Option<(usize, bool)> {
        read(Chunked::new(), text)
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
            assert_eq!(whole(&with_next), Some((body.len(), true)), "{body:?}");
            let mut bytewise = Chunked::new();
            for (at, byte) in body.bytes().enumerate() {
                let piece = bytewise.next(&[byte]).unwrap().1;
                assert_eq!(piece == Piece::Ended, at + 1 == body.len(), "{body:?} at {at}");
            }
        }
        assert_eq!(whole("5\r\nhel"), Some((6, false)));
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

    #[test]
    fn extensions_of_answers_are_read_over() {
        let of_answer = |text: &str| read(Chunked::of_answer(), text);
        for body in ["5;a=\"b;c\"\r\nhello\r\n0;last\r\n\r\n", "5   \r\nhello\r\n0 \r\n\r\n"] {
            assert_eq!(of_answer(body), Some((body.len(), true)), "{body:?}");
        }
        let long = format!("5;{}\r\nhello\r\n", "x".repeat(1_100));
        for body in [";\r\n", "5;a\nhello\r\n", "5;a\0\r\n", long.as_str()] {
            assert_eq!(of_answer(body), None, "{body:?}");
        }
    }

    #[test]
    fn pieces_tell_data_from_framing() {
        let mut rest = &b"5\r\nhello\r\n0\r\nx: 1\r\n\r\nnext"[..];
        let mut chunked = Chunked::new();
        let mut seen = Vec::new();
        loop {
            let (count, piece) = chunked.next(rest).unwrap();
            let (bytes, after) = rest.split_at(count);
            seen.push((str::from_utf8(bytes).unwrap(), piece));
            rest = after;
            if piece == Piece::Ended {
                break;
            }
        }
        assert_eq!(
            seen,
            [
                ("5\r\n", Piece::Framing),
                ("hello", Piece::Data),
                ("\r\n0\r\n", Piece::Framing),
                ("x: 1\r\n\r\n", Piece::Ended),
            ]
        );
        assert_eq!(rest, b"next");
    }
}
