//! PostgreSQL connections: opening, pooling, the signed context of a transaction.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use keyward_core::mac::MacKey;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Connection, RowStream, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::{ContextKey, Pooler};
use super::migrate::hex;
use super::postgres::{classify, within};
use super::postgres_value::{bound_by, type_of};
use super::{Access, Lane, Statement, StoreError, StoreLimits, Value, defect};

/// The block of SHA-256, to which HMAC pads its key, in bytes.
const HMAC_BLOCK: usize = 64;

/// An idle connection asks the peer for a sign of life after this time, again at the interval, and
/// is dead after so many without one.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long a connection that nobody holds any more may take to say goodbye.
const LINGER: Duration = Duration::from_secs(2);

/// Server processes that are remembered, so that a context for each is sent along: behind a pooler
/// it is not known before which of them a transaction runs on.
const KNOWN_BACKENDS: usize = 16;

/// Sets everything a transaction relies on, locally to it, so that nothing an earlier user of
/// the connection did to its session matters. Answers the backend it really runs on; when no
/// context was sent for that one, none is set. Answers too whether SQL of somebody's prepared a
/// statement in the session, which may stand under the name of one of ours.
const BIND_CONTEXT: &str = "SELECT pg_catalog.pg_backend_pid(),
    EXISTS (SELECT FROM pg_catalog.pg_prepared_statement() AS p WHERE p.from_sql),
    pg_catalog.set_config('client_encoding', 'UTF8', true),
    pg_catalog.set_config('row_security', 'on', true),
    pg_catalog.set_config('keyward.context', COALESCE((CAST($2 AS pg_catalog.text[]))[
        pg_catalog.array_position(CAST($1 AS pg_catalog.int4[]), pg_catalog.pg_backend_pid())],
        ''), true),
    pg_catalog.set_config('search_path', 'keyward, pg_temp', true),
    pg_catalog.set_config('statement_timeout', $3, true),
    pg_catalog.set_config('lock_timeout', $4, true),
    pg_catalog.set_config('idle_in_transaction_session_timeout', $5, true),
    pg_catalog.set_config('synchronous_commit', $6, true),
    pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true)";

/// What carries a connection's messages; it must be polled for anything to happen.
pub(super) type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Where to connect and how.
#[derive(Clone)]
pub(super) struct Address {
    config: Config,
    tls: MakeRustlsConnect,
    /// The longest that opening a connection may take.
    wait: Duration,
}

impl Address {
    /// Reads an address. `sslmode=require` encrypts and checks the server's certificate against
    /// the system's roots and the host's name; without it the connection is plain.
    pub(super) fn parse(url: &str, limits: &StoreLimits) -> Result<Self, StoreError> {
        let refused = |text: &str| StoreError::Refused(text.to_owned());
        let mut config: Config = url.parse().map_err(|_| {
            refused("the store's address is not of the form postgres://USER@HOST:PORT/DATABASE")
        })?;
        if config.get_user().is_none() {
            return Err(refused("the store's address names no role: postgres://ROLE@HOST/…"));
        }
        config
            .connect_timeout(limits.wait)
            .tcp_user_timeout(limits.answer())
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        config.application_name("keyward");
        if config.get_ssl_mode() != SslMode::Require {
            config.ssl_mode(SslMode::Disable);
            if !is_local(&config) {
                tracing::warn!("the database connection is not encrypted: add sslmode=require");
            }
        }
        let tls = rustls_client(config.get_ssl_mode() == SslMode::Require)?;
        Ok(Self { config, tls, wait: limits.wait })
    }

    /// The role of the address.
    pub(super) fn role(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// Opens a connection that the caller drives itself.
    pub(super) async fn open(&self) -> Result<(Client, Driver), StoreError> {
        let opened = async {
            let connected = self.config.connect(self.tls.clone()).await;
            connected.map_err(|error| classify("connect", &error))
        };
        within(self.wait, "connect", Box::pin(opened)).await
    }

    /// Opens a connection and has a task drive it.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), StoreError> {
        let (client, driver) = self.open().await?;
        let driving = tokio::spawn(async move {
            if let Err(error) = driver.await {
                let error = classify("connection", &error);
                tracing::warn!(%error, "a database connection broke");
            }
        });
        Ok((client, driving))
    }

    /// Asks the server to stop what a connection is running. Best effort, in the background.
    pub(super) fn cancel(&self, client: &Client) {
        let (token, tls, wait) = (client.cancel_token(), self.tls.clone(), self.wait);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(wait, async move { token.cancel_query(tls).await }));
        }
    }
}

fn is_local(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
    })
}

fn rustls_client(with_roots: bool) -> Result<MakeRustlsConnect, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    if with_roots {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(StoreError::Refused(
                "sslmode=require, but this machine has no root certificates: install \
                 ca-certificates or name a bundle in SSL_CERT_FILE"
                    .to_owned(),
            ));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Internal(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(client))
}

/// Signs contexts for this node's backends.
#[derive(Clone)]
pub(super) struct Signer(Arc<MacKey>);

impl Signer {
    pub(super) fn new(key: &ContextKey) -> Self {
        Self(Arc::new(MacKey::new(key.bytes())))
    }

    /// The context of a transaction on one backend: the MAC, then the name.
    pub(super) fn sign(&self, backend: i32, name: &str) -> String {
        let sum = self.0.sign(format!("{backend}:{name}").as_bytes());
        hex(&sum) + name
    }
}

/// The two pads of HMAC over this key, from which the database computes the same sums.
pub(super) fn pads(key: &ContextKey) -> [zeroize::Zeroizing<Vec<u8>>; 2] {
    [0x36_u8, 0x5c].map(|mask| {
        let padding = std::iter::repeat_n(0, HMAC_BLOCK - ContextKey::LEN);
        zeroize::Zeroizing::new(
            key.bytes().iter().copied().chain(padding).map(|b| b ^ mask).collect(),
        )
    })
}

/// The server processes that transactions were seen on, the latest last.
#[derive(Default)]
struct Backends(Mutex<Vec<i32>>);

impl Backends {
    fn known(&self) -> Vec<i32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn saw(&self, backend: i32) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.last() == Some(&backend) {
            return;
        }
        known.retain(|other| *other != backend);
        if known.len() == KNOWN_BACKENDS {
            known.remove(0);
        }
        known.push(backend);
    }
}

/// One connection.
pub(super) struct Session {
    pub(super) client: Client,
    /// Absent while it is dropped.
    driving: Option<JoinHandle<()>>,
    /// Absent behind a transaction pooler, where nothing may stay on the server.
    prepared: Option<Prepared>,
    /// The one of this connection, or those behind the pooler.
    backends: Arc<Backends>,
    lane: Lane,
}

/// What is prepared on a connection, by text; bounded by the number of statements in the program.
#[derive(Default)]
struct Prepared(HashMap<&'static str, tokio_postgres::Statement>);

impl Prepared {
    /// The prepared form of a statement, made at its first use on this connection.
    async fn get(
        &mut self,
        client: &Client,
        name: &'static str,
        sql: &'static str,
    ) -> Result<tokio_postgres::Statement, StoreError> {
        if let Some(prepared) = self.0.get(sql) {
            return Ok(prepared.clone());
        }
        let prepared = client.prepare(sql).await.map_err(|error| classify(name, &error))?;
        self.0.insert(sql, prepared.clone());
        Ok(prepared)
    }
}

impl Session {
    /// Whether the connection leads to one server process that nobody else uses.
    pub(super) const fn is_own(&self) -> bool {
        self.prepared.is_some()
    }

    /// Ends the connection at once, whatever is under way on it.
    pub(super) fn cut(&self) {
        if let Some(driving) = &self.driving {
            driving.abort();
        }
    }

    /// Whether nothing but the program's own statements ever runs on this connection and its
    /// server process is known: then a transaction need not have begun before its first
    /// statements are sent.
    pub(super) fn begins_with_its_statements(&self) -> bool {
        self.lane == Lane::Reserved && self.is_own() && !self.backends.known().is_empty()
    }

    /// Whether a statement can be sent without asking the server first.
    pub(super) fn has_prepared(&self, statement: &Statement) -> bool {
        let known = |prepared: &Prepared| prepared.0.contains_key(statement.postgres());
        self.prepared.as_ref().is_none_or(known)
    }

    /// Prepares what binds a context, where nobody can have replaced it.
    pub(super) async fn prepare_context(&mut self) -> Result<(), StoreError> {
        if let (Lane::Reserved, Some(prepared)) = (self.lane, &mut self.prepared) {
            prepared.get(&self.client, "context", BIND_CONTEXT).await?;
        }
        Ok(())
    }

    /// Begins a transaction and binds its context: in one flight when the backend is a known one,
    /// else in two.
    pub(super) async fn begin(
        &self,
        signer: &Signer,
        name: &str,
        access: Access,
        limits: &StoreLimits,
    ) -> Result<(), StoreError> {
        let sql = match access {
            Access::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Access::Write | Access::Note => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        };
        let settings = Settings { access, limits };
        let known = self.backends.known();
        let contexts: Vec<_> = known.iter().map(|backend| signer.sign(*backend, name)).collect();
        let flight = futures_util::future::join(
            self.client.batch_execute(sql),
            self.bind(&known, &contexts, settings),
        );
        let (begun, backend) = flight.await;
        begun.map_err(|error| classify("BEGIN", &error))?;
        let backend = backend?;
        if !known.contains(&backend) {
            let context = [signer.sign(backend, name)];
            self.bind(&[backend], &context, settings).await?;
        }
        self.backends.saw(backend);
        Ok(())
    }

    /// Binds the context of the backend this runs on, and answers that backend.
    async fn bind(
        &self,
        backends: &[i32],
        contexts: &[String],
        Settings { access, limits }: Settings<'_>,
    ) -> Result<i32, StoreError> {
        let ms = |limit: Duration| limit.as_millis().to_string();
        let (statement, lock, idle) =
            (ms(limits.statement), ms(limits.lock), ms(limits.idle_in_transaction));
        let durable = if access == Access::Note { "off" } else { "on" };
        let values: [(&(dyn ToSql + Sync), Type); 6] = [
            (&backends, Type::INT4_ARRAY),
            (&contexts, Type::TEXT_ARRAY),
            (&statement, Type::TEXT),
            (&lock, Type::TEXT),
            (&idle, Type::TEXT),
            (&durable, Type::TEXT),
        ];
        let prepared = self.prepared.as_ref().and_then(|prepared| prepared.0.get(BIND_CONTEXT));
        let bound = if let Some(prepared) = prepared {
            self.client.query_one(prepared, &values.each_ref().map(|(value, _)| *value)).await
        } else {
            // With its text each time: what is prepared can be replaced by SQL of an earlier user.
            self.client.query_typed_one(BIND_CONTEXT, &values).await
        };
        let read = bound.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let (backend, trapped) = read.map_err(|error| classify("context", &error))?;
        if trapped && self.is_own() {
            let text = "a statement was prepared in this session that is not ours; it is given up";
            return Err(StoreError::Unavailable(text.to_owned()));
        }
        Ok(backend)
    }

    /// Makes a statement ready to be sent: prepared where the connection is our own.
    pub(super) async fn prepare(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Ready, StoreError> {
        let (name, sql) = (statement.name(), statement.postgres());
        let prepared = match &mut self.prepared {
            Some(prepared) => Some(prepared.get(&self.client, name, sql).await?),
            None => None,
        };
        let count = prepared.as_ref().map_or_else(|| bound_by(sql), |known| known.params().len());
        if count != values.len() {
            let text = format!("binds {count} values and was given {}", values.len());
            return Err(defect(statement, &text));
        }
        Ok(Ready { statement, prepared })
    }

    /// Sends a statement, prepared or with its text. It is on its way when this is first polled.
    pub(super) async fn run(
        &self,
        Ready { statement, prepared }: Ready,
        values: &[Value],
    ) -> Result<RowStream, StoreError> {
        let found = if let Some(prepared) = prepared {
            self.client.query_raw(&prepared, values).await
        } else {
            let typed = values.iter().map(|value| (value, type_of(value)));
            self.client.query_typed_raw(statement.postgres(), typed).await
        };
        found.map_err(|error| classify(statement.name(), &error))
    }
}

/// A statement that can be sent.
pub(super) struct Ready {
    pub(super) statement: &'static Statement,
    prepared: Option<tokio_postgres::Statement>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // The driver ends by itself once the client is gone and everything is answered; on a dead
        // connection that is never.
        let Some(mut driving) = self.driving.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            driving.abort();
            return;
        };
        runtime.spawn(async move {
            if tokio::time::timeout(LINGER, &mut driving).await.is_err() {
                driving.abort();
            }
        });
    }
}

/// What a transaction is begun with beside its context.
#[derive(Clone, Copy)]
struct Settings<'a> {
    access: Access,
    limits: &'a StoreLimits,
}

/// Opens connections of the application role for the pools.
#[derive(Clone)]
pub(super) struct SessionManager {
    address: Address,
    /// Present behind a transaction pooler, whose backends belong to nobody.
    shared: Option<Arc<Backends>>,
    lane: Lane,
}

impl SessionManager {
    pub(super) fn new(address: &Address, pooler: Pooler, lane: Lane) -> Self {
        let shared = (pooler == Pooler::Transaction).then(Arc::default);
        Self { address: address.clone(), shared, lane }
    }
}

impl Manager for SessionManager {
    type Type = Session;
    type Error = StoreError;

    async fn create(&self) -> Result<Session, StoreError> {
        let (client, driving) = Box::pin(self.address.connect()).await?;
        let prepared = self.shared.is_none().then(Prepared::default);
        let backends = self.shared.clone().unwrap_or_default();
        Ok(Session { client, driving: Some(driving), prepared, backends, lane: self.lane })
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<StoreError> {
        if session.client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}
