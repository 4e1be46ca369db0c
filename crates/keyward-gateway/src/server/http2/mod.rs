//! A connection that speaks HTTP/2, from its preface to its GOAWAY.

mod frames;
mod gate;
mod head;
mod pieces;
mod streams;

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONNECTION;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::server::admission::Caller;
use crate::server::arriving::{ArrivingBody, ArrivingRequest};
use crate::server::connection::{Flight, InFlight, Serving, next_stage};
use crate::server::transport::Transport;
use crate::server::{Arrival, ConnectionLimits, Stage};
use crate::stall::IdleTimer;
use gate::Gate;
use pieces::Pieces;
use streams::{Runner, Streams};

/// Requests under way on one connection; more are refused one by one, and may be sent again.
const MAX_STREAMS: u32 = 100;
/// Streams that a caller has taken back before they were looked at; one more ends the connection.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that were reset for a mistake of the caller; one more ends the connection.
const MAX_ERROR_RESETS: usize = 1_024;
/// Bytes of a body that wait to be read, on one stream and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of the payload of a frame, the least that RFC 9113 §4.2 allows.
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// Bytes of an answer that wait for the caller, on one stream.
const MAX_SEND_BUFFER: usize = 64 * 1024;
/// Bytes of the table that repeated fields are remembered in, the usual number.
const HEADER_TABLE_BYTES: u32 = 4 * 1024;
/// How much more the fields of a head may have before `h2` refuses it with a bare status.
const BARE_REFUSAL: u32 = 2;
/// How often a silent caller is asked whether it is there, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Serves a connection until it ends, or until it is idle while the listener drains. `first` was
/// read from the stream before.
pub(super) async fn serve<S: Transport>(
    serving: Arc<Serving>,
    stream: S,
    first: Vec<u8>,
    peer: IpAddr,
    caller: Caller,
) {
    let metrics = Arc::clone(&serving.plane.recorder.metrics);
    let gate = Gate::new(stream, first, &serving.limits, metrics);
    let streams = Streams::new(Arc::clone(&serving.plane), caller, serving.limits);
    // boxed, because the task of a stream would have room for it until the answer is taken
    let service =
        service_fn(|request| Box::pin(answer(Arc::clone(&serving), &streams, request, peer)));
    let connection = builder(&serving.limits, Runner(Arc::clone(&streams)))
        .serve_connection(TokioIo::new(gate), service);
    let connection = pin!(connection);
    let mut driven =
        Driven::new(connection, http2::Connection::graceful_shutdown, &streams, &serving.limits);
    let mut stage = serving.listener.stage.clone();
    driven.reach(*stage.borrow_and_update());
    // a broken connection has nobody left to tell
    while let Some(changed) = next_stage(Pin::new(&mut driven), &mut stage).await {
        let reached = *stage.borrow_and_update();
        if reached == Stage::Stopped {
            break;
        }
        // without its server no deadline will come
        driven.reach(if changed.is_err() { Stage::Draining } else { reached });
        if changed.is_err() {
            driven.await;
            break;
        }
    }
}

/// What hyper and `h2` hold a connection to. The gate holds it to the rest.
fn builder(limits: &ConnectionLimits, runner: Runner) -> http2::Builder<Runner> {
    let max_fields = u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(runner);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .adaptive_window(false)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_header_list_size(max_fields.saturating_mul(BARE_REFUSAL))
        .header_table_size(HEADER_TABLE_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    builder
}

/// Answers one request as any other, but for what only HTTP/1.1 has. A stream that fails is reset.
fn answer(
    serving: Arc<Serving>,
    streams: &Streams,
    request: Request<Incoming>,
    peer: IpAddr,
) -> impl Future<Output = Result<Response<Pieces>, h2::Error>> + use<> {
    let begun = streams.begin();
    async move {
        let pace = begun?;
        let (mut head, body) = request.into_parts();
        let bad_head = head::read(&mut head, serving.limits.max_header_bytes);
        let listener = Arc::clone(&serving.listener);
        let arrival = Arrival { peer, listener, bad_head, standing: OnceLock::new() };
        let mut request = ArrivingRequest { head, body: ArrivingBody::stream(body) };
        let mut response = serving.answer(&arrival, &mut request).await;
        // a connection goes on whatever happens to one stream (RFC 9113 §8.2.2)
        response.headers_mut().remove(CONNECTION);
        let standing = arrival.standing.into_inner();
        Ok(response.map(|body| {
            let body = InFlight::new(body, standing, Flight(Arc::clone(&pace.stream)));
            Pieces::new(body, pace)
        }))
    }
}

/// A connection and what is not hyper's to decide: when it has been idle for too long or has become
/// too old, and when its caller is asked to go elsewhere.
struct Driven<'c, C> {
    connection: Pin<&'c mut C>,
    retire: fn(Pin<&mut C>),
    streams: &'c Streams,
    idle: IdleTimer,
    /// Runs from the beginning on, and is never set back.
    age: Option<IdleTimer>,
    begun_seen: u64,
    /// Runs from the GOAWAY on, while nothing is under way.
    ending: Option<IdleTimer>,
    ending_within: Duration,
    leaving: bool,
}

impl<'c, C> Driven<'c, C> {
    fn new(
        connection: Pin<&'c mut C>,
        retire: fn(Pin<&mut C>),
        streams: &'c Streams,
        limits: &ConnectionLimits,
    ) -> Self {
        Self {
            connection,
            retire,
            streams,
            idle: IdleTimer::new(limits.idle_timeout),
            age: limits.max_connection_age.map(IdleTimer::new),
            begun_seen: 0,
            ending: None,
            ending_within: limits.write_timeout,
            leaving: false,
        }
    }

    /// The listener is on its way out so far.
    fn reach(&mut self, stage: Stage) {
        self.leaving = stage >= Stage::Leaving;
        if stage >= Stage::Draining {
            self.retire();
        }
    }

    /// Asks the caller to go elsewhere with its next request; those under way end as they would.
    fn retire(&mut self) {
        if self.ending.is_none() {
            self.ending = Some(IdleTimer::new(self.ending_within));
            (self.retire)(self.connection.as_mut());
        }
    }

    /// Whether nothing is under way. Both timers begin anew with every request.
    fn rests(&mut self) -> bool {
        let begun = self.streams.begun();
        let rests = self.streams.is_empty();
        if begun != self.begun_seen || !rests {
            self.begun_seen = begun;
            self.idle.rest();
            self.ending.iter_mut().for_each(IdleTimer::rest);
        }
        rests
    }
}

impl<C: Future> Future for Driven<'_, C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let it = self.get_mut();
        loop {
            if it.connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let rests = it.rests();
            if let Some(ending) = &mut it.ending {
                // it was asked to leave and does not, although nothing is under way
                return if rests { ending.poll_expired(cx) } else { Poll::Pending };
            }
            let idle = rests && it.idle.poll_expired(cx).is_ready();
            // a request that came while the listener leaves is answered, and is the last
            let answered = it.leaving && it.streams.begun() > 0;
            let aged = it.age.as_mut().is_some_and(|age| age.poll_expired(cx).is_ready());
            if !(idle || answered || aged) {
                return Poll::Pending;
            }
            it.retire();
        }
    }
}
