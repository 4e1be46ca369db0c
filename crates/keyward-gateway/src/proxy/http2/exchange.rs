//! One exchange among others on a connection.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
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

/// An exchange. Dropped before it is complete, it takes its stream back.
#[derive(Default)]
pub(in crate::proxy) struct Exchange {
    answer: Answer,
    upload: Option<Arc<Upload>>,
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
        let answer = sender.try_send_request(Request::from_parts(head, body));
        Self { answer: Answer::Awaited(Box::pin(answer)), upload }
    }

    /// Waits for the head of the answer.
    pub(in crate::proxy) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(StatusCode, HeaderMap), Fault>> {
        if self.has_failed(cx) {
            return Poll::Ready(Err(Fault::Body));
        }
        let Answer::Awaited(answer) = &mut self.answer else {
            return Poll::Pending;
        };
        let fault = match ready!(answer.as_mut().poll(cx)) {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                self.answer = Answer::Arriving(body);
                return Poll::Ready(Ok((head.status, head.headers)));
            }
            Err(mut failure) => {
                let unsent = failure.take_message().map(Request::into_body);
                match failure.into_error() {
                    error if self.upload.is_some() && took_nothing(&error) => Fault::Stalled,
                    error => Fault::Broken(error, unsent.map(StreamBody::into_unsent)),
                }
            }
        };
        self.forget();
        Poll::Ready(Err(fault))
    }

    /// The next of the answer's body.
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.has_failed(cx) {
            let error = BodyError::broken("the body of the request broke off");
            return Poll::Ready(Some(Err(error)));
        }
        let Answer::Arriving(body) = &mut self.answer else {
            return Poll::Ready(None);
        };
        match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => {
                self.forget();
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
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

    /// Whether both messages are whole, so that there is no stream to take back.
    pub(super) fn is_complete(&self) -> bool {
        self.is_answered() && self.upload.as_ref().is_none_or(|upload| upload.is_over())
    }

    /// Sends nothing more, and leaves the stream open for as long as this lasts.
    pub(super) fn hold(&self) {
        if let Some(upload) = &self.upload {
            upload.hold();
        }
    }

    fn has_failed(&self, cx: &Context<'_>) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.has_failed(cx))
    }

    /// The stream has ended already.
    fn forget(&mut self) {
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
