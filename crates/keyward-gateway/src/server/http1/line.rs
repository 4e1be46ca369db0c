//! The two directions of a connection: what was read and not yet understood, and what was said and
//! not yet sent.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::server::ConnectionLimits;
use crate::server::linger::Ending;
use crate::server::transport::Transport;
use crate::spare::room::{self, ROOM_BYTES};
use crate::stall::Stalling;

/// Room that is worth reading into.
const LEAST_ROOM: usize = 1024;
/// Bytes of a body that are asked for at a time.
const BODY_READ_BYTES: usize = 64 * 1024;
/// Larger pieces of an answer are sent from where they are instead of being copied.
const COPIED_BYTES: usize = 8 * 1024;
/// Bytes that are said before they are sent.
const SAID_BYTES: usize = 16 * 1024;

/// A connection, buffered on both sides.
pub(super) struct Line<S: Transport> {
    stream: Stalling<S>,
    pub(super) received: BytesMut,
    said: BytesMut,
    /// How much of it was sent.
    sent: usize,
    /// A large piece behind it, and what is behind that.
    piece: Bytes,
    behind: &'static [u8],
}

impl<S: Transport> Line<S> {
    /// `first` was read from the stream before.
    pub(super) fn new(stream: S, first: &[u8], limits: &ConnectionLimits) -> Self {
        Self {
            stream: Stalling::new(stream, limits.write_timeout),
            received: BytesMut::from(first),
            said: BytesMut::new(),
            sent: 0,
            piece: Bytes::new(),
            behind: b"",
        }
    }

    /// Reads more behind what was received; 0 at the end.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.received.capacity() == 0 {
            self.received = room::take();
        } else if self.received.capacity() - self.received.len() < LEAST_ROOM {
            self.received.reserve(ROOM_BYTES);
        }
        pin!(self.stream.read_buf(&mut self.received)).poll(cx)
    }

    /// The same for a body of which so many bytes are still to come.
    pub(super) fn poll_receive_body(
        &mut self,
        left: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let wanted = usize::try_from(left).map_or(BODY_READ_BYTES, |it| it.min(BODY_READ_BYTES));
        if self.received.capacity() - self.received.len() < wanted {
            self.received.reserve(wanted);
        }
        self.poll_receive(cx)
    }

    /// Gives back the room for what is received, while nothing is.
    pub(super) fn rest(&mut self) {
        room::keep(&mut self.received);
    }

    /// Where small things are said; they are sent with the next flush.
    pub(super) fn say(&mut self) -> &mut BytesMut {
        if self.said.capacity() == 0 {
            self.said = room::take();
        }
        &mut self.said
    }

    /// Says a piece of a body, and what is behind it. There must be [room](Self::has_room).
    pub(super) fn say_piece(&mut self, piece: Bytes, behind: &'static [u8]) {
        if piece.len() <= COPIED_BYTES {
            let out = self.say();
            out.extend_from_slice(&piece);
            out.extend_from_slice(behind);
        } else {
            self.piece = piece;
            self.behind = behind;
        }
    }

    /// Whether more may be said before a flush.
    pub(super) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.said.len() < SAID_BYTES
    }

    /// Sends what was said.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let head = self.said.get(self.sent..).unwrap_or_default();
            let stream = Pin::new(&mut self.stream);
            let written = match (head, &*self.piece) {
                ([], []) => break,
                (head, []) => stream.poll_write(cx, head),
                (head, piece) => {
                    let parts = [head, piece, self.behind].map(IoSlice::new);
                    stream.poll_write_vectored(cx, &parts)
                }
            };
            let (of_head, of_piece) = (head.len(), self.piece.len());
            let count = ready!(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count.min(of_head);
            let count = count.saturating_sub(of_head);
            self.piece.advance(count.min(of_piece));
            if of_piece > 0 && self.piece.is_empty() {
                // what is left behind the piece goes the way of small things
                let sent = count.saturating_sub(of_piece);
                self.said.extend_from_slice(self.behind.get(sent..).unwrap_or_default());
                self.behind = b"";
            }
        }
        self.said.clear();
        room::keep(&mut self.said);
        self.sent = 0;
        // what encryption keeps back is written here
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends this direction. What the caller may still be sending is thrown away, so that it can
    /// read the last answer.
    pub(super) async fn end(&mut self, lingers: bool) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await?;
        let mut ending = Ending::new(lingers);
        poll_fn(|cx| ending.poll(&mut self.stream, cx)).await
    }

    /// Has the connection end in a reset: what waits to be sent is thrown away, and an end that
    /// only the end of the connection marks is not mistaken for one that was meant.
    pub(super) fn reset(&self) {
        // the worst that follows is an orderly end
        let _ = self.stream.inner().tcp().set_zero_linger();
    }
}

/// A connection that was handed over: bytes both ways, those first that were received already.
impl<S: Transport> AsyncRead for Line<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        if line.received.is_empty() {
            return Pin::new(&mut line.stream).poll_read(cx, out);
        }
        let count = line.received.len().min(out.remaining());
        out.put_slice(&line.received.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: Transport> AsyncWrite for Line<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
