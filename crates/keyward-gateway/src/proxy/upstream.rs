//! Where permitted requests go, and how the exchange with an upstream can fail.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use keyward_core::assertion::SigningKey;
use keyward_core::environment::{Environment, EnvironmentSet};

use crate::proxy::body::{ForwardBody, Progress, Watch};
use crate::proxy::outbound::Outbound;
use crate::proxy::pool::{self, Alarm, Connection, Driver, Lease};
use crate::proxy::standing::{Loss, RECHECK_EVERY, Vigil};
use crate::proxy::stream::Stream;

/// The most headers an upstream may answer with.
const MAX_RESPONSE_HEADERS: usize = 200;

/// The key behind the assertions an upstream gets.
pub type AssertionKey = std::sync::Arc<SigningKey>;

/// One upstream, as it is configured.
pub struct UpstreamConfig {
    /// The environments whose requests go there.
    pub environments: EnvironmentSet,
    /// `http://host:port`, without a path: the path that was matched is the path that is sent.
    pub url: String,
    /// The `aud` claim of its assertions.
    pub audience: String,
    /// The key its assertions are signed with.
    pub assertion_key: AssertionKey,
    /// For how long a connection may take to open.
    pub connect_timeout: Duration,
    /// For how long the first byte of an answer may take once the request was sent whole.
    pub first_byte_timeout: Duration,
    /// For how long a body may stand still, in either direction.
    pub body_idle_timeout: Duration,
    /// For how long an unused connection is kept.
    pub pool_idle_timeout: Duration,
}

impl UpstreamConfig {
    /// An upstream with the default deadlines: 5 s to connect, a minute to the first byte, a minute
    /// for a body that stands still, 55 s for an unused connection.
    pub fn new(
        environments: EnvironmentSet,
        url: impl Into<String>,
        audience: impl Into<String>,
        assertion_key: AssertionKey,
    ) -> Self {
        Self {
            environments,
            url: url.into(),
            audience: audience.into(),
            assertion_key,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_mins(1),
            body_idle_timeout: Duration::from_mins(1),
            pool_idle_timeout: Duration::from_secs(55),
        }
    }
}

/// Why an upstream cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUpstream {
    /// Not `http://host[:port]`.
    #[error("{0}: write the upstream as http://host:port")]
    Url(String),
    /// `https` is not offered yet.
    #[error("{0}: https upstreams are not supported yet; put a TLS proxy on the same host")]
    Tls(String),
    /// A path behind the host.
    #[error("{0}: an upstream has no path; the path that was matched is the path that is sent")]
    Path(String),
    /// Two upstreams claim one environment.
    #[error("more than one upstream is set for {0}")]
    Twice(Environment),
}

/// How an exchange with an upstream failed.
#[derive(Debug)]
pub(crate) enum SendError {
    Connect(io::Error),
    ConnectTimeout,
    FirstByteTimeout,
    /// The upstream takes no more of the request's body.
    UploadStalled,
    /// The caller's own body failed.
    Body(Progress),
    /// The key lost its authority before the body had ended.
    Lost(Loss),
    /// The upstream broke off, or its answer is not HTTP/1.1.
    Broken(hyper::Error),
}

/// An upstream that is ready for use.
pub(crate) struct Upstream {
    id: u64,
    authority: Authority,
    pub(crate) host: HeaderValue,
    pub(crate) config: UpstreamConfig,
}

/// The upstreams of a node, by environment.
pub(crate) struct Upstreams(Box<[Upstream]>);

impl Upstreams {
    pub(crate) fn new(configs: Vec<UpstreamConfig>) -> Result<Self, InvalidUpstream> {
        for environment in Environment::ALL {
            let claims = configs.iter().filter(|it| it.environments.contains(environment));
            if claims.count() > 1 {
                return Err(InvalidUpstream::Twice(environment));
            }
        }
        configs.into_iter().map(Upstream::new).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn of(&self, environment: Environment) -> Option<&Upstream> {
        self.0.iter().find(|it| it.config.environments.contains(environment))
    }
}

impl Upstream {
    fn new(config: UpstreamConfig) -> Result<Self, InvalidUpstream> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let url = || InvalidUpstream::Url(config.url.clone());
        let uri: Uri = config.url.parse().map_err(|_| url())?;
        if uri.scheme() == Some(&Scheme::HTTPS) {
            return Err(InvalidUpstream::Tls(config.url));
        }
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(url());
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(InvalidUpstream::Path(config.url));
        }
        let authority = uri.authority().cloned().ok_or_else(url)?;
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| url())?;
        Ok(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), authority, host, config })
    }

    /// Sends a request and waits for the head of the answer. A pooled connection that turns out to
    /// be dead is replaced once, if nothing was sent on it or sending again cannot do harm.
    pub(super) async fn send(
        &self,
        outbound: &Outbound<'_>,
        memory: HeaderMap,
        body: ForwardBody,
        watch: Option<&Watch>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let now_ns = outbound.passage.now_ns;
        let repeatable = outbound.is_safe() && matches!(body, ForwardBody::Empty);
        let mut request = outbound.request(memory, body);
        if let Some(mut connection) = pool::take(self.id, now_ns, self.idle_ns()) {
            match self.exchange(&mut connection, request, outbound, watch).await {
                Ok(response) => return Ok((response, self.lease(connection, now_ns))),
                Err(Failure { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Failure { error: SendError::Broken(_), .. }) if repeatable => {
                    request = outbound.request(HeaderMap::new(), ForwardBody::Empty);
                }
                Err(failure) => return Err(failure.error),
            }
        }
        // rare and large, so not a part of every request's state
        let mut connection = Box::pin(self.connect()).await?;
        match self.exchange(&mut connection, request, outbound, watch).await {
            Ok(response) => Ok((response, self.lease(connection, now_ns))),
            Err(failure) => Err(failure.error),
        }
    }

    fn lease(&self, connection: Connection, now_ns: u64) -> Lease {
        Lease { connection, upstream: self.id, now_ns, idle_ns: self.idle_ns() }
    }

    fn idle_ns(&self) -> u64 {
        u64::try_from(self.config.pool_idle_timeout.as_nanos()).unwrap_or(u64::MAX)
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let host = self.authority.host().trim_matches(['[', ']']);
        let port = self.authority.port_u16().unwrap_or(80);
        let stream = timeout(self.config.connect_timeout, TcpStream::connect((host, port)))
            .await
            .map_err(|_| SendError::ConnectTimeout)?
            .map_err(SendError::Connect)?;
        // a proxy writes whole heads; waiting for more only adds delay
        stream.set_nodelay(true).map_err(SendError::Connect)?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_RESPONSE_HEADERS)
            .handshake(TokioIo::new(Stream::new(stream, self.config.body_idle_timeout)))
            .await
            .map_err(SendError::Broken)?;
        // what went wrong is told to whoever waits for the answer
        let driver = Driver::new(tokio::spawn(connection).abort_handle());
        Ok(Connection { sender, alarm: Alarm::default(), _driver: driver })
    }

    fn exchange<'c>(
        &'c self,
        connection: &'c mut Connection,
        request: Request<ForwardBody>,
        outbound: &'c Outbound<'_>,
        watch: Option<&'c Watch>,
    ) -> impl Future<Output = Result<Response<Incoming>, Failure>> + 'c {
        let Connection { sender, alarm, .. } = connection;
        // sent before anything is waited for, so that the request is in no future's state
        let answer = sender.try_send_request(request);
        let first_byte = self.config.first_byte_timeout;
        async move {
            let mut answer = std::pin::pin!(answer);
            let mut asking = Asking { outbound, vigil: None };
            let first_look =
                if watch.is_some() { first_byte.min(RECHECK_EVERY) } else { first_byte };
            alarm.set(Instant::now() + first_look);
            poll_fn(|cx| {
                if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
                    return Poll::Ready(answered.map_err(|failure| failed(failure, watch)));
                }
                loop {
                    ready!(alarm.poll(cx));
                    let now = Instant::now();
                    let until = match watch {
                        // whoever holds an upload up is found out by the timer of its side
                        Some(upload) if upload.progress() == Progress::Flowing => {
                            match asking.look() {
                                Ok(left) => now + left.min(first_byte),
                                Err(loss) => {
                                    let error = SendError::Lost(loss);
                                    return Poll::Ready(Err(Failure { unsent: None, error }));
                                }
                            }
                        }
                        Some(upload) => upload.finished_at().map_or(now, |at| at + first_byte),
                        None => now,
                    };
                    if until <= now {
                        let error = SendError::FirstByteTimeout;
                        return Poll::Ready(Err(Failure { unsent: None, error }));
                    }
                    alarm.set(until);
                }
            })
            .await
        }
    }
}

/// Asks whether the key of an upload may still make its request.
struct Asking<'c, 'o> {
    outbound: &'c Outbound<'o>,
    /// Made when an upload has lasted for long enough to be asked about.
    vigil: Option<Box<Vigil>>,
}

impl Asking<'_, '_> {
    fn look(&mut self) -> Result<Duration, Loss> {
        let made = || Box::new(Vigil::of(self.outbound.standing()));
        self.vigil.get_or_insert_with(made).look(self.outbound.passage.plane)
    }
}

fn failed(mut failure: TrySendError<Request<ForwardBody>>, watch: Option<&Watch>) -> Failure {
    let unsent = failure.take_message().map(Box::new);
    let error = match watch.map(Watch::progress) {
        Some(fault @ (Progress::TooLarge | Progress::TimedOut | Progress::Broken)) => {
            SendError::Body(fault)
        }
        Some(_) if took_nothing(failure.error()) => SendError::UploadStalled,
        _ => SendError::Broken(failure.into_error()),
    };
    Failure { unsent, error }
}

/// Tells an upstream that took nothing in time from one that broke off.
fn took_nothing(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|it| it.downcast_ref::<io::Error>());
    cause.is_some_and(|it| it.kind() == io::ErrorKind::TimedOut)
}

struct Failure {
    unsent: Option<Box<Request<ForwardBody>>>,
    error: SendError,
}
