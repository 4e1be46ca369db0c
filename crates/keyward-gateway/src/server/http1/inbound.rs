//! The body of the request under way: read when it is asked for, and understood on the way.

use std::io;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use super::head::Framing;
use super::line::Line;
use super::pipe::{Pipe, Room, pipe};
use crate::http1::chunked::Chunked;
use crate::http1::reading::{Reading, Taken};
use crate::proxy::body::BodyError;
use crate::server::ConnectionLimits;
use crate::server::arriving::ArrivingBody;
use crate::server::transport::Transport;
use crate::stall::IdleTimer;

/// What of a request is still to come behind its head.
pub(super) struct Inbound {
    rest: Reading,
    /// It will never be known where the next head begins.
    lost: bool,
    pipe: Option<Pipe>,
    stall: IdleTimer,
    /// Bytes of what follows that are kept for later.
    most_kept: usize,
}

/// What came of looking for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Something that whoever takes the body must be told of.
    Something,
    /// The end of the connection, and with it of its caller.
    End,
}

impl Inbound {
    pub(super) const fn new(limits: &ConnectionLimits) -> Self {
        Self {
            rest: Reading::Ended,
            lost: false,
            pipe: None,
            stall: IdleTimer::new(limits.body_timeout),
            most_kept: limits.max_header_bytes,
        }
    }

    /// Begins with the body behind a head. What came whole with its head needs no pipe.
    pub(super) fn begin(&mut self, framing: Framing, received: &mut BytesMut) -> ArrivingBody {
        let (rest, length) = match framing {
            Framing::None => return ArrivingBody::empty(),
            Framing::Length(length) => match usize::try_from(length) {
                Ok(bytes) if bytes <= received.len() => {
                    return ArrivingBody::whole(received.split_to(bytes).freeze());
                }
                _ => (Reading::Length(length), Some(length)),
            },
            Framing::Chunked => (Reading::chunked(Chunked::new()), None),
        };
        let (pipe, body) = pipe(length);
        self.rest = rest;
        self.pipe = Some(pipe);
        ArrivingBody::piped(body)
    }

    /// Whether nothing of the request is still to come.
    pub(super) fn is_over(&self) -> bool {
        self.rest == Reading::Ended
    }

    /// Whether somebody waits for a body of which nothing has come.
    pub(super) fn is_waited_for(&self, received: &BytesMut) -> bool {
        received.is_empty() && self.pipe.as_ref().is_some_and(Pipe::is_wanted)
    }

    /// Reads on, as far as the body is asked for. With no body it looks whether the caller is
    /// still there; what comes is kept for later.
    pub(super) fn poll<S: Transport>(
        &mut self,
        line: &mut Line<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Came> {
        let Some(pipe) = self.pipe.as_ref().filter(|_| self.rest != Reading::Ended) else {
            return poll_caller(line, self.most_kept, cx);
        };
        if self.lost {
            return Poll::Pending;
        }
        match pipe.poll_room(cx) {
            Room::Free => {}
            Room::None => return Poll::Pending,
            Room::Abandoned => {
                self.pipe = None;
                return Poll::Pending;
            }
        }
        loop {
            match self.rest.take(&mut line.received) {
                Ok(Taken::Nothing) => {}
                Ok(Taken::Frame(frame)) => return self.give(Some(frame), cx),
                Ok(Taken::Ended) => return self.give(None, cx),
                Err(error) => return self.lose(BodyError::broken(error), cx),
            }
            let left = if let Reading::Length(left) = self.rest { left } else { 0 };
            match line.poll_receive_body(left, cx) {
                Poll::Ready(Ok(1..)) => self.stall.rest(),
                Poll::Ready(Ok(0)) => {
                    let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return self.lose(BodyError::broken(ended), cx);
                }
                Poll::Ready(Err(error)) => return self.lose(BodyError::broken(error), cx),
                Poll::Pending if self.stall.poll_expired(cx).is_ready() => {
                    return self.lose(BodyError::TimedOut, cx);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn give(&self, frame: Option<Frame<Bytes>>, cx: &Context<'_>) -> Poll<Came> {
        if let Some(pipe) = &self.pipe {
            pipe.give(frame, self.rest == Reading::Ended, cx);
        }
        Poll::Ready(Came::Something)
    }

    fn lose(&mut self, error: BodyError, cx: &Context<'_>) -> Poll<Came> {
        self.lost = true;
        if let Some(pipe) = &self.pipe {
            pipe.fail(error, cx);
        }
        Poll::Ready(Came::Something)
    }

    /// The answer is over. What is at hand of a body that nobody took is thrown away; true when
    /// the next head follows.
    pub(super) fn settle(&mut self, received: &mut BytesMut) -> bool {
        self.pipe = None;
        while !self.lost && !self.is_over() {
            match self.rest.take(received) {
                Ok(Taken::Frame(_) | Taken::Ended) => {}
                Ok(Taken::Nothing) | Err(_) => self.lost = true,
            }
        }
        !self.lost
    }
}

/// Looks whether the caller is still there while its request is answered.
fn poll_caller<S: Transport>(
    line: &mut Line<S>,
    most_kept: usize,
    cx: &mut Context<'_>,
) -> Poll<Came> {
    while line.received.len() < most_kept {
        match line.poll_receive(cx) {
            Poll::Ready(Ok(count)) if count > 0 => {}
            Poll::Ready(_) => return Poll::Ready(Came::End),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Pending
}
