//! A connection that speaks HTTP/1.1, from its first head to its last answer.
//!
//! One future does all of it: it reads a head, has it answered, and writes the answer, while it
//! looks whether the caller is still there. What is whole is sent with one write; nothing is copied
//! from one layer to the next.

mod answer;
mod head;
mod inbound;
mod line;
mod patience;
mod pipe;

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::header::CONNECTION;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;
use tokio::sync::watch;

use crate::lookup::find_all;
use crate::plane::DataPlane;
use crate::proxy::{Opened, Tunnel, TunnelEnd};
use crate::record;
use crate::server::arriving::ArrivingRequest;
use crate::server::connection::{Flight, InFlight, Serving, next_stage};
use crate::server::lookout::{Lookout, Stream};
use crate::server::transport::Transport;
use crate::server::{Arrival, Stage};
use crate::spare::maps;
use answer::{Asked, CONTINUE, End, WrongLength, say_head};
use head::Head;
use inbound::{Came, Inbound};
use line::Line;
use patience::Patience;

pub use head::head_length;
pub(in crate::server) use head::is_carried_verbatim;
pub(crate) use head::is_host;
pub(crate) use head::{BadHead, MAX_HEADERS};
pub(in crate::server) use pipe::PipedBody;

/// Serves a connection until it ends, or until it is idle while the listener drains.
/// `first` was read from the stream before.
pub(in crate::server) async fn serve<S: Transport>(
    serving: Arc<Serving>,
    stream: S,
    first: Vec<u8>,
    peer: IpAddr,
) {
    let line = Line::new(stream, &first, &serving.limits);
    let watched = Arc::new(Stream::default());
    let leaves = AtomicBool::new(false);
    let mut stage = serving.listener.stage.clone();
    let mut talk = Talk::new(&serving, line, peer, &watched, &leaves);
    let ended = {
        let talking = pin!(talk.run());
        let lookout = Lookout::new(Arc::clone(&watched));
        let mut watched = Watched { talking, lookout, plane: &serving.plane };
        drive(&mut watched, &mut stage, &leaves).await
    };
    if watched.is_cut() {
        talk.line.reset();
    } else if let (true, Some(tunnel)) = (ended, talk.tunnel.take()) {
        // rare and large, so not a part of every connection's state
        Box::pin(carry(tunnel, &mut talk.line, &serving.plane, stage)).await;
    }
}

/// Drives a connection to its end; false when it did not come to one before the node stopped.
async fn drive(
    mut connection: &mut (impl Future<Output = ()> + Unpin),
    stage: &mut watch::Receiver<Stage>,
    leaves: &AtomicBool,
) -> bool {
    // a broken connection has nobody left to tell
    while let Some(changed) = next_stage(Pin::new(&mut connection), stage).await {
        let reached = *stage.borrow_and_update();
        if reached == Stage::Stopped {
            return false;
        }
        leaves.store(reached >= Stage::Draining || changed.is_err(), Ordering::Relaxed);
        if changed.is_err() {
            // the server was dropped without a drain: no deadline will come
            connection.await;
            break;
        }
    }
    true
}

/// Carries the bytes of a connection that was handed over, until this node stops.
async fn carry<S: Transport>(
    tunnel: Box<Tunnel>,
    line: &mut Line<S>,
    plane: &DataPlane,
    mut stage: watch::Receiver<Stage>,
) {
    let stopped = async {
        if stage.wait_for(|stage| *stage == Stage::Stopped).await.is_err() {
            // the server was dropped without a drain: no deadline will come
            std::future::pending::<()>().await;
        }
    };
    let passed = tunnel.run(line, plane, stopped).await;
    if passed.end != TunnelEnd::Closed {
        // an end that was not meant must not look like one that was
        line.reset();
    }
    record::tunnel_closed(plane, &passed);
}

/// A connection that ends also when its stream loses its authority.
struct Watched<'c, C> {
    talking: Pin<&'c mut C>,
    lookout: Lookout,
    plane: &'c DataPlane,
}

impl<C: Future<Output = ()>> Future for Watched<'_, C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let it = self.get_mut();
        if it.talking.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        it.lookout.poll_lost(it.plane, cx)
    }
}

/// Requests and answers of one connection, one after the other.
struct Talk<'c, S: Transport> {
    serving: &'c Arc<Serving>,
    line: Line<S>,
    peer: IpAddr,
    watched: &'c Arc<Stream>,
    /// Whether the connection ends as soon as no request is under way.
    leaves: &'c AtomicBool,
    inbound: Inbound,
    patience: Patience,
    /// How many heads were read.
    heads: u64,
    /// Whether something came that was not understood.
    has_unread: bool,
    /// What the connection is handed over to.
    tunnel: Option<Box<Tunnel>>,
}

/// A head that is none.
struct Refused {
    why: BadHead,
    is_head: bool,
}

/// What an answer must know of its request besides the request itself.
struct How {
    stays: bool,
    expects: bool,
    bad_head: Option<BadHead>,
}

/// What follows an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The next request.
    Request,
    /// The end of the connection, once the answer was sent.
    End,
    /// Nothing: the connection is broken or handed over.
    Nothing,
}

impl<'c, S: Transport> Talk<'c, S> {
    fn new(
        serving: &'c Arc<Serving>,
        line: Line<S>,
        peer: IpAddr,
        watched: &'c Arc<Stream>,
        leaves: &'c AtomicBool,
    ) -> Self {
        Self {
            line,
            peer,
            watched,
            leaves,
            inbound: Inbound::new(&serving.limits),
            patience: Patience::new(&serving.limits),
            heads: 0,
            has_unread: false,
            tunnel: None,
            serving,
        }
    }

    async fn run(&mut self) {
        loop {
            let Some(head) = poll_fn(|cx| self.poll_head(cx)).await else { return };
            let (mut request, how) = self.open(head);
            match self.answer(&mut request, how).await {
                Next::Request => {}
                Next::Nothing => return,
                Next::End => {
                    let unread = !self.line.received.is_empty() || !self.inbound.is_over();
                    let lingers = unread || self.has_unread;
                    // nobody is left to tell
                    let _ = self.line.end(lingers).await;
                    return;
                }
            }
        }
    }

    /// The next head, or why it is none; `None` when there will not be one.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Head, Refused>>> {
        let most = self.serving.limits.max_header_bytes;
        loop {
            if !self.line.received.is_empty() {
                let is_head = self.line.received.starts_with(b"HEAD ");
                let head = head::take(&mut self.line.received, most).transpose();
                if let Some(head) = head {
                    self.heads += 1;
                    return Poll::Ready(Some(head.map_err(|why| Refused { why, is_head })));
                }
            }
            match self.line.poll_receive(cx) {
                Poll::Ready(Ok(1..)) => {}
                // a head that never ends is no request
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => {
                    let partial = !self.line.received.is_empty();
                    if !partial {
                        if self.leaves.load(Ordering::Relaxed) {
                            return Poll::Ready(None);
                        }
                        self.line.rest();
                    }
                    return self.patience.poll_lost(self.heads, partial, cx).map(|()| None);
                }
            }
        }
    }

    /// The request behind a head. A bad one is answered in its turn as any other: with the
    /// envelope, and recorded.
    fn open(&mut self, head: Result<Head, Refused>) -> (ArrivingRequest, How) {
        match head {
            Ok(Head { parts, framing, stays, expects }) => {
                let body = self.inbound.begin(framing, &mut self.line.received);
                (ArrivingRequest { head: parts, body }, How { stays, expects, bad_head: None })
            }
            Err(bad) => {
                let mut request = ArrivingRequest::empty();
                if bad.is_head {
                    request.head.method = Method::HEAD;
                }
                self.has_unread = true;
                (request, How { stays: false, expects: false, bad_head: Some(bad.why) })
            }
        }
    }

    async fn answer(&mut self, request: &mut ArrivingRequest, how: How) -> Next {
        let serving = self.serving;
        let clock = serving.plane.clock.as_ref();
        let arrival = Arrival {
            peer: self.peer,
            listener: Arc::clone(&serving.listener),
            bad_head: how.bad_head,
            standing: OnceLock::new(),
        };
        let mut asked = Asked::of(&request.head, how.stays);
        let answered = {
            let mut answering = pin!(serving.answer(&arrival, request));
            let mut expects = how.expects;
            poll_fn(|cx| match answering.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => self.poll_meanwhile(answering.as_mut(), &mut expects, cx),
            })
            .await
        };
        maps::keep(std::mem::take(&mut request.head.headers));
        let Some(response) = answered else {
            return Next::Nothing;
        };
        let (mut head, body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS
            && let Some(opened) = head.extensions.remove::<Opened>()
        {
            say_head(self.line.say(), &head, asked, End::None(0), clock);
            let sent = poll_fn(|cx| self.line.poll_flush(cx)).await;
            self.tunnel = opened.take().filter(|_| sent.is_ok()).map(Box::new);
            return Next::Nothing;
        }
        let leaves = serving.listener.is_leaving() || self.patience.is_old();
        asked.stays &= !closes(&head.headers) && !leaves;
        let flight = Flight(Arc::clone(self.watched));
        let mut body = InFlight::new(body, arrival.standing.into_inner(), flight);
        let end = End::of(asked, head.status, &body);
        say_head(self.line.say(), &head, asked, end, clock);
        maps::keep(head.headers);
        match self.send(&mut body, end).await {
            Err(Broken) => Next::Nothing,
            Ok(()) if !self.inbound.settle(&mut self.line.received) => Next::End,
            Ok(()) if asked.stays && end != End::Connection => Next::Request,
            Ok(()) => Next::End,
        }
    }

    /// Sees to the caller while its answer is made; `None` when it has left.
    fn poll_meanwhile<F: Future>(
        &mut self,
        mut answering: Pin<&mut F>,
        expects: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<F::Output>> {
        loop {
            if *expects && self.inbound.is_waited_for(&self.line.received) {
                *expects = false;
                self.line.say().extend_from_slice(CONTINUE);
            }
            if matches!(self.line.poll_flush(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(None);
            }
            match self.inbound.poll(&mut self.line, cx) {
                Poll::Ready(Came::Something) => {}
                Poll::Ready(Came::End) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
            if let Poll::Ready(response) = answering.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
        }
    }

    /// Sends a body as it comes, and with it what was said before.
    async fn send(&mut self, body: &mut InFlight, mut end: End) -> Result<(), Broken> {
        let mut over = matches!(end, End::None(_));
        let sent = poll_fn(|cx| {
            loop {
                let waits = !over && self.poll_say(body, &mut end, &mut over, cx)?.is_pending();
                match self.line.poll_flush(cx) {
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken)),
                    Poll::Ready(Ok(())) if over => return Poll::Ready(Ok(())),
                    // there is room again
                    Poll::Ready(Ok(())) if !waits => continue,
                    Poll::Ready(Ok(())) => {}
                    Poll::Pending => {
                        body.send_on(cx);
                    }
                }
                match self.inbound.poll(&mut self.line, cx) {
                    Poll::Ready(Came::Something) => {}
                    Poll::Ready(Came::End) => return Poll::Ready(Err(Broken)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let sent = sent.await;
        if sent.is_err() && end == End::Connection {
            // the end of the connection must not look like that of the body
            self.line.reset();
        }
        sent
    }

    /// Says as much of a body as there is, and is room for; pending when it has to be waited for.
    fn poll_say(
        &mut self,
        body: &mut InFlight,
        end: &mut End,
        over: &mut bool,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Broken> {
        while self.line.has_room() {
            let mut trailers = None;
            if !body.is_end_stream() {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Pending => return Ok(Poll::Pending),
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(piece) => {
                            end.say(&mut self.line, piece)?;
                            continue;
                        }
                        Err(frame) => trailers = frame.into_trailers().ok(),
                    },
                    Poll::Ready(Some(Err(_))) => {
                        // what was said so far may still help; there is nobody to tell if not
                        let _ = self.line.poll_flush(cx);
                        return Err(Broken);
                    }
                    Poll::Ready(None) => {}
                }
            }
            end.say_end(&mut self.line, trailers.as_ref())?;
            *over = true;
            break;
        }
        Ok(Poll::Ready(()))
    }
}

/// The answer could not be sent as its head said.
#[derive(Clone, Copy, Debug)]
struct Broken;

impl From<WrongLength> for Broken {
    fn from(_: WrongLength) -> Self {
        Self
    }
}

/// Whether an answer ends its connection.
fn closes(headers: &HeaderMap) -> bool {
    find_all(headers, &CONNECTION).any(|line| line.as_bytes().eq_ignore_ascii_case(b"close"))
}
