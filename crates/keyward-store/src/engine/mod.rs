//! The databases: one interface, two engines, chosen by the address.
//!
//! Only `sqlite*` and `postgres*` name an engine. Everything above works with [`Engine`],
//! [`Conn`] and [`Statement`]. A [`Conn`] is one transaction: dropped without
//! [`Conn::commit`] it is rolled back, and after a failed statement nothing but a rollback is
//! possible, on both engines alike.

mod config;
mod data_dir;
mod error;
mod hints;
mod migrate;
pub(crate) mod postgres;
mod postgres_admission;
mod postgres_listen;
mod postgres_rights;
mod postgres_schema;
mod postgres_session;
mod postgres_transaction;
mod postgres_value;
mod row;
pub(crate) mod sqlite;
mod sqlite_backup;
mod sqlite_thread;
mod statement;
mod upkeep;

use std::path::Path;
use std::sync::Arc;

use keyward_core::Clock;

pub use config::{ContextKey, Listen, Pooler, StoreConfig, StoreLimits};
pub use error::StoreError;
pub use hints::Hints;
pub use migrate::{Migration, migrations};
pub use postgres_admission::{RoleCheck, check_role};
pub use postgres_rights::{DatabaseRole, StoreRoles};
pub use row::Row;
pub use sqlite_backup::BackupReport;
pub use statement::{Statement, StatementKind, Value};
pub use upkeep::{
    Reached, Restored, SchemaStatus, Staged, back_up, schema_status, snapshot, unpack_backup,
};

use postgres::PostgresEngine;
use postgres_transaction::PostgresTransaction;
use sqlite::{SqliteEngine, SqliteTransaction};

/// Rows one query may answer; a statement that could exceed it needs a `LIMIT`.
pub const MAX_ROWS: usize = 100_000;

/// Statements that are sent together at most.
const MAX_FLIGHT: usize = 16;

/// The longest tenant id a context accepts, in bytes.
const MAX_TENANT_BYTES: usize = 128;

/// The context of a transaction that may see every tenant; never a tenant's id.
const SYSTEM_CONTEXT: &str = "*";

/// An open database.
pub enum Engine {
    /// A file in the data directory, used by this process alone.
    Sqlite(SqliteEngine),
    /// A PostgreSQL server, which any number of processes may use.
    Postgres(Box<PostgresEngine>),
}

/// Whose rows a transaction may touch.
#[derive(Clone, Copy, Debug)]
pub enum Context<'a> {
    /// One tenant, by id.
    Tenant(&'a str),
    /// Every tenant; the reason goes to the log.
    System {
        /// Why the work crosses tenants.
        reason: &'static str,
    },
}

impl Context<'_> {
    /// The text that is bound to the transaction, after checking that it can name a tenant.
    fn name(&self) -> Result<&str, StoreError> {
        match self {
            Self::System { .. } => Ok(SYSTEM_CONTEXT),
            Self::Tenant(id)
                if id.is_empty() || id.len() > MAX_TENANT_BYTES || *id == SYSTEM_CONTEXT =>
            {
                Err(StoreError::Internal("a tenant context needs a tenant id".to_owned()))
            }
            Self::Tenant(id) => Ok(id),
        }
    }
}

impl Engine {
    /// Opens the database: refuses unsafe settings, migrates, and takes a SQLite file for this
    /// process.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the fix, [`StoreError::NewerSchema`],
    /// [`StoreError::Unavailable`], and what a migration answers.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let url = config.url.as_str();
        if let Some(path) = url.strip_prefix("sqlite:") {
            return Ok(Self::Sqlite(SqliteEngine::open(path, config).await?));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let engine = Box::pin(PostgresEngine::open(config)).await?;
            return Ok(Self::Postgres(Box::new(engine)));
        }
        // The address is not repeated: it may hold a password.
        Err(StoreError::Refused(
            "the store's address must be sqlite:PATH or postgres://USER@HOST/DATABASE".to_owned(),
        ))
    }

    /// Begins a read-only transaction that sees every commit made so far.
    ///
    /// # Errors
    /// [`StoreError::Busy`] or [`StoreError::Unavailable`].
    pub async fn begin_read(&self, context: Context<'_>) -> Result<Conn, StoreError> {
        self.begin(context, Access::Read).await
    }

    /// Begins a transaction that may write. On SQLite there is one writer; waiting for it is
    /// fair and bounded.
    ///
    /// # Errors
    /// [`StoreError::Busy`] or [`StoreError::Unavailable`].
    pub async fn begin_write(&self, context: Context<'_>) -> Result<Conn, StoreError> {
        self.begin(context, Access::Write).await
    }

    /// Begins a transaction that may write what nobody decides with and a crash may take back: an
    /// acknowledgement, a last use. On PostgreSQL its commit does not wait for the disk; on SQLite
    /// it is [`Engine::begin_write`].
    ///
    /// # Errors
    /// [`StoreError::Busy`] or [`StoreError::Unavailable`].
    pub async fn begin_note(&self, context: Context<'_>) -> Result<Conn, StoreError> {
        self.begin(context, Access::Note).await
    }

    /// Begins a transaction on a connection that is kept for what a node's lease depends on: it is
    /// there however busy the others are. On SQLite it is one of the others.
    ///
    /// # Errors
    /// [`StoreError::Busy`] or [`StoreError::Unavailable`].
    pub(crate) async fn begin_reserved(
        &self,
        context: Context<'_>,
        access: Access,
    ) -> Result<Conn, StoreError> {
        self.begin_in(Lane::Reserved, context, access).await
    }

    /// Hears of changes that other nodes have committed, until what it answers is dropped. On
    /// SQLite there are no other nodes, and nothing is ever heard. Call it on the runtime.
    pub fn listen(&self, clock: Arc<dyn Clock>) -> Hints {
        match self {
            Self::Sqlite(_) => Hints::silent(),
            Self::Postgres(engine) => engine.listen(clock),
        }
    }

    async fn begin(&self, context: Context<'_>, access: Access) -> Result<Conn, StoreError> {
        self.begin_in(Lane::Common, context, access).await
    }

    async fn begin_in(
        &self,
        lane: Lane,
        context: Context<'_>,
        access: Access,
    ) -> Result<Conn, StoreError> {
        let name = context.name()?;
        if let Context::System { reason } = context {
            tracing::trace!(reason, "system context");
        }
        let transaction = match self {
            Self::Sqlite(engine) => Transaction::Sqlite(engine.begin(access).await?),
            Self::Postgres(engine) => {
                Transaction::Postgres(Box::new(engine.begin(lane, name, access).await?))
            }
        };
        Ok(Conn { transaction, context: name.to_owned(), failed: None })
    }

    /// The word for the engine in logs and health answers.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Copies the whole database, as of one instant, to a file that must not exist yet.
    ///
    /// # Errors
    /// [`StoreError::Refused`] on PostgreSQL, which has its own tools, and when the file exists.
    pub async fn backup_to(&self, path: &Path) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(engine) => engine.backup_to(path).await,
            Self::Postgres(_) => Err(StoreError::Refused(
                "on PostgreSQL make backups with pg_dump or a base backup of the server".to_owned(),
            )),
        }
    }

    /// Ready once nothing of this engine keeps another process away from the database: on SQLite
    /// when its last connection is closed, on PostgreSQL at once.
    pub fn released(&self) -> impl Future<Output = ()> + Send + use<> {
        let held = match self {
            Self::Sqlite(engine) => Some(engine.released()),
            Self::Postgres(_) => None,
        };
        async move {
            if let Some(released) = held {
                released.await;
            }
        }
    }

    /// Closes every connection. On SQLite it returns when the file is free for another process.
    pub async fn close(self) {
        match self {
            Self::Sqlite(engine) => engine.close().await,
            Self::Postgres(engine) => engine.close(),
        }
    }
}

/// Checks that a file is a whole backup of a Keyward database and tells its schema version.
///
/// # Errors
/// [`StoreError::Refused`] with what is wrong with the file.
pub async fn verify_backup(path: &Path) -> Result<BackupReport, StoreError> {
    sqlite_backup::verify(path.to_owned()).await
}

/// A statement with its values, to be sent with others.
pub(crate) type Sent = (&'static Statement, Vec<Value>);

/// Which of the connections a transaction runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Common,
    /// Kept for leases.
    Reserved,
}

/// What a transaction is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// A write whose commit may be lost with the server's memory.
    Note,
}

/// One transaction on one connection.
pub struct Conn {
    transaction: Transaction,
    context: String,
    /// The statement after whose failure only a rollback is possible.
    failed: Option<&'static str>,
}

enum Transaction {
    Sqlite(SqliteTransaction),
    Postgres(Box<PostgresTransaction>),
}

impl Conn {
    /// Runs a statement and answers all its rows, at most [`MAX_ROWS`].
    ///
    /// # Errors
    /// Any but the start-up errors; the transaction can then only be rolled back.
    pub async fn query(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        self.admit(statement, values)?;
        self.failed = Some(statement.name());
        let rows = match &mut self.transaction {
            Transaction::Sqlite(transaction) => transaction.query(statement, values).await,
            Transaction::Postgres(transaction) => transaction.query(statement, values).await,
        }?;
        self.failed = None;
        Ok(rows)
    }

    /// Runs a statement that answers at most one row.
    ///
    /// # Errors
    /// As [`Conn::query`]; two rows are [`StoreError::Internal`].
    pub async fn query_opt(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Option<Row>, StoreError> {
        let mut rows = self.query(statement, values).await?;
        if rows.len() > 1 {
            self.failed = Some(statement.name());
            return Err(defect(statement, "answered more than one row"));
        }
        Ok(rows.pop())
    }

    /// Runs a statement that answers exactly one row.
    ///
    /// # Errors
    /// As [`Conn::query`]; another number of rows is [`StoreError::Internal`].
    pub async fn query_one(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Row, StoreError> {
        let row = self.query_opt(statement, values).await?;
        row.ok_or_else(|| {
            self.failed = Some(statement.name());
            defect(statement, "answered no row")
        })
    }

    /// Runs a statement that answers no rows and tells how many it changed.
    ///
    /// # Errors
    /// As [`Conn::query`].
    pub async fn execute(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        self.admit(statement, values)?;
        self.failed = Some(statement.name());
        let changed = match &mut self.transaction {
            Transaction::Sqlite(transaction) => transaction.execute(statement, values).await,
            Transaction::Postgres(transaction) => transaction.execute(statement, values).await,
        }?;
        self.failed = None;
        Ok(changed)
    }

    /// Runs statements one after the other and answers the rows of each. On PostgreSQL they are
    /// sent together: each of several round trips costs more than what it asks for.
    ///
    /// # Errors
    /// As [`Conn::query`]: that of the first statement that failed.
    pub(crate) async fn flight(&mut self, sent: Vec<Sent>) -> Result<Vec<Vec<Row>>, StoreError> {
        let mut answers = Vec::with_capacity(sent.len());
        for sent in sent.chunks(MAX_FLIGHT) {
            for (statement, values) in sent {
                self.admit(statement, values)?;
            }
            self.failed = sent.last().map(|(statement, _)| statement.name());
            answers.extend(match &mut self.transaction {
                Transaction::Sqlite(transaction) => transaction.flight(sent).await,
                Transaction::Postgres(transaction) => transaction.flight(sent).await,
            }?);
            self.failed = None;
        }
        Ok(answers)
    }

    /// Runs statements whose answers do not matter and commits, on PostgreSQL in one flight.
    ///
    /// # Errors
    /// As [`Conn::query`]; when the connection broke, nobody knows whether it was committed.
    pub(crate) async fn finish(mut self, sent: Vec<Sent>) -> Result<(), StoreError> {
        for (statement, values) in &sent {
            self.admit(statement, values)?;
        }
        match self.transaction {
            Transaction::Postgres(transaction) => transaction.finish(&sent).await,
            Transaction::Sqlite(_) => {
                self.flight(sent).await?;
                self.commit().await
            }
        }
    }

    /// Commits. When it returns, the change is seen by every later transaction, and, but for
    /// [`Engine::begin_note`] on PostgreSQL, on disk.
    ///
    /// # Errors
    /// [`StoreError::CommitUnknown`] when the connection broke on the way, else nothing was
    /// written.
    pub async fn commit(self) -> Result<(), StoreError> {
        if let Some(name) = self.failed {
            self.rollback().await?;
            let text = format!("rolled back instead of committed: statement `{name}` had failed");
            return Err(StoreError::Internal(text));
        }
        match self.transaction {
            Transaction::Sqlite(transaction) => transaction.commit().await,
            Transaction::Postgres(transaction) => transaction.commit().await,
        }
    }

    /// Takes everything back and waits until that is done.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the database takes the work back by itself then.
    pub async fn rollback(self) -> Result<(), StoreError> {
        match self.transaction {
            Transaction::Sqlite(transaction) => transaction.rollback().await,
            Transaction::Postgres(transaction) => transaction.rollback().await,
        }
    }

    /// Refuses a statement that does not fit the context. This is the guard that SQLite has and
    /// the second one that PostgreSQL has.
    fn admit(&self, statement: &'static Statement, values: &[Value]) -> Result<(), StoreError> {
        if let Some(name) = self.failed {
            let text = format!("the transaction is over: statement `{name}` had failed");
            return Err(StoreError::Internal(text));
        }
        if self.context == SYSTEM_CONTEXT {
            return Ok(());
        }
        let bound = || values.iter().any(|v| matches!(v, Value::Text(t) if *t == self.context));
        match statement.kind() {
            StatementKind::Shared => Ok(()),
            StatementKind::Tenant if bound() => Ok(()),
            StatementKind::Tenant => Err(defect(statement, "does not bind the tenant's id")),
            StatementKind::System => Err(defect(statement, "needs a system context")),
        }
    }
}

fn defect(statement: &'static Statement, problem: &str) -> StoreError {
    StoreError::Internal(format!("statement `{}` {problem}", statement.name()))
}
