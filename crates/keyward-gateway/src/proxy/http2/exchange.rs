//! One exchange among others on a connection.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::SendRequest;

use crate::proxy::body::{BodyError, ForwardBody};
use crate::proxy::http2::upload::{StreamBody, Upload};

type Answered = Result<Response<Incoming>, TrySendError<Request<StreamBody>>>;

/// How an exchange failed before the head of its answer was here.
pub(in crate::proxy) enum Fault {
    /// The body of the request failed.
    Body,
    /// The upstream takes no more of the request.
    Stalled,
    /// The stream broke, or all of the connection; with the body, if nothing was sent.
    Broken(hyper::Error, Option<ForwardBody>),
}

/// An exchange. Dropped before it is complete, it resets its stream.
#[derive(Default)]
pub(in crate::proxy) struct Exchange {
    answer: Answer,
    upload: Option<Arc<Upload>>,
    /// Whether nothing but its end is expected of the answer's body.
    has_no_body: bool,
    /// Whether the stream was reset on this side, because the answer is no HTTP.
    is_reset: bool,
}

#[derive(Default)]
enum Answer {
    /// None is expected any more.
    #[default]
    Over,
    Awaited(Pin<Box<dyn Future<Output = Answered> + Send>>),
    Arriving(Incoming),
}

impl Exchange {
    pub(super) fn begin(
        sender: &mut SendRequest<StreamBody>,
        request: Request<ForwardBody>,
    ) -> Self {
        let (head, body) = request.into_parts();
        let (body, upload) = StreamBody::new(body);
        let has_no_body = head.method == Method::HEAD;
        let answer = sender.try_send_request(Request::from_parts(head, body));
        let answer = Answer::Awaited(Box::pin(answer));
        Self { answer, upload, has_no_body, is_reset: false }
    }

    /// Waits for the head of the answer.
    pub(in crate::proxy) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(StatusCode, HeaderMap), Fault>> {
        let Answer::Awaited(answer) = &mut self.answer else {
            debug_assert!(false, "a head is waited for once");
            return Poll::Pending;
        };
        let fault = match answer.as_mut().poll(cx) {
            Poll::Pending if self.has_failed(cx) => return Poll::Ready(Err(Fault::Body)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                self.has_no_body |= matches!(head.status.as_u16(), 204 | 304);
                self.answer = Answer::Arriving(body);
                return Poll::Ready(Ok((head.status, head.headers)));
            }
            Poll::Ready(Err(mut failure)) => {
                let has_upload = self.upload.is_some();
                self.settle(failure.error());
                let unsent = failure.take_message().map(Request::into_body);
                match failure.into_error() {
                    error if has_upload && took_nothing(&error) => Fault::Stalled,
                    error => Fault::Broken(error, unsent.map(StreamBody::into_unsent)),
                }
            }
        };
        Poll::Ready(Err(fault))
    }

    /// The next of the answer's body.
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Answer::Arriving(body) = &mut self.answer else {
            return Poll::Ready(None);
        };
        match Pin::new(body).poll_frame(cx) {
            Poll::Pending if self.has_failed(cx) => {
                let error = BodyError::broken("the body of the request broke off");
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(Some(Err(error))) => {
                self.settle(&error);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.answer = Answer::Over;
                Poll::Ready(None)
            }
        }
    }

    /// Whether the answer was taken whole.
    pub(in crate::proxy) fn is_answered(&self) -> bool {
        match &self.answer {
            Answer::Over => true,
            Answer::Awaited(_) => false,
            Answer::Arriving(body) => body.is_end_stream(),
        }
    }

    /// How much of the answer's body is left, as far as that is known.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match &self.answer {
            Answer::Over => SizeHint::with_exact(0),
            Answer::Awaited(_) => SizeHint::default(),
            Answer::Arriving(body) => body.size_hint(),
        }
    }

    /// Whether nothing more comes or goes, so that there is no stream to reset.
    pub(super) fn is_complete(&self) -> bool {
        self.is_answered() && self.is_sent()
    }

    /// Whether only the end of an answer without a body is missing, which comes by itself.
    pub(super) fn only_ends(&self) -> bool {
        self.has_no_body && self.is_sent() && matches!(self.answer, Answer::Arriving(_))
    }

    /// Whether the end of an answer without a body has come, when nobody else asks for it.
    pub(super) fn has_ended(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Whether its stream was reset although nobody broke it off.
    pub(super) const fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// Whether the answer came whole before all of the request was sent. What becomes of the rest
    /// is known when the task that sends it had its turn.
    pub(super) fn may_still_send(&self) -> bool {
        self.is_answered() && self.upload.as_ref().is_some_and(|upload| !upload.is_released())
    }

    /// Whether its stream can be neither reset nor completed before the upstream takes more of it.
    pub(super) fn is_stuck(&self) -> bool {
        // without its answer the library ends it at once
        let has_answer = !matches!(self.answer, Answer::Awaited(_));
        has_answer && self.upload.as_ref().is_some_and(|upload| upload.is_stuck())
    }

    /// Takes nothing more from the caller, and leaves the stream open for as long as this lasts.
    pub(super) fn hold(&self) {
        if let Some(upload) = &self.upload {
            upload.hold();
        }
    }

    fn is_sent(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.is_over())
    }

    fn has_failed(&self, cx: &Context<'_>) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.has_failed(cx))
    }

    /// The stream has failed, and needs nothing more.
    fn settle(&mut self, error: &hyper::Error) {
        let cause = error.source().and_then(|it| it.downcast_ref::<h2::Error>());
        self.is_reset = cause.is_some_and(|it| it.is_reset() && !it.is_remote());
        self.answer = Answer::Over;
        self.upload = None;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.reset();
        }
    }
}

/// Tells an upstream that took nothing in time from one that broke off.
fn took_nothing(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|it| it.downcast_ref::<io::Error>());
    cause.is_some_and(|it| it.kind() == io::ErrorKind::TimedOut)
}
