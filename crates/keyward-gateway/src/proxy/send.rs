//! One exchange with an upstream, how it can fail, and when it is tried again.
//!
//! A request that could not be sent at all goes to another address, whatever it is. One that may
//! have been sent is repeated only when it is safe and has no body, or when it has no body and the
//! upstream itself says that it did not begin with it; and only as long as few requests need that.
//! Once a byte of the answer is here, nothing is repeated.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use http::{HeaderMap, Response, StatusCode};
use tokio::time::{Instant, timeout};

use crate::proxy::body::{ForwardBody, Progress, Watch};
use crate::proxy::check::tell;
use crate::proxy::config::Balance;
use crate::proxy::outbound::Outbound;
use crate::proxy::pool::{self, Channel, Held, Lease, Wish};
use crate::proxy::standing::{Loss, RECHECK_EVERY, Vigil};
use crate::proxy::target::{Target, Wire};
use crate::proxy::upgrade::dial;
use crate::proxy::upstream::{Tried, Upstream};
use crate::proxy::{http1, http2};

/// Addresses that one request is tried at.
const MAX_TRIES: usize = 3;

/// How an exchange with an upstream failed.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Too many requests are under way, and waiting did not help.
    Busy,
    /// No address takes requests just now.
    AllDown,
    Connect(io::Error),
    ConnectTimeout,
    FirstByteTimeout,
    /// The exchange took too long in all.
    TotalTimeout,
    /// The upstream takes no more of the request's body.
    UploadStalled,
    /// The caller's own body failed.
    Body(Progress),
    /// The key lost its authority before the body had ended.
    Lost(Loss),
    /// The upstream broke off, or its answer is not HTTP.
    Broken(Broken),
}

/// How an upstream broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// Before a byte of an answer.
    #[error("{0}")]
    Silent(io::Error),
    /// Within the head of the answer, if that is what it was.
    #[error("{0}")]
    Garbled(io::Error),
    /// One stream of many, or all of them.
    #[error("{0}")]
    Stream(hyper::Error),
}

impl SendError {
    /// Whether it speaks against the address.
    const fn is_of_address(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::ConnectTimeout | Self::Broken(_))
    }
}

/// What stays the same over all tries of one request.
struct Errand<'c, 'o> {
    upstream: &'c Upstream,
    outbound: &'c Outbound<'o>,
    watch: Option<&'c Watch>,
    /// Whether it may be sent twice as far as its method and body are concerned.
    repeatable: bool,
    empty: bool,
    until: Option<Instant>,
}

struct Failure {
    /// The body of a request that was not sent at all.
    unsent: Option<ForwardBody>,
    error: SendError,
}

/// The head of an answer.
pub(super) struct Answered {
    pub(super) response: Response<()>,
    /// What its body comes on.
    pub(super) lease: Lease,
    /// When the whole exchange must be over.
    pub(super) until: Option<Instant>,
}

impl Upstream {
    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// How the last try failed.
    pub(super) async fn send(
        &self,
        outbound: &Outbound<'_>,
        body: ForwardBody,
        watch: Option<&Watch>,
    ) -> Result<Answered, SendError> {
        let empty = matches!(body, ForwardBody::Empty);
        let errand = Errand {
            upstream: self,
            outbound,
            watch,
            repeatable: outbound.is_safe() && empty,
            empty,
            until: outbound.total_timeout().map(|total| Instant::now() + total),
        };
        let slot = match &self.gate {
            // rare and large, so not a part of every request's state
            Some(gate) => Box::pin(gate.enter()).await.map(Some).ok_or(SendError::Busy)?,
            None => None,
        };
        let (position, target) = self.choose(Tried::default()).ok_or(SendError::AllDown)?;
        let now_ns = outbound.passage.now_ns;
        let held = self.hold(target, slot);
        let channel = pool::take(target, self.wish(outbound));
        let Some(channel) = channel else {
            return Box::pin(errand.begin(body, (position, target), held)).await;
        };
        let mut lease = self.lease(target, channel, held, now_ns);
        match errand.exchange(&mut lease, target, body).await {
            Ok(response) => {
                target.health.answered();
                Ok(Answered { response, lease, until: errand.until })
            }
            Err(failure) => {
                let held = lease.held.take();
                drop(lease);
                // a channel that was kept may have ended for no fault of the upstream's
                let (again, error) = errand.again(failure, target);
                let body = again.ok_or(error)?;
                Box::pin(errand.begin(body, (position, target), held)).await
            }
        }
    }

    /// Sends a request on a connection that may be handed over afterwards.
    ///
    /// # Errors
    /// How the last try failed.
    pub(super) async fn send_upgrade(
        &self,
        outbound: &Outbound<'_>,
    ) -> Result<Answered, SendError> {
        let until = outbound.total_timeout().map(|total| Instant::now() + total);
        let errand =
            Errand { upstream: self, outbound, watch: None, repeatable: false, empty: true, until };
        let slot = match &self.gate {
            Some(gate) => Some(gate.enter().await.ok_or(SendError::Busy)?),
            None => None,
        };
        let first = self.choose(Tried::default()).ok_or(SendError::AllDown)?;
        let held = self.hold(first.1, slot);
        errand.begin(ForwardBody::Empty, first, held).await
    }

    fn wish(&self, outbound: &Outbound<'_>) -> Wish {
        let passage = outbound.passage;
        let tenant = passage.key.tenant.id;
        Wish { tenant, now_ns: passage.now_ns, idle_ns: self.idle_ns() }
    }

    fn hold(
        &self,
        target: &Target,
        slot: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Option<Box<Held>> {
        let counted = self.config.balance == Balance::LeastRequests;
        (slot.is_some() || counted).then(|| {
            let under_way = counted.then(|| target.count());
            Box::new(Held { common: target.common.clone(), _under_way: under_way, slot })
        })
    }

    fn lease(
        &self,
        target: &Target,
        channel: Channel,
        held: Option<Box<Held>>,
        now_ns: u64,
    ) -> Lease {
        let idle_ns = self.idle_ns();
        Lease { channel, held, target: target.id, now_ns, idle_ns, once: false }
    }

    /// Notes that a request could not be delivered.
    fn failed(&self, target: &Target, error: &SendError) {
        if self.counts_failures() && error.is_of_address() {
            let turn = target.health.failed();
            tell(self, target, turn, Some("requests could not be delivered"));
        }
    }
}

impl<'c> Errand<'c, '_> {
    /// Tries new channels, to one address after the other.
    async fn begin(
        &self,
        mut body: ForwardBody,
        first: (usize, &'c Target),
        mut held: Option<Box<Held>>,
    ) -> Result<Answered, SendError> {
        let upstream = self.upstream;
        let now_ns = self.outbound.passage.now_ns;
        let (mut position, mut target) = first;
        let mut tried = Tried::default();
        for left in (0..MAX_TRIES).rev() {
            let (again, error) = match self.open(target).await {
                Err(error) => (Some(body), error),
                Ok(channel) => {
                    let wire = channel.wire();
                    let mut lease = upstream.lease(target, channel, held.take(), now_ns);
                    lease.once = self.outbound.upgrades;
                    match self.exchange(&mut lease, target, body).await {
                        Ok(response) => {
                            target.health.answered();
                            return Ok(Answered { response, lease, until: self.until });
                        }
                        Err(Failure { unsent: Some(unsent), .. }) if wire == Wire::Http2 => {
                            // the connection was closed to new streams just before this one
                            body = unsent;
                            held = lease.held.take();
                            continue;
                        }
                        Err(failure) => {
                            held = lease.held.take();
                            self.again(failure, target)
                        }
                    }
                }
            };
            upstream.failed(target, &error);
            tried = tried.with(position);
            let next = upstream.choose(tried).filter(|_| left > 0);
            let (Some(unsent), Some(next)) = (again, next) else {
                return Err(error);
            };
            body = unsent;
            (position, target) = next;
            let slot = held.take().and_then(|held| held.slot);
            held = upstream.hold(target, slot);
        }
        Err(SendError::AllDown)
    }

    /// A channel within the time for it.
    async fn open(&self, target: &Target) -> Result<Channel, SendError> {
        let config = &self.upstream.config;
        let now = Instant::now();
        let within = config.connect_timeout;
        let total = self.until.map(|until| until.saturating_duration_since(now));
        let opening = async {
            if self.outbound.upgrades {
                return dial(target, self.upstream).await.map(Channel::Connection);
            }
            target.open(config, self.upstream.wish(self.outbound)).await
        };
        let opened = timeout(total.map_or(within, |total| total.min(within)), opening).await;
        opened.unwrap_or(Err(SendError::ConnectTimeout))
    }

    /// The body once more, if the request may be sent again, and how it failed.
    fn again(&self, failure: Failure, target: &Target) -> (Option<ForwardBody>, SendError) {
        let again = match (failure.unsent, &failure.error) {
            (Some(unsent), _) => Some(unsent),
            (None, SendError::Broken(error)) => {
                let harmless = match error {
                    Broken::Silent(_) => self.repeatable,
                    Broken::Garbled(_) => false,
                    Broken::Stream(error) => self.repeatable || (self.empty && was_refused(error)),
                };
                (harmless && pool::may_repeat(target)).then(|| {
                    self.upstream.repeats.fetch_add(1, Ordering::Relaxed);
                    ForwardBody::Empty
                })
            }
            (None, _) => None,
        };
        (again, failure.error)
    }

    fn exchange<'l>(
        &'l self,
        lease: &'l mut Lease,
        target: &Target,
        body: ForwardBody,
    ) -> impl Future<Output = Result<Response<()>, Failure>> + 'l {
        // begun before anything is waited for, so that the request is in no future's state
        let watch = self.watch;
        let (answer, alarm) = match &mut lease.channel {
            Channel::Connection(it) => {
                let (outbound, framing) = (self.outbound, self.outbound.framing(&body));
                it.http1.begin(body, framing, outbound.asks_for_head(), |framing, out| {
                    outbound.write_head(target, framing, out);
                });
                let http1 = &mut it.http1;
                (Either::Left(poll_fn(move |cx| poll_answer(http1, watch, cx))), &mut it.alarm)
            }
            Channel::Stream(it) => {
                it.begin(self.outbound.request(target, body));
                let http2::Stream { exchange, alarm, .. } = &mut **it;
                (Either::Right(poll_fn(move |cx| poll_answer_on(exchange, watch, cx))), alarm)
            }
        };
        let first_byte = self.upstream.config.first_byte_timeout;
        let bounded = |due: Instant| self.until.map_or(due, |until| due.min(until));
        async move {
            let mut answer = pin!(answer);
            let mut asking = Asking { errand: self, vigil: None, moved: None };
            let first_look =
                if watch.is_some() { first_byte.min(RECHECK_EVERY) } else { first_byte };
            alarm.set(bounded(Instant::now() + first_look));
            poll_fn(|cx| {
                if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
                    return Poll::Ready(answered);
                }
                loop {
                    ready!(alarm.poll(cx));
                    match asking.next_look(Instant::now()) {
                        Ok(due) => alarm.set(bounded(due)),
                        Err(error) => return Poll::Ready(Err(Failure { unsent: None, error })),
                    }
                }
            })
            .await
        }
    }
}

/// The head of an answer on a connection of its own.
fn poll_answer(
    connection: &mut http1::Connection,
    watch: Option<&Watch>,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<()>, Failure>> {
    let fault = match ready!(connection.poll_head(cx)) {
        Ok(head) => return Poll::Ready(Ok(answer_with(head))),
        Err(fault) => fault,
    };
    let unsent = connection.take_unsent();
    let error = match fault {
        http1::Fault::Body => of_body(watch),
        http1::Fault::Stalled => SendError::UploadStalled,
        http1::Fault::Silent(error) => SendError::Broken(Broken::Silent(error)),
        http1::Fault::Garbled(error) => SendError::Broken(Broken::Garbled(error)),
    };
    Poll::Ready(Err(Failure { unsent, error }))
}

/// The head of an answer on one stream of many.
fn poll_answer_on(
    exchange: &mut http2::Exchange,
    watch: Option<&Watch>,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<()>, Failure>> {
    Poll::Ready(match ready!(exchange.poll_head(cx)) {
        Ok(head) => Ok(answer_with(head)),
        Err(http2::Fault::Body) => Err(Failure { unsent: None, error: of_body(watch) }),
        Err(http2::Fault::Stalled) => {
            Err(Failure { unsent: None, error: SendError::UploadStalled })
        }
        Err(http2::Fault::Broken(error, unsent)) => {
            Err(Failure { unsent, error: SendError::Broken(Broken::Stream(error)) })
        }
    })
}

fn answer_with((status, headers): (StatusCode, HeaderMap)) -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

fn of_body(watch: Option<&Watch>) -> SendError {
    SendError::Body(watch.map_or(Progress::Broken, Watch::progress))
}

/// Watches over an exchange whose answer is late.
struct Asking<'l, 'c, 'o> {
    errand: &'l Errand<'c, 'o>,
    /// Made when an upload has lasted for long enough to be asked about.
    vigil: Option<Box<Vigil>>,
    /// How much of an upload was taken when it last moved.
    moved: Option<(u32, Instant)>,
}

impl Asking<'_, '_, '_> {
    /// When the exchange must be looked at again, unless it is over.
    fn next_look(&mut self, now: Instant) -> Result<Instant, SendError> {
        let Errand { upstream, outbound, watch, until, .. } = self.errand;
        if until.is_some_and(|until| until <= now) {
            return Err(SendError::TotalTimeout);
        }
        let first_byte = upstream.config.first_byte_timeout;
        let due = match watch {
            // whoever holds an upload up is found out by the timer of its side
            Some(upload) if upload.progress() == Progress::Flowing => {
                self.look_after(upload, now)?;
                let made = || Box::new(Vigil::of(outbound.standing()));
                let vigil = self.vigil.get_or_insert_with(made);
                let left = vigil.look(outbound.passage.plane).map_err(SendError::Lost)?;
                now + left.min(first_byte)
            }
            Some(upload) => upload.finished_at().map_or(now, |at| at + first_byte),
            None => now,
        };
        if due <= now { Err(SendError::FirstByteTimeout) } else { Ok(due) }
    }

    /// Finds out an upstream that takes no more of an upload although its connection is fine, as
    /// one stream of many can do.
    fn look_after(&mut self, upload: &Watch, now: Instant) -> Result<(), SendError> {
        let Some(taken) = upload.taken_while_more_is_there() else {
            self.moved = None;
            return Ok(());
        };
        let (_, since) = *self.moved.get_or_insert((taken, now));
        if self.moved.is_some_and(|(before, _)| before != taken) {
            self.moved = Some((taken, now));
        } else if now - since >= self.errand.upstream.config.body_idle_timeout {
            return Err(SendError::UploadStalled);
        }
        Ok(())
    }
}

/// Whether the upstream says that it did not begin with a request (RFC 9113 §8.7).
fn was_refused(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|it| it.downcast_ref::<h2::Error>());
    cause.is_some_and(|it| {
        it.is_remote() && (it.is_go_away() || it.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}
