//! Where permitted requests go, and how the exchange with an upstream can fail.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use keyward_core::assertion::SigningKey;
use keyward_core::environment::{Environment, EnvironmentSet};

use crate::proxy::body::{ForwardBody, Progress, Watch};
use crate::proxy::pool::{self, Lease, Sender};
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
    pub(crate) async fn send(
        &self,
        request: Request<ForwardBody>,
        watch: Option<&Watch>,
        now_ns: u64,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let mut request = request;
        if let Some(mut sender) = pool::take(self.id, now_ns, self.idle_ns()) {
            let spare = repeatable(&request);
            match self.exchange(&mut sender, request, watch).await {
                Ok(response) => return Ok((response, self.lease(sender, now_ns))),
                Err(Failure { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Failure { error: SendError::Broken(error), .. }) => match spare {
                    Some(spare) => request = spare,
                    None => return Err(SendError::Broken(error)),
                },
                Err(failure) => return Err(failure.error),
            }
        }
        let mut sender = self.connect().await?;
        match self.exchange(&mut sender, request, watch).await {
            Ok(response) => Ok((response, self.lease(sender, now_ns))),
            Err(failure) => Err(failure.error),
        }
    }

    fn lease(&self, sender: Sender, now_ns: u64) -> Lease {
        Lease { sender, upstream: self.id, now_ns, idle_ns: self.idle_ns() }
    }

    fn idle_ns(&self) -> u64 {
        u64::try_from(self.config.pool_idle_timeout.as_nanos()).unwrap_or(u64::MAX)
    }

    async fn connect(&self) -> Result<Sender, SendError> {
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
        // it ends with its connection; what went wrong is told to whoever waits for the answer
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn exchange(
        &self,
        sender: &mut Sender,
        request: Request<ForwardBody>,
        watch: Option<&Watch>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut answer = std::pin::pin!(sender.try_send_request(request));
        let first_byte = self.config.first_byte_timeout;
        let mut until = Instant::now() + first_byte;
        loop {
            match timeout_at(until, answer.as_mut()).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(mut failure)) => {
                    let unsent = failure.take_message().map(Box::new);
                    let error = match watch.map(Watch::progress) {
                        Some(
                            fault @ (Progress::TooLarge | Progress::TimedOut | Progress::Broken),
                        ) => SendError::Body(fault),
                        Some(_) if took_nothing(failure.error()) => SendError::UploadStalled,
                        _ => SendError::Broken(failure.into_error()),
                    };
                    return Err(Failure { unsent, error });
                }
                Err(_) => {
                    let now = Instant::now();
                    until = match watch {
                        // whoever holds an upload up is found out by the timer of its side
                        Some(upload) if upload.progress() == Progress::Flowing => now + first_byte,
                        Some(upload) => upload.finished_at().map_or(now, |at| at + first_byte),
                        None => now,
                    };
                    if until <= now {
                        let error = SendError::FirstByteTimeout;
                        return Err(Failure { unsent: None, error });
                    }
                }
            }
        }
    }
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

/// A copy of a request that may be sent twice: without a body, and of a safe method.
fn repeatable(request: &Request<ForwardBody>) -> Option<Request<ForwardBody>> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe || !matches!(request.body(), ForwardBody::Empty) {
        return None;
    }
    let headers = request.headers().clone();
    Some(outbound(request.method().clone(), request.uri().clone(), headers, ForwardBody::Empty))
}

/// A request as it goes out.
pub(super) fn outbound(
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: ForwardBody,
) -> Request<ForwardBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    request
}
