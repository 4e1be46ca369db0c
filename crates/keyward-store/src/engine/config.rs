//! What an engine is opened with.

use std::path::PathBuf;
use std::time::Duration;

use keyward_core::time::Timestamp;
use zeroize::Zeroizing;

use super::migrate::Migration;
use super::postgres_rights::StoreRoles;

/// Everything needed to open a store. No formatter: the addresses may hold passwords.
pub struct StoreConfig {
    /// `sqlite:PATH` (relative to the data directory) or `postgres://…` of the application role.
    pub url: Zeroizing<String>,
    /// PostgreSQL only: the address with the owner's role. Migrations run and the context key is
    /// installed through it. Absent: the schema must be current already.
    pub migrate_url: Option<Zeroizing<String>>,
    /// Where relative database paths start.
    pub data_dir: PathBuf,
    /// PostgreSQL only: signs the tenant context of each transaction.
    pub context_key: ContextKey,
    /// The migrations this binary knows, oldest first.
    pub migrations: Vec<Migration>,
    /// The instant of opening; names backups and dates migrations.
    pub now: Timestamp,
    /// PostgreSQL only: what this node needs there, and the roles that a migration run makes fit.
    pub roles: StoreRoles,
    /// PostgreSQL only: what stands between this node and the server.
    pub pooler: Pooler,
    /// PostgreSQL only: where hints of changes are heard.
    pub listen: Listen,
    /// Pool sizes and deadlines.
    pub limits: StoreLimits,
}

/// What stands between a node and its PostgreSQL server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or a pooler that lends a connection for as long as the node holds its own.
    #[default]
    None,
    /// A pooler that lends a connection for one transaction at a time.
    Transaction,
}

/// Where hints of changes are heard. They only save time: every node also looks by itself. No
/// formatter: the address may hold a password.
#[derive(Clone, Default)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At the store's address, but not through a transaction pooler.
    #[default]
    WithStore,
    /// At an address of its own, which leads to the same database and past the pooler.
    Apart(Zeroizing<String>),
}

/// The 256-bit key under which tenant contexts are signed, derived from the deployment's
/// secrets. Every node of a deployment has the same one.
pub struct ContextKey(Zeroizing<[u8; ContextKey::LEN]>);

impl ContextKey {
    /// Bytes in a key.
    pub const LEN: usize = 32;

    /// Takes the key; the caller zeroizes its own copy.
    pub fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// Bounds on connections and time.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// SQLite: connections that read while the one writer works.
    pub readers: usize,
    /// PostgreSQL: connections of this node.
    pub connections: usize,
    /// Callers that may wait for a connection at once; the next one is refused as busy.
    pub waiting: usize,
    /// The longest wait for a connection or for the SQLite writer, and the longest to open one.
    pub wait: Duration,
    /// PostgreSQL: the longest wait for a transaction to begin on a connection.
    pub begin: Duration,
    /// The longest time of one statement.
    pub statement: Duration,
    /// PostgreSQL: how long after the limit of a statement its answer may still take. A server that
    /// is silent for longer is taken for dead.
    pub grace: Duration,
    /// PostgreSQL: the longest wait for the answer to a commit or a rollback.
    pub commit: Duration,
    /// The longest wait for a row lock.
    pub lock: Duration,
    /// PostgreSQL: the longest pause between two statements of a transaction. Shorter than `lock`,
    /// so that who waits for a row outlives a node that stopped while it held it.
    pub idle_in_transaction: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            readers: 4,
            connections: 16,
            waiting: 1_024,
            wait: Duration::from_secs(5),
            begin: Duration::from_secs(5),
            statement: Duration::from_secs(10),
            grace: Duration::from_secs(2),
            commit: Duration::from_secs(10),
            lock: Duration::from_secs(5),
            idle_in_transaction: Duration::from_secs(3),
        }
    }
}

impl StoreLimits {
    /// The longest wait for the answer to one statement.
    pub(super) fn answer(&self) -> Duration {
        self.statement + self.grace
    }
}
