//! How a listener is set up.

use std::sync::Arc;
use std::time::Duration;

use keyward_core::environment::EnvironmentSet;

use crate::server::tls::Tls;

/// How a gateway listener is set up.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// The environments it serves.
    pub environments: ListenerEnvironments,
    /// Whether callers reach it over TLS, ended by something in front of it.
    pub behind_tls: bool,
    /// What its connections speak.
    pub protocols: Protocols,
    /// The bounds of its connections.
    pub limits: ConnectionLimits,
    /// The threads it runs on.
    pub runtime: RuntimeShape,
}

impl GatewayOptions {
    /// A listener for these environments with the default limits, on the runtime it is started on.
    pub fn new(environments: EnvironmentSet) -> Self {
        Self {
            environments: ListenerEnvironments::all_hosts(environments),
            behind_tls: false,
            protocols: Protocols::default(),
            limits: ConnectionLimits::default(),
            runtime: RuntimeShape::Shared,
        }
    }
}

/// What the connections of a listener speak, besides HTTP/1.1.
#[derive(Clone, Debug, Default)]
pub struct Protocols {
    /// Encrypted connections only, over which callers may choose HTTP/2 (RFC 9113 §3.2).
    pub tls: Option<Arc<Tls>>,
    /// HTTP/2 also on plain connections, from callers that know (RFC 9113 §3.3): proxies in front.
    pub h2c: bool,
}

impl Protocols {
    /// Whether the first byte of a connection is the first of an HTTP/1.1 head.
    pub(super) const fn is_plain_http_11(&self) -> bool {
        self.tls.is_none() && !self.h2c
    }
}

/// The environments a listener serves, for all hosts or by host.
#[derive(Clone, Debug)]
pub struct ListenerEnvironments {
    by_host: Vec<(String, EnvironmentSet)>,
    otherwise: EnvironmentSet,
}

impl ListenerEnvironments {
    /// The same for every host.
    pub const fn all_hosts(environments: EnvironmentSet) -> Self {
        Self { by_host: Vec::new(), otherwise: environments }
    }

    /// By host name, with or without a port, and what every other host gets.
    pub fn by_host(hosts: Vec<(String, EnvironmentSet)>, otherwise: EnvironmentSet) -> Self {
        Self { by_host: hosts, otherwise }
    }

    /// Whether it depends on the host.
    pub(crate) fn vary(&self) -> bool {
        !self.by_host.is_empty()
    }

    pub(crate) fn of(&self, host: &str) -> EnvironmentSet {
        let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // a name with the dot of the root is the same host (RFC 3986 §3.2.2)
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        let matches =
            |name: &str| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(bare);
        let known = self.by_host.iter().find(|(name, _)| matches(name));
        known.map_or(self.otherwise, |(_, environments)| *environments)
    }
}

/// For how long a small body may take to arrive whole, unless the limits say otherwise.
pub const WHOLE_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The bounds of the connections of one listener.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at a time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Connections at a time from one address that is not a trusted proxy's; more are closed. As
    /// many requests over HTTP/2 may be under way from it; more are refused one by one. Of IPv6 a
    /// network of 64 bits counts as one address.
    pub max_connections_per_address: usize,
    /// Answers over HTTP/2 that one such address lets stand still; as long as it takes none of
    /// them, its further requests over HTTP/2 are refused.
    pub max_untaken_per_address: usize,
    /// Bytes in the head of a request.
    pub max_header_bytes: usize,
    /// For how long a head may take to arrive, from its first byte; on a new connection, from the
    /// start.
    pub header_timeout: Duration,
    /// For how long a connection is kept open between two requests.
    pub idle_timeout: Duration,
    /// After this long a connection is asked to go elsewhere with its next request, however busy it
    /// is: callers spread over the nodes again. Over HTTP/1.1 an answer says so, which may be half
    /// a `header_timeout` late. `None` is never.
    pub max_connection_age: Option<Duration>,
    /// Bytes in the body of a request.
    pub max_body_bytes: u64,
    /// For how long the body of a request may stand still.
    pub body_timeout: Duration,
    /// For how long a body that is read before it is answered, as of verify and of built-in
    /// operations, may take to arrive whole.
    pub whole_body_timeout: Duration,
    /// For how long a caller may refuse to take the bytes of an answer.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: 1_000,
            max_untaken_per_address: 200,
            max_header_bytes: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_connection_age: Some(Duration::from_hours(1)),
            max_body_bytes: 100 * 1024 * 1024,
            body_timeout: Duration::from_mins(1),
            whole_body_timeout: WHOLE_BODY_TIMEOUT,
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// The threads a listener runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeShape {
    /// The runtime it is started on.
    Shared,
    /// So many threads of its own, each with its own runtime, its own accept queue and its own
    /// connections to the upstreams.
    PerCore(usize),
}
