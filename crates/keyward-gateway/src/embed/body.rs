//! The body of an answer of an application behind the layer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::watch::Watch;
use crate::proxy::body::PlaneBody;

/// Whatever goes wrong in a body of the application.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: the application's own, which breaks off within a second of its key
/// losing the right to the request, or that of a refusal.
pub struct EmbeddedBody<R>(Kind<R>);

enum Kind<R> {
    /// Made here.
    Ours(PlaneBody),
    /// The application's, looked after.
    Theirs(Box<Theirs<R>>),
    /// The application's, whose end nobody here can tell.
    Plain(Pin<Box<R>>),
}

struct Theirs<R> {
    body: Pin<Box<R>>,
    watch: Watch,
    /// Whether it has not ended with its first frame, so that it is looked after.
    lasts: bool,
}

/// What an answer breaks off with.
#[derive(Debug, thiserror::Error)]
#[error("the key lost its authority while the answer was under way")]
struct AuthorityLost;

impl<R> EmbeddedBody<R> {
    pub(super) const fn ours(body: PlaneBody) -> Self {
        Self(Kind::Ours(body))
    }

    pub(super) fn theirs(body: R, watch: Watch) -> Self {
        Self(Kind::Theirs(Box::new(Theirs { body: Box::pin(body), watch, lasts: false })))
    }

    pub(super) fn plain(body: R) -> Self {
        Self(Kind::Plain(Box::pin(body)))
    }
}

impl<R> Theirs<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.lasts && self.watch.poll_lost(cx).is_ready() {
            return Poll::Ready(Some(Err(AuthorityLost.into())));
        }
        let polled = self.body.as_mut().poll_frame(cx).map_err(Into::into);
        if self.lasts || self.body.is_end_stream() || matches!(polled, Poll::Ready(None)) {
            return polled;
        }
        self.lasts = true;
        match self.watch.poll_lost(cx) {
            Poll::Ready(_) => Poll::Ready(Some(Err(AuthorityLost.into()))),
            Poll::Pending => polled,
        }
    }
}

impl<R> Body for EmbeddedBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Kind::Ours(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Theirs(theirs) => theirs.poll_frame(cx),
            Kind::Plain(body) => body.as_mut().poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Ours(body) => body.is_end_stream(),
            Kind::Theirs(theirs) => theirs.body.is_end_stream(),
            Kind::Plain(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Ours(body) => body.size_hint(),
            Kind::Theirs(theirs) => theirs.body.size_hint(),
            Kind::Plain(body) => body.size_hint(),
        }
    }
}
