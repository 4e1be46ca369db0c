//! PostgreSQL connections: opening, pooling, the signed context of a transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::ContextKey;
use super::migrate::hex;
use super::postgres::classify;
use super::{Access, StoreError, StoreLimits};

/// The block of SHA-256, to which HMAC pads its key, in bytes.
const HMAC_BLOCK: usize = 64;

/// An idle connection asks the peer for a sign of life after this time.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Sets everything a transaction relies on, locally to it, so that nothing an earlier user of
/// the connection did to its session matters. Answers the backend it really runs on, which
/// behind a pooler may not be the one the context was signed for.
const BIND_CONTEXT: &str = "SELECT pg_catalog.pg_backend_pid(),
    pg_catalog.set_config('keyward.context', $1, true),
    pg_catalog.set_config('search_path', 'keyward, pg_temp', true),
    pg_catalog.set_config('statement_timeout', $2, true),
    pg_catalog.set_config('lock_timeout', $3, true),
    pg_catalog.set_config('idle_in_transaction_session_timeout', $4, true),
    pg_catalog.set_config('synchronous_commit', $5, true)";

/// What carries a connection's messages; it must be polled for anything to happen.
pub(super) type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Where to connect and how.
#[derive(Clone)]
pub(super) struct Address {
    config: Config,
    tls: MakeRustlsConnect,
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
        config.connect_timeout(limits.wait).keepalives_idle(KEEPALIVE_IDLE);
        config.application_name("keyward");
        if config.get_ssl_mode() != SslMode::Require {
            config.ssl_mode(SslMode::Disable);
            if !is_local(&config) {
                tracing::warn!("the database connection is not encrypted: add sslmode=require");
            }
        }
        let tls = rustls_client(config.get_ssl_mode() == SslMode::Require)?;
        Ok(Self { config, tls })
    }

    /// The role of the address.
    pub(super) fn role(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// Opens a connection that the caller drives itself.
    pub(super) async fn open(&self) -> Result<(Client, Driver), StoreError> {
        let connected = self.config.connect(self.tls.clone()).await;
        connected.map_err(|error| classify("connect", &error))
    }

    /// Opens a connection; the flag rises when it has ended.
    pub(super) async fn connect(&self) -> Result<(Client, Arc<AtomicBool>), StoreError> {
        let (client, connection) = self.open().await?;
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let error = classify("connection", &error);
                tracing::warn!(%error, "a database connection broke");
            }
            flag.store(true, Ordering::Release);
        });
        Ok((client, ended))
    }

    /// Asks the server to stop what a connection is running. Best effort, in the background.
    pub(super) fn cancel(&self, client: &Client) {
        let (token, tls) = (client.cancel_token(), self.tls.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { token.cancel_query(tls).await });
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
pub(super) struct Signer(hmac::Key);

impl Signer {
    pub(super) fn new(key: &ContextKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.bytes()))
    }

    /// The context of a transaction on one backend: the MAC, then the name.
    fn sign(&self, backend: i32, name: &str) -> String {
        let sum = hmac::sign(&self.0, format!("{backend}:{name}").as_bytes());
        hex(sum.as_ref()) + name
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

/// One connection and what is prepared on it.
pub(super) struct Session {
    pub(super) client: Client,
    bind_context: tokio_postgres::Statement,
    /// By text; bounded by the number of statements in the program.
    prepared: HashMap<&'static str, tokio_postgres::Statement>,
    backend: i32,
}

impl Session {
    /// Begins a transaction and binds its context, in one flight.
    pub(super) async fn begin(
        &mut self,
        signer: &Signer,
        name: &str,
        access: Access,
        limits: &StoreLimits,
    ) -> Result<(), StoreError> {
        let sql = match access {
            Access::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Access::Write | Access::Note => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        };
        let context = signer.sign(self.backend, name);
        let flight = futures_util::future::join(
            self.client.batch_execute(sql),
            self.bind(&context, access, limits),
        );
        let (begun, backend) = flight.await;
        begun.map_err(|error| classify("BEGIN", &error))?;
        let backend = backend?;
        if backend != self.backend {
            self.bind(&signer.sign(backend, name), access, limits).await?;
            self.backend = backend;
        }
        Ok(())
    }

    /// Binds a context and answers the backend that did it.
    async fn bind(
        &self,
        context: &str,
        access: Access,
        limits: &StoreLimits,
    ) -> Result<i32, StoreError> {
        let ms = |limit: Duration| limit.as_millis().to_string();
        let (statement, lock, idle) =
            (ms(limits.statement), ms(limits.lock), ms(limits.idle_in_transaction));
        let durable = if access == Access::Note { "off" } else { "on" };
        let bound = self
            .client
            .query_one(&self.bind_context, &[&context, &statement, &lock, &idle, &durable])
            .await;
        bound.and_then(|row| row.try_get(0)).map_err(|error| classify("context", &error))
    }

    /// The prepared form of a statement, made at its first use on this connection.
    pub(super) async fn prepare(
        &mut self,
        name: &'static str,
        sql: &'static str,
    ) -> Result<tokio_postgres::Statement, StoreError> {
        if let Some(prepared) = self.prepared.get(sql) {
            return Ok(prepared.clone());
        }
        let prepared = self.client.prepare(sql).await.map_err(|error| classify(name, &error))?;
        self.prepared.insert(sql, prepared.clone());
        Ok(prepared)
    }
}

/// Opens connections of the application role for the pool.
pub(super) struct SessionManager {
    pub(super) address: Address,
}

impl Manager for SessionManager {
    type Type = Session;
    type Error = StoreError;

    async fn create(&self) -> Result<Session, StoreError> {
        let (client, _) = self.address.connect().await?;
        let failed = |error| classify("connect", &error);
        let bind_context = client.prepare(BIND_CONTEXT).await.map_err(failed)?;
        let row = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(failed)?;
        let backend = row.try_get(0).map_err(failed)?;
        Ok(Session { client, bind_context, prepared: HashMap::new(), backend })
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<StoreError> {
        if session.client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}
