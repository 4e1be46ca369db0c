//! Upstreams as they are configured.

use std::time::Duration;

use keyward_core::assertion::SigningKey;
use keyward_core::environment::{Environment, EnvironmentSet};

use crate::proxy::slowness::BodyRate;

/// The key behind the assertions an upstream gets.
pub type AssertionKey = std::sync::Arc<SigningKey>;

/// The most addresses of one upstream.
pub(super) const MAX_ADDRESSES: usize = 64;

/// One upstream, as it is configured.
pub struct UpstreamConfig {
    /// The environments whose requests go there.
    pub environments: EnvironmentSet,
    /// The name by which routes ask for it. One without name and paths takes what no other of its
    /// environment takes; the only one of an environment takes everything.
    pub name: Option<String>,
    /// It takes the routes whose paths begin with these segments, such as `/v1/billing`.
    pub paths: Vec<String>,
    /// `http://host:port`, `https://host:port` or `unix:/path`, without a path behind it: the path
    /// that was matched is the path that is sent.
    pub addresses: Vec<String>,
    /// The `Host` it is sent; the host and port of its address when absent.
    pub host: Option<String>,
    /// What is spoken with it.
    pub protocol: UpstreamProtocol,
    /// How a TLS connection to it is trusted.
    pub tls: UpstreamTls,
    /// How requests are spread over its addresses.
    pub balance: Balance,
    /// How its addresses are looked after.
    pub health: HealthPolicy,
    /// Requests under way at a time, each on a connection of its own where it is HTTP/1.1;
    /// unbounded when absent.
    pub max_requests: Option<usize>,
    /// For how long a request over that number waits.
    pub queue_timeout: Duration,
    /// The `aud` claim of its assertions.
    pub audience: String,
    /// The key its assertions are signed with.
    pub assertion_key: AssertionKey,
    /// For how long a connection may take to open.
    pub connect_timeout: Duration,
    /// For how long the first byte of an answer may take once the request was sent whole.
    pub first_byte_timeout: Duration,
    /// For how long an exchange may take in all, unless its route says otherwise.
    pub total_timeout: Option<Duration>,
    /// For how long a body may stand still, in either direction.
    pub body_idle_timeout: Duration,
    /// The slowest that the body of a request may come; a route without a total timeout, as streams
    /// are declared, takes any.
    pub min_body_rate: BodyRate,
    /// For how long nothing may move on a WebSocket.
    pub websocket_idle_timeout: Duration,
    /// For how long an unused connection is kept.
    pub pool_idle_timeout: Duration,
}

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1; over TLS what the upstream chooses of HTTP/2 and HTTP/1.1 (RFC 7301).
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS by prior knowledge (RFC 9113 §3.3).
    Http2,
}

/// How a TLS connection to an upstream is trusted.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// The certificates (PEM) of the authorities that are believed instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// The name its certificate must be for, and the one it is asked for; the host of its address
    /// when absent.
    pub server_name: Option<String>,
}

/// How requests are spread over the addresses of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastRequests,
}

/// How the addresses of an upstream are looked after.
#[derive(Clone, Debug)]
pub struct HealthPolicy {
    /// What is asked for, with GET; any status from 200 to 399 is healthy. When absent, only
    /// addresses that failed are looked at, by opening a connection.
    pub path: Option<String>,
    /// How often.
    pub interval: Duration,
    /// For how long an answer may take.
    pub timeout: Duration,
    /// So many failures one after the other take an address out.
    pub down_after: u32,
    /// So many successes one after the other take it in again.
    pub up_after: u32,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            path: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            down_after: 3,
            up_after: 2,
        }
    }
}

impl UpstreamConfig {
    /// An upstream at one address with the defaults: 5 s to connect, a minute to the first byte, a
    /// minute for a body that stands still and 1 KiB/s for one that does not, no bound in all, 5
    /// minutes for a WebSocket that stands still, 55 s for an unused connection.
    pub fn new(
        environments: EnvironmentSet,
        address: impl Into<String>,
        audience: impl Into<String>,
        assertion_key: AssertionKey,
    ) -> Self {
        Self {
            environments,
            name: None,
            paths: Vec::new(),
            addresses: vec![address.into()],
            host: None,
            protocol: UpstreamProtocol::default(),
            tls: UpstreamTls::default(),
            balance: Balance::default(),
            health: HealthPolicy::default(),
            max_requests: None,
            queue_timeout: Duration::from_secs(1),
            audience: audience.into(),
            assertion_key,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_mins(1),
            total_timeout: None,
            body_idle_timeout: Duration::from_mins(1),
            min_body_rate: BodyRate::default(),
            websocket_idle_timeout: Duration::from_mins(5),
            pool_idle_timeout: Duration::from_secs(55),
        }
    }

    /// What it is called where it is spoken of.
    pub(super) fn label(&self) -> &str {
        let first = || self.addresses.first().map_or("-", String::as_str);
        self.name.as_deref().unwrap_or_else(first)
    }
}

/// Why an upstream cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUpstream {
    /// Not an address.
    #[error("{0}: write the upstream as http://host:port, https://host:port or unix:/path")]
    Url(String),
    /// Not the path of a socket.
    #[error("{0}: write a socket with its whole path, as unix:/run/api.sock")]
    Socket(String),
    /// A path behind the host.
    #[error("{0}: an upstream has no path; the path that was matched is the path that is sent")]
    Path(String),
    /// No address, too many, or one twice.
    #[error("{0}: name 1 to {MAX_ADDRESSES} addresses, each once")]
    Addresses(String),
    /// The host to send is no host.
    #[error("{0}: not the name of a host")]
    Host(String),
    /// The certificates of the authorities cannot be read, or there are none.
    #[error("{0}: {1}")]
    Authorities(String, String),
    /// A bound that lets nothing through.
    #[error("{0}: {1} must be more than 0")]
    Zero(String, &'static str),
    /// The path of the health check.
    #[error("{0}: the path of a health check begins with / and is visible ASCII")]
    HealthPath(String),
    /// Several upstreams of one environment take the same requests.
    #[error("more than one upstream of {0} takes {1}")]
    Twice(Environment, String),
    /// A route asks for an upstream that its environment does not have.
    #[error("{1} asks for the upstream {2:?}, and no upstream of {0} has that name")]
    Unknown(Environment, String, String),
    /// No upstream takes a route.
    #[error("no upstream of {0} takes {1}; add one without name and paths for the rest")]
    Untaken(Environment, String),
    /// A path that no route has.
    #[error("{0}: the document has no route below {1}")]
    NoRoute(String, String),
    /// A WebSocket cannot go through an upstream that only speaks HTTP/2.
    #[error("{0}: {1} allows WebSockets, which need protocol = \"auto\" or \"http1\"")]
    NoUpgrade(String, String),
}
