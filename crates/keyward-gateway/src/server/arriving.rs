//! A request on its way in, whatever carries it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::body::BodyError;
use crate::server::http1::PipedBody;

/// A request as it arrives. It stays where it was read and is lent from stage to stage: it is
/// large, and each that got it by value would copy it.
pub(crate) struct ArrivingRequest {
    pub(crate) head: Parts,
    pub(crate) body: ArrivingBody,
}

impl ArrivingRequest {
    pub(super) fn empty() -> Self {
        let (head, ()) = Request::new(()).into_parts();
        Self { head, body: ArrivingBody::empty() }
    }

    /// Takes it for good, and leaves an empty one.
    pub(crate) fn take(&mut self) -> Request<ArrivingBody> {
        let Self { head, body } = std::mem::replace(self, Self::empty());
        Request::from_parts(head, body)
    }
}

/// The body of a request as it arrives. What nobody asks for is not read.
pub struct ArrivingBody(Kind);

enum Kind {
    /// None, or nothing is left of it.
    Empty,
    /// It came whole with its head.
    Whole(Bytes),
    /// HTTP/1.1.
    Piped(PipedBody),
    /// HTTP/2.
    Stream(hyper::body::Incoming),
}

impl ArrivingBody {
    pub(super) const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// Takes it, and leaves an empty one.
    pub(crate) const fn take(&mut self) -> Self {
        std::mem::replace(self, Self::empty())
    }

    /// Takes what came whole with its head, if it did.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.0, Kind::Empty) {
            Kind::Whole(bytes) => Some(bytes),
            other => {
                self.0 = other;
                None
            }
        }
    }

    pub(super) const fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    pub(super) const fn piped(body: PipedBody) -> Self {
        Self(Kind::Piped(body))
    }

    pub(super) const fn stream(body: hyper::body::Incoming) -> Self {
        Self(Kind::Stream(body))
    }
}

impl Body for ArrivingBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            kind @ Kind::Whole(_) => match std::mem::replace(kind, Kind::Empty) {
                Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Kind::Piped(body) => body.poll_frame(cx),
            Kind::Stream(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Whole(_) => false,
            Kind::Piped(body) => body.is_end_stream(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Piped(body) => body.size_hint(),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

impl std::fmt::Debug for ArrivingBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArrivingBody").finish_non_exhaustive()
    }
}
