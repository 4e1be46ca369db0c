//! The settings of a deployment: one tree, the same names in file, environment and flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use keyward_core::Environment;
use keyward_core::lease::Terms;
use keyward_gateway::DEFAULT_MAX_KEYS;
use serde::{Deserialize, Serialize};

use super::acme::AcmeSettings;
use super::forward_auth::ForwardAuthSettings;
use super::tls::{CertificateFileSettings, TlsSettings};
use super::units::{Millis, Size};
use super::upstream::UpstreamSettings;

/// Everything `keyward.toml` can say.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// `production` refuses settings that are unsafe there.
    pub(crate) environment: DeploymentEnvironment,
    /// Where the database, the secrets and the backups of a single node live.
    pub(crate) data_dir: DataDir,
    /// What this node does.
    pub(crate) role: Vec<NodeRole>,
    /// The directory with `profile.toml`.
    pub(crate) profile: PathBuf,
    /// Where state lives.
    pub(crate) store: StoreSettings,
    /// How long a node may decide from memory.
    pub(crate) authority: AuthoritySettings,
    /// The file with peppers and signing secrets; `secrets.toml` in the data directory when absent.
    pub(crate) secrets_file: Option<PathBuf>,
    /// The address of an administrator to make while there is none; needs the password file.
    pub(crate) bootstrap_admin_email: Option<String>,
    /// A file with the password of that administrator.
    pub(crate) bootstrap_admin_password_file: Option<PathBuf>,
    /// Keyward's own API and dashboard.
    pub(crate) control: ControlSettings,
    /// Verify, health and metrics, for the operator's own network.
    pub(crate) internal: InternalSettings,
    /// The product's public API.
    pub(crate) gateway: GatewaySettings,
    /// Where permitted requests go.
    pub(crate) upstream: Vec<UpstreamSettings>,
    /// Proxies that ask before they forward requests themselves.
    pub(crate) forward_auth: ForwardAuthSettings,
    /// What is written to stderr.
    pub(crate) log: LogSettings,
    /// The files that certificates are read from.
    pub(crate) certificates: CertificateFileSettings,
    /// Certificates that an authority issues to this deployment (RFC 8555).
    pub(crate) acme: AcmeSettings,
    /// Start and stop.
    pub(crate) shutdown: ShutdownSettings,
}

/// What the deployment is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeploymentEnvironment {
    /// A developer's machine, or a test.
    #[default]
    Development,
    /// Real customers.
    Production,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NodeRole {
    /// Everything. So does a node with no role at all.
    All,
    /// Serves the product's API.
    Gateway,
    /// Serves Keyward's own API.
    Control,
    /// Does what is due from time to time.
    Worker,
}

impl NodeRole {
    /// Whether a node with these roles does this.
    pub(crate) fn is_in(self, roles: &[Self]) -> bool {
        roles.is_empty() || roles.contains(&self) || roles.contains(&Self::All)
    }

    /// Whether a node with these roles decides anything. One that only works does not.
    pub(crate) fn decide(roles: &[Self]) -> bool {
        Self::Gateway.is_in(roles) || Self::Control.is_in(roles)
    }

    /// What a node with these roles does, as the register shows it.
    pub(crate) fn words(roles: &[Self]) -> String {
        let words =
            [(Self::Gateway, "gateway"), (Self::Control, "control"), (Self::Worker, "worker")];
        let held = words.into_iter().filter(|(role, _)| role.is_in(roles)).map(|(_, word)| word);
        held.collect::<Vec<_>>().join(",")
    }
}

/// How long a node may decide from memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct AuthoritySettings {
    /// How long a renewal lasts. A revocation waits this long for a node that does not answer.
    pub(crate) lease: Millis,
    /// What is taken off each lease and added to each wait.
    pub(crate) margin: Millis,
    /// How much longer safe methods are answered while the store is away. Every revocation waits
    /// this much longer for a node that does not answer.
    pub(crate) stale_for: Millis,
    /// The most keys in memory, those that are revoked left out. Others are looked up when used.
    pub(crate) max_keys: usize,
}

impl Default for AuthoritySettings {
    fn default() -> Self {
        let terms = Terms::DEFAULT;
        Self {
            lease: Millis(terms.lease_ms),
            margin: Millis(terms.margin_ms),
            stale_for: Millis(terms.stale_ms),
            max_keys: DEFAULT_MAX_KEYS,
        }
    }
}

impl AuthoritySettings {
    /// The times of leases.
    pub(crate) const fn terms(&self) -> Terms {
        Terms {
            lease_ms: self.lease.0,
            margin_ms: self.margin.0,
            stale_ms: self.stale_for.0,
            ..Terms::DEFAULT
        }
    }
}

/// A directory with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DataDir(pub(crate) PathBuf);

impl Default for DataDir {
    fn default() -> Self {
        Self(PathBuf::from("keyward-data"))
    }
}

/// Where state lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct StoreSettings {
    /// `sqlite:keyward.db` (in the data directory) or `postgres://…` with the role of this node.
    pub(crate) url: String,
    /// A file that holds `url`, so that a password stays out of the settings.
    pub(crate) url_file: Option<PathBuf>,
    /// PostgreSQL: a file with the address of the owner role, for migrations.
    pub(crate) migrate_url_file: Option<PathBuf>,
    /// PostgreSQL: what stands between this node and the server.
    pub(crate) pooler: StorePooler,
    /// PostgreSQL: whether changes of other nodes are heard, beside being looked for.
    pub(crate) listen: bool,
    /// PostgreSQL: a file with the address to hear them at, which leads past a pooler.
    pub(crate) listen_url_file: Option<PathBuf>,
    /// PostgreSQL: connections of this node, beside the few that are kept for its lease.
    pub(crate) connections: usize,
    /// SQLite: connections that read.
    pub(crate) readers: usize,
    /// PostgreSQL: the roles that a run of the migrations makes fit for their nodes.
    pub(crate) roles: StoreRoleSettings,
}

/// What stands between a node and PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StorePooler {
    /// Nothing that lends connections for less than a session.
    #[default]
    None,
    /// A pooler that lends a connection for one transaction at a time.
    Transaction,
}

/// The database roles of a deployment that keeps its nodes apart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct StoreRoleSettings {
    /// The role of control nodes, and of nodes with several roles.
    pub(crate) control: Option<String>,
    /// The role of nodes that only serve the gateway.
    pub(crate) gateway: Option<String>,
    /// The role of nodes that only do the housekeeping.
    pub(crate) worker: Option<String>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: "sqlite:keyward.db".to_owned(),
            url_file: None,
            migrate_url_file: None,
            pooler: StorePooler::default(),
            listen: true,
            listen_url_file: None,
            connections: 16,
            readers: 4,
            roles: StoreRoleSettings::default(),
        }
    }
}

/// Keyward's own API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ControlSettings {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// How people reach it, for links; its own address when absent.
    pub(crate) public_url: Option<String>,
    /// Whether a proxy in front ends TLS.
    pub(crate) behind_proxy: bool,
    /// TLS ended here.
    pub(crate) tls: TlsSettings,
    /// The largest body accepted.
    pub(crate) max_body: Size,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            public_url: None,
            behind_proxy: false,
            tls: TlsSettings::default(),
            max_body: Size(64 * 1024),
        }
    }
}

/// Verify, health and metrics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct InternalSettings {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Addresses that may verify without an admin token.
    pub(crate) verify_from: Vec<IpNet>,
    /// TLS ended here.
    pub(crate) tls: TlsSettings,
    /// HTTP/2 also on plain connections.
    pub(crate) h2c: bool,
}

impl Default for InternalSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8789)),
            verify_from: Vec::new(),
            tls: TlsSettings::default(),
            h2c: false,
        }
    }
}

/// The product's public API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct GatewaySettings {
    /// Where it listens, and what it serves there.
    pub(crate) listener: Vec<ListenerSettings>,
    /// Proxies that are believed: `X-Forwarded-For`, and requests they ask about.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Whether a proxy in front ends TLS.
    pub(crate) behind_proxy: bool,
    /// Threads that serve; 0 means one per core.
    pub(crate) threads: usize,
    /// One runtime per thread, or one runtime over all threads.
    pub(crate) runtime: RuntimeShape,
    /// The largest header block accepted.
    pub(crate) max_headers: Size,
    /// The largest body accepted.
    pub(crate) max_body: Size,
    /// Connections open at once.
    pub(crate) max_connections: usize,
    /// The same of one address, and its requests under way over HTTP/2.
    pub(crate) max_connections_per_address: usize,
    /// How long a client may take to send its header block.
    pub(crate) header_timeout: Millis,
    /// How long a body may stand still.
    pub(crate) body_idle_timeout: Millis,
    /// The bytes in which the body of a request must come for each second that it is waited for,
    /// after the first ten; 0B is without a bound.
    pub(crate) min_body_rate: Size,
    /// After how long connections are asked to begin anew; 0s is never.
    pub(crate) max_connection_age: Millis,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            listener: vec![ListenerSettings::default()],
            trusted_proxies: Vec::new(),
            behind_proxy: false,
            threads: 0,
            runtime: RuntimeShape::default(),
            max_headers: Size(16 * 1024),
            max_body: Size(64 * 1024 * 1024),
            max_connections: 10_000,
            max_connections_per_address: 1_000,
            header_timeout: Millis(10_000),
            body_idle_timeout: Millis(30_000),
            min_body_rate: Size(1024),
            max_connection_age: Millis(3_600_000),
        }
    }
}

/// How the gateway's threads share the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RuntimeShape {
    /// One runtime per thread, connections spread by the kernel.
    #[default]
    PerThread,
    /// One runtime over all threads.
    Shared,
}

/// A gateway address and the environments served there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ListenerSettings {
    /// The address.
    pub(crate) listen: SocketAddr,
    /// The environments whose keys are accepted there.
    pub(crate) environments: Vec<Environment>,
    /// TLS ended here.
    pub(crate) tls: TlsSettings,
    /// HTTP/2 also on plain connections, for a proxy in front.
    pub(crate) h2c: bool,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8788)),
            environments: vec![Environment::Live, Environment::Test],
            tls: TlsSettings::default(),
            h2c: false,
        }
    }
}

/// What is written to stderr.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct LogSettings {
    /// Text on a terminal, JSON elsewhere, unless one is named.
    pub(crate) format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`; also per module, as in `info,keyward=debug`.
    pub(crate) level: String,
    /// Whether every request of the gateway is logged.
    pub(crate) requests: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".to_owned(), requests: true }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// How a stop goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ShutdownSettings {
    /// How long `/readyz` says no before listeners close.
    pub(crate) drain_delay: Millis,
    /// How long requests in flight may take to end.
    pub(crate) timeout: Millis,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { drain_delay: Millis(5_000), timeout: Millis(30_000) }
    }
}
