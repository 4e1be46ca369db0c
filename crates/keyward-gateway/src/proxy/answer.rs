//! The answer of an upstream on its way to the caller.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::body::{BodyError, Progress, Watch};
use crate::proxy::pool::Lease;
use crate::proxy::trailers::Of;
use crate::stall::IdleTimer;

/// The body of an upstream's answer. When it has ended, its connection goes back to the pool.
pub(crate) struct UpstreamBody {
    lease: Option<Lease>,
    upload: Option<Watch>,
    idle: IdleTimer,
    wants_trailers: bool,
}

impl UpstreamBody {
    /// `upload` watches the request's body, if it has one.
    pub(crate) fn new(
        lease: Lease,
        upload: Option<Watch>,
        idle: IdleTimer,
        wants_trailers: bool,
    ) -> Self {
        Self { lease: Some(lease), upload, idle, wants_trailers }
    }

    /// The answer is complete. Its connection is reused only if the request was sent whole.
    fn end(&mut self) {
        let abandoned = self.upload.take().is_some_and(|upload| upload.abandon());
        if let Some(lease) = self.lease.take().filter(|_| !abandoned) {
            lease.give_back();
        }
    }

    /// Sends what is left of the request; true when nothing is.
    pub(super) fn send_on(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(connection) = self.lease.as_mut().and_then(Lease::connection_mut) {
            connection.send_on(cx);
        }
        self.upload.as_ref().is_none_or(|upload| upload.progress() != Progress::Flowing)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.lease.as_mut().map_or(Poll::Ready(None), |lease| lease.poll_frame(cx))
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let Poll::Ready(next) = body.poll_next(cx) else {
            ready!(body.idle.poll_expired(cx));
            body.lease = None;
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        };
        body.idle.rest();
        if body.idle.is_over() {
            body.lease = None;
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        }
        match next {
            Some(Ok(frame)) if frame.is_data() => {
                if body.is_end_stream() {
                    body.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Ok(frame)) => {
                body.end();
                let trailers = frame.into_trailers().ok().filter(|_| body.wants_trailers);
                let passing = trailers.and_then(|trailers| Of::Answer.passing(trailers));
                Poll::Ready(passing.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            None => {
                body.end();
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                body.lease = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_answered)
    }

    fn size_hint(&self) -> SizeHint {
        self.lease.as_ref().map_or_else(|| SizeHint::with_exact(0), Lease::size_hint)
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if !self.is_end_stream() {
            self.lease = None;
        }
        self.end();
    }
}
