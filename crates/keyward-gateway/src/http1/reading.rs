//! A body, taken out of the bytes that were read (RFC 9112 §6 and §7).

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use httparse::EMPTY_HEADER;

use crate::http1::chunked::{Chunked, Piece};

/// Fields behind a body.
const MAX_TRAILERS: usize = 100;

/// How far a body was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Nothing more belongs to it.
    Ended,
    /// So many bytes are left.
    Length(u64),
    /// The framing says where it ends.
    Chunked(Chunked, Vec<u8>),
    /// The orderly end of the connection is its end.
    UntilClose,
}

/// What was taken.
pub(crate) enum Taken {
    Frame(Frame<Bytes>),
    Ended,
    /// More must be read first.
    Nothing,
}

impl Reading {
    pub(crate) const fn chunked(chunked: Chunked) -> Self {
        Self::Chunked(chunked, Vec::new())
    }

    /// How many bytes are left, as far as that is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ended => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(..) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// Takes the next of the body out of what was read, and never bytes behind it.
    ///
    /// # Errors
    /// The framing is malformed.
    pub(crate) fn take(&mut self, input: &mut BytesMut) -> io::Result<Taken> {
        match self {
            Self::Ended => Ok(Taken::Ended),
            _ if input.is_empty() => Ok(Taken::Nothing),
            Self::Length(left) => {
                let count = usize::try_from(*left).map_or(input.len(), |it| it.min(input.len()));
                *left -= count as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Taken::Frame(Frame::data(input.split_to(count).freeze())))
            }
            Self::UntilClose => Ok(Taken::Frame(Frame::data(input.split().freeze()))),
            Self::Chunked(chunked, trailers) => {
                let (taken, ended) = take_chunk(chunked, trailers, input)?;
                if ended {
                    *self = Self::Ended;
                }
                Ok(taken)
            }
        }
    }

    /// The connection has ended in order.
    ///
    /// # Errors
    /// The body has not.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Ended => Ok(()),
            Self::UntilClose => {
                *self = Self::Ended;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(..) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended before the body did",
            )),
        }
    }
}

/// The next data or the trailers, and whether nothing follows.
fn take_chunk(
    chunked: &mut Chunked,
    trailers: &mut Vec<u8>,
    input: &mut BytesMut,
) -> io::Result<(Taken, bool)> {
    loop {
        let (count, piece) = chunked.next(input)?;
        match piece {
            _ if count == 0 => return Ok((Taken::Nothing, false)),
            Piece::Framing => input.advance(count),
            Piece::Data => {
                let data = Frame::data(input.split_to(count).freeze());
                let ended = skip_end(chunked, trailers, input)?;
                return Ok((Taken::Frame(data), ended));
            }
            Piece::Trailers => trailers.extend_from_slice(&input.split_to(count)),
            Piece::Ended => {
                trailers.extend_from_slice(&input.split_to(count));
                let fields = parse(trailers)?;
                let taken = if fields.is_empty() {
                    Taken::Ended
                } else {
                    Taken::Frame(Frame::trailers(fields))
                };
                return Ok((taken, true));
            }
        }
    }
}

/// Whether nothing follows the data that was taken, so that whoever gets it knows that it is the
/// last. Trailers are left for later.
fn skip_end(chunked: &mut Chunked, trailers: &[u8], input: &mut BytesMut) -> io::Result<bool> {
    while !input.is_empty() {
        let mut ahead = *chunked;
        let (count, piece) = ahead.next(input)?;
        let is_last = piece == Piece::Ended && trailers.is_empty() && count == b"\r\n".len();
        if piece != Piece::Framing && !is_last {
            return Ok(false);
        }
        *chunked = ahead;
        input.advance(count);
        if is_last {
            return Ok(true);
        }
    }
    Ok(false)
}

fn parse(section: &[u8]) -> io::Result<HeaderMap> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the trailers are malformed");
    let mut slots = [EMPTY_HEADER; MAX_TRAILERS];
    let parsed = httparse::parse_headers(section, &mut slots).map_err(|_| wrong())?;
    let httparse::Status::Complete((_, fields)) = parsed else {
        return Err(wrong());
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| wrong())?;
        trailers.append(name, value);
    }
    Ok(trailers)
}
