//! What goes to an upstream: a head, and a body as it comes.

use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as _;
use tokio::io::AsyncWrite as _;

use crate::identity::{Lines, Sheet as _};
use crate::proxy::body::ForwardBody;
use crate::proxy::http1::head::malformed;
use crate::proxy::http1::socket::Socket;
use crate::proxy::outbound::Framing;
use crate::spare::room;
use crate::stall::IdleTimer;

/// Bytes of a frame that is copied behind what waits already; larger ones are sent from where they
/// are.
const COPIED_BYTES: usize = 8 * 1024;
/// Bytes that are gathered before they are sent.
const GATHERED_BYTES: usize = 16 * 1024;

const END_OF_LINE: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n";

/// Why a request was not sent to its end.
#[derive(Debug)]
pub(super) enum SendFault {
    /// Its body failed.
    Body,
    /// The upstream takes nothing any more.
    Stalled,
    /// The connection broke.
    Io(io::Error),
}

/// A request on its way out.
pub(super) struct Upload {
    /// Bytes that wait, of which so many are sent.
    buffer: BytesMut,
    sent: usize,
    /// A frame too large to be copied, and what ends it.
    frame: Bytes,
    tail: &'static [u8],
    body: ForwardBody,
    framing: Framing,
    ended: bool,
    /// Whether what was written waits within the socket.
    unflushed: bool,
    /// Whether nothing of it was taken by anybody.
    untouched: bool,
    stall: IdleTimer,
}

impl Upload {
    /// Nothing yet. `stall`: for how long the upstream may take nothing.
    pub(super) fn new(stall: IdleTimer) -> Self {
        Self {
            buffer: BytesMut::new(),
            sent: 0,
            frame: Bytes::new(),
            tail: &[],
            body: ForwardBody::Empty,
            framing: Framing::None,
            ended: true,
            unflushed: false,
            untouched: true,
            stall,
        }
    }

    /// Begins with a request.
    pub(super) fn begin(
        &mut self,
        body: ForwardBody,
        framing: Framing,
        write_head: impl FnOnce(&Framing, &mut BytesMut),
    ) {
        self.buffer.clear();
        if self.buffer.capacity() == 0 {
            self.buffer = room::take();
        }
        self.sent = 0;
        write_head(&framing, &mut self.buffer);
        self.ended = matches!(body, ForwardBody::Empty);
        self.body = body;
        self.framing = framing;
        self.untouched = true;
    }

    /// Whether everything was sent.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.is_written() && !self.unflushed
    }

    /// The body of a request of which nothing was taken, not by the upstream and not of the body.
    pub(super) fn take_unsent(&mut self) -> Option<ForwardBody> {
        self.untouched.then(|| std::mem::replace(&mut self.body, ForwardBody::Empty))
    }

    /// Sends nothing more.
    pub(super) fn give_up(&mut self) {
        self.ended = true;
        self.buffer.clear();
        self.sent = 0;
        self.frame = Bytes::new();
        self.tail = &[];
        self.unflushed = false;
    }

    /// Has nothing measured by the timer of another runtime.
    pub(super) fn forget_timer(&mut self) {
        self.stall.forget();
    }

    /// Sends on; ready when the request was sent whole.
    pub(super) fn poll(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFault>> {
        loop {
            if !self.ended {
                self.gather(cx)?;
            }
            if self.is_written() {
                self.buffer.clear();
                self.sent = 0;
                if self.ended {
                    room::keep(&mut self.buffer);
                }
                if self.unflushed {
                    let flushed = Pin::new(&mut *socket).poll_flush(cx);
                    ready!(self.stall.settle(cx, flushed)).map_err(fault)?;
                    self.unflushed = false;
                }
                return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let count = ready!(self.poll_write(socket, cx)).map_err(fault)?;
            self.untouched = false;
            self.unflushed = socket.holds_back();
            self.advance(count);
        }
    }

    /// Writes bytes to a connection that is no longer one of HTTP.
    pub(super) fn poll_write_raw(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(socket).poll_write(cx, bytes);
        self.stall.settle(cx, written)
    }

    fn is_written(&self) -> bool {
        self.sent == self.buffer.len() && self.frame.is_empty() && self.tail.is_empty()
    }

    fn poll_write(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let waiting = self.buffer.get(self.sent..).unwrap_or_default();
        let written = if self.frame.is_empty() && self.tail.is_empty() {
            Pin::new(socket).poll_write(cx, waiting)
        } else {
            let parts = [waiting, &self.frame, self.tail].map(IoSlice::new);
            Pin::new(socket).poll_write_vectored(cx, &parts)
        };
        match ready!(self.stall.settle(cx, written)) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(written),
        }
    }

    fn advance(&mut self, count: usize) {
        let of_buffer = count.min(self.buffer.len() - self.sent);
        self.sent += of_buffer;
        let of_frame = (count - of_buffer).min(self.frame.len());
        self.frame.advance(of_frame);
        self.tail = self.tail.get(count - of_buffer - of_frame..).unwrap_or_default();
    }

    /// Takes of the body what is at hand, as far as there is room.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), SendFault> {
        while !self.ended
            && self.frame.is_empty()
            && self.tail.is_empty()
            && self.buffer.len() < GATHERED_BYTES
        {
            let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(cx) else {
                return Ok(());
            };
            // even of a body that failed: it cannot be had again
            self.untouched = false;
            match next {
                None => self.end(None)?,
                Some(Err(_)) => return Err(SendFault::Body),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.put(data)?,
                    Err(frame) => self.end(frame.trailers_ref())?,
                },
            }
        }
        Ok(())
    }

    fn put(&mut self, data: Bytes) -> Result<(), SendFault> {
        let bytes = data.len();
        let is_chunked = match &mut self.framing {
            Framing::Length(left) => {
                let rest = left.checked_sub(bytes as u64);
                *left = rest.ok_or_else(|| wrong("the body is longer than was said"))?;
                false
            }
            Framing::Unknown { .. } => true,
            Framing::None => return Err(wrong("a body where there is none")),
        };
        if bytes > 0 {
            if is_chunked {
                // writing to memory cannot fail
                let _ = write!(self.buffer, "{bytes:x}\r\n");
            }
            let tail = if is_chunked { END_OF_LINE } else { &[] };
            if bytes <= COPIED_BYTES {
                self.buffer.extend_from_slice(&data);
                self.buffer.extend_from_slice(tail);
            } else {
                self.frame = data;
                self.tail = tail;
            }
        }
        if self.body.is_end_stream() { self.end(None) } else { Ok(()) }
    }

    /// Nothing more comes of the body.
    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), SendFault> {
        self.ended = true;
        self.body = ForwardBody::Empty;
        match &self.framing {
            Framing::None | Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(wrong("the body is shorter than was said")),
            Framing::Unknown { trailers: announced } => {
                if self.frame.is_empty() {
                    self.buffer.extend_from_slice(LAST_CHUNK);
                    if let (Some(fields), Some(announced)) = (trailers, announced) {
                        push_fields(&mut self.buffer, fields, announced);
                    }
                    self.buffer.extend_from_slice(END_OF_LINE);
                } else {
                    // trailers come behind frames that are on their way
                    self.tail = b"\r\n0\r\n\r\n";
                }
                Ok(())
            }
        }
    }
}

/// The fields behind a body that were announced (RFC 9110 §6.6.2).
fn push_fields(out: &mut BytesMut, fields: &HeaderMap, announced: &HeaderValue) {
    let is_announced = |name: &HeaderName| {
        let mut names = announced.as_bytes().split(|byte| *byte == b',');
        names.any(|it| it.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    let mut lines = Lines(out);
    for (name, value) in fields.iter().filter(|(name, _)| is_announced(name)) {
        lines.set(name, value);
    }
}

fn wrong(what: &'static str) -> SendFault {
    SendFault::Io(malformed(what))
}

fn fault(error: io::Error) -> SendFault {
    if error.kind() == io::ErrorKind::TimedOut { SendFault::Stalled } else { SendFault::Io(error) }
}
