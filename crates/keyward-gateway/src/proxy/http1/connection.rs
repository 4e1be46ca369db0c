//! A connection that carries one exchange after the other.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::http1::reading::{Reading, Taken};
use crate::proxy::body::ForwardBody;
use crate::proxy::http1::head::{self, Head, Seeker, malformed};
use crate::proxy::http1::socket::Socket;
use crate::proxy::http1::upload::{SendFault, Upload};
use crate::proxy::outbound::Framing;
use crate::spare::room::{self, ROOM_BYTES};
use crate::stall::IdleTimer;

/// The most bytes that are read at a time: more and more of a body that keeps filling its room.
const MAX_READ_BYTES: usize = 64 * 1024;
/// Less room than this is not worth a system call.
const LEAST_ROOM_BYTES: usize = 1024;
/// Answers before the answer (RFC 9110 §15.2).
const MAX_INTERIM_ANSWERS: u8 = 16;

/// How an exchange failed before the head of its answer was here.
#[derive(Debug)]
pub(in crate::proxy) enum Fault {
    /// The body of the request failed.
    Body,
    /// The upstream takes no more of the request.
    Stalled,
    /// The connection broke before a byte of an answer.
    Silent(io::Error),
    /// The answer is no HTTP, or broke off within its head.
    Garbled(io::Error),
}

/// A connection to an upstream.
pub(in crate::proxy) struct Connection {
    socket: Socket,
    /// What was read and not taken yet.
    input: BytesMut,
    read_bytes: usize,
    upload: Upload,
    /// What ended the sending before its time; there may be an answer nevertheless.
    send_error: Option<io::Error>,
    seeker: Seeker,
    asked_for_head: bool,
    interim: u8,
    /// Whether a byte of an answer came.
    begun: bool,
    answer: Reading,
    keeps: bool,
}

impl Connection {
    /// `stall`: for how long the upstream may take nothing that is sent.
    pub(in crate::proxy) fn new(socket: Socket, stall: Duration) -> Self {
        Self {
            socket,
            input: BytesMut::new(),
            read_bytes: ROOM_BYTES,
            upload: Upload::new(IdleTimer::new(stall)),
            send_error: None,
            seeker: Seeker::default(),
            asked_for_head: false,
            interim: 0,
            begun: false,
            answer: Reading::Ended,
            keeps: true,
        }
    }

    /// Begins an exchange with the head that is written, and the body. Nothing is sent before it is
    /// polled.
    pub(in crate::proxy) fn begin(
        &mut self,
        body: ForwardBody,
        framing: Framing,
        asked_for_head: bool,
        write_head: impl FnOnce(&Framing, &mut BytesMut),
    ) {
        self.upload.begin(body, framing, write_head);
        // by now nobody looks at the last answer
        room::keep(&mut self.input);
        self.asked_for_head = asked_for_head;
        self.interim = 0;
        self.begun = false;
        // until an answer says otherwise
        self.keeps = false;
    }

    /// Sends on, until the head of the answer is here.
    pub(in crate::proxy) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(StatusCode, HeaderMap), Fault>> {
        match self.poll_send(cx) {
            Ok(()) => {}
            Err(SendFault::Body) => return Poll::Ready(Err(Fault::Body)),
            Err(SendFault::Stalled) => return Poll::Ready(Err(Fault::Stalled)),
            Err(SendFault::Io(error)) => self.send_error = Some(error),
        }
        loop {
            match self.take_head() {
                Ok(Some(head)) => {
                    self.answer = head.body;
                    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
                    self.keeps = head.keeps && !switches && self.send_error.is_none();
                    return Poll::Ready(Ok((head.status, head.headers)));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(Fault::Garbled(error))),
            }
            // an upstream that takes nothing more may have said why
            let read = match ready!(self.poll_read_more(cx)) {
                Ok(0) => Err(self.send_error.take().unwrap_or_else(closed)),
                read => read,
            };
            if let Err(error) = read {
                let fault = if self.begun { Fault::Garbled } else { Fault::Silent };
                return Poll::Ready(Err(fault(error)));
            }
            self.begun = true;
        }
    }

    /// The body of a request of which nothing was taken by anybody.
    pub(in crate::proxy) fn take_unsent(&mut self) -> Option<ForwardBody> {
        if self.begun { None } else { self.upload.take_unsent() }
    }

    /// The next of the answer's body. What is left of the request's is sent meanwhile.
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.poll_send(cx) {
            // the answer may be whole, although the upstream has stopped reading
            Ok(()) | Err(SendFault::Io(_)) => {}
            Err(SendFault::Body) => return fails(malformed("the body of the request broke off")),
            Err(SendFault::Stalled) => return fails(io::ErrorKind::TimedOut.into()),
        }
        loop {
            match self.answer.take(&mut self.input) {
                Ok(Taken::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Taken::Ended) => return Poll::Ready(None),
                Ok(Taken::Nothing) => {}
                Err(error) => return fails(error),
            }
            let read = match ready!(self.poll_read_more(cx)) {
                Ok(0) => self.answer.close(),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                return fails(error);
            }
        }
    }

    /// Sends what is left of the request while nobody takes the answer. When that fails the answer
    /// may be whole all the same.
    pub(in crate::proxy) fn send_on(&mut self, cx: &mut Context<'_>) {
        let _ = self.poll_send(cx);
    }

    /// Whether the answer was taken whole.
    pub(in crate::proxy) fn is_answered(&self) -> bool {
        self.answer == Reading::Ended
    }

    /// How much of the answer's body is left, as far as that is known.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }

    /// Whether another exchange may follow: both messages are whole, nothing came behind the
    /// answer, and the upstream keeps the connection. It then keeps little memory, or none.
    pub(in crate::proxy) fn settle(&mut self) -> bool {
        let whole = self.is_answered() && self.input.is_empty() && self.upload.is_over();
        if self.read_bytes > ROOM_BYTES {
            self.read_bytes = ROOM_BYTES;
            self.input = BytesMut::new();
        }
        room::keep(&mut self.input);
        self.keeps && whole
    }

    /// Whether nothing has come on it since, not even its end.
    pub(in crate::proxy) fn is_quiet(&mut self) -> bool {
        self.socket.is_quiet()
    }

    /// Leaves the timers of another runtime behind.
    pub(in crate::proxy) fn change_runtime(&mut self) {
        self.upload.forget_timer();
    }

    /// Sends what can be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), SendFault> {
        if self.send_error.is_some() || self.upload.is_over() {
            return Ok(());
        }
        match self.upload.poll(&mut self.socket, cx) {
            Poll::Ready(Err(error)) => {
                self.upload.give_up();
                self.keeps = false;
                Err(error)
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// A head, behind those that only announce it.
    fn take_head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let taken = head::take(&mut self.input, &mut self.seeker, self.asked_for_head)?;
            if !taken.as_ref().is_some_and(|head| is_interim(head.status)) {
                return Ok(taken);
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM_ANSWERS {
                return Err(malformed("too many interim answers"));
            }
        }
    }

    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 && self.read_bytes == ROOM_BYTES {
            self.input = room::take();
        } else if self.input.capacity() - self.input.len() < LEAST_ROOM_BYTES {
            self.input.reserve(self.read_bytes);
        }
        let room = self.input.capacity() - self.input.len();
        let read = pin!(self.socket.read_buf(&mut self.input)).poll(cx);
        if let Poll::Ready(Ok(count)) = &read
            && *count == room
        {
            self.read_bytes = (self.read_bytes * 2).min(MAX_READ_BYTES);
        }
        read
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before an answer")
}

const fn fails<T>(error: io::Error) -> Poll<Option<io::Result<T>>> {
    Poll::Ready(Some(Err(error)))
}

/// What is left when it was handed over: first what was read already.
impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let it = self.get_mut();
        if it.input.is_empty() {
            return Pin::new(&mut it.socket).poll_read(cx, out);
        }
        let count = it.input.len().min(out.remaining());
        out.put_slice(it.input.get(..count).unwrap_or_default());
        it.input.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let it = self.get_mut();
        it.upload.poll_write_raw(&mut it.socket, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
