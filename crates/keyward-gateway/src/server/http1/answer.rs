//! Answers as they are written: the head, and what marks the end of the body.

use std::cell::RefCell;
use std::fmt::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, Method, StatusCode, Version, request};
use http_body::Body;

use keyward_core::clock::Clock;
use keyward_core::time::Timestamp;

use super::line::Line;
use crate::server::transport::Transport;

/// What asks a caller for its body.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is known of a request when its answer is written.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) version: Version,
    pub(super) is_head: bool,
    /// Whether the connection goes on behind the answer.
    pub(super) stays: bool,
}

impl Asked {
    pub(super) fn of(request: &request::Parts, stays: bool) -> Self {
        let is_head = request.method == Method::HEAD;
        Self { version: request.version, is_head, stays }
    }
}

/// What marks the end of a body (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There is none: the answer has no body, though one of so many bytes was made for it.
    None(u64),
    /// The number of bytes that are still to come.
    Length(u64),
    /// A chunk of nothing.
    Chunk,
    /// The end of the connection.
    Connection,
}

/// The body is not what its head said.
#[derive(Debug)]
pub(super) struct WrongLength;

impl End {
    pub(super) fn of(asked: Asked, status: StatusCode, body: &impl Body) -> Self {
        if status.is_informational() || matches!(status.as_u16(), 204 | 304) {
            return Self::None(0);
        }
        match body.size_hint().exact() {
            length if asked.is_head => Self::None(length.unwrap_or_default()),
            Some(length) => Self::Length(length),
            None if asked.version == Version::HTTP_11 => Self::Chunk,
            None => Self::Connection,
        }
    }

    /// Says a piece of the body. There must be room.
    pub(super) fn say<S: Transport>(
        &mut self,
        line: &mut Line<S>,
        piece: Bytes,
    ) -> Result<(), WrongLength> {
        match self {
            Self::None(_) => return Err(WrongLength),
            Self::Length(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(WrongLength)?;
                line.say_piece(piece, b"");
            }
            // an empty chunk would be the last one
            Self::Chunk if piece.is_empty() => {}
            Self::Chunk => {
                // writing to memory cannot fail
                let _ = write!(line.say(), "{:x}\r\n", piece.len());
                line.say_piece(piece, b"\r\n");
            }
            Self::Connection => line.say_piece(piece, b""),
        }
        Ok(())
    }

    /// Says the end of the body, and what is behind it.
    pub(super) fn say_end<S: Transport>(
        self,
        line: &mut Line<S>,
        trailers: Option<&HeaderMap>,
    ) -> Result<(), WrongLength> {
        match self {
            Self::Length(1..) => Err(WrongLength),
            Self::None(_) | Self::Length(0) | Self::Connection => Ok(()),
            Self::Chunk => {
                let out = line.say();
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    say_field(out, name.as_str(), value.as_bytes());
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

/// Writes the head of an answer.
pub(super) fn say_head(
    out: &mut BytesMut,
    head: &Parts,
    asked: Asked,
    end: End,
    clock: &dyn Clock,
) {
    let is_old = asked.version == Version::HTTP_10;
    say_status(out, head.status, is_old);
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut length = None;
    let mut is_dated = false;
    for (name, value) in &head.headers {
        if *name == CONTENT_LENGTH {
            length = length.or(Some(value));
            continue;
        }
        if *name == TRANSFER_ENCODING || (*name == CONNECTION && !switches) {
            continue;
        }
        is_dated |= *name == DATE;
        say_field(out, name.as_str(), value.as_bytes());
    }
    match end {
        End::None(length @ 1..) | End::Length(length) => {
            say_field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        End::Chunk => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        // what a body would have had, where there may be none (RFC 9110 §8.6)
        End::None(0) if asked.is_head || head.status == StatusCode::NOT_MODIFIED => {
            if let Some(length) = length {
                say_field(out, "content-length", length.as_bytes());
            }
        }
        End::None(0) | End::Connection => {}
    }
    if !is_dated {
        say_date(out, clock.now());
    }
    match (switches, asked.stays && end != End::Connection) {
        (false, false) => out.extend_from_slice(b"connection: close\r\n"),
        (false, true) if is_old => out.extend_from_slice(b"connection: keep-alive\r\n"),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}

fn say_status(out: &mut BytesMut, status: StatusCode, is_old: bool) {
    // what nearly every answer begins with, at once
    if status == StatusCode::OK && !is_old {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn say_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The time, as every second says it anew (RFC 9110 §5.6.7).
fn say_date(out: &mut BytesMut, now: Timestamp) {
    thread_local! {
        static SAID: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    SAID.with_borrow_mut(|(second, text)| {
        if *second != now.as_seconds() {
            *second = now.as_seconds();
            *text = now.to_http_date();
        }
        say_field(out, "date", text.as_bytes());
    });
}
