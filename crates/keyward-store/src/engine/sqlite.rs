//! SQLite: one writer, several readers, one process per database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Object, Pool, PoolError, Timeouts};
use rusqlite::config::DbConfig;
use rusqlite::ffi;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, ToSql};

use super::data_dir::DataDirLock;
use super::row::{Field, RowBuilder};
use super::sqlite_thread::{ThreadManager, abandon};
use super::{
    Access, MAX_ROWS, Row, Sent, Statement, StoreConfig, StoreError, StoreLimits, Value, defect,
    sqlite_backup,
};

/// Notes the last use of many keys, given as a JSON array of objects.
pub(crate) const TOUCH_KEYS: &str = "UPDATE api_keys
     SET last_used_at = u.at, last_used_ip = u.ip, last_used_agent = u.agent
     FROM (SELECT value ->> 'tenant' AS tenant, value ->> 'key' AS key, value ->> 'at' AS at,
             value ->> 'ip' AS ip, value ->> 'agent' AS agent FROM json_each($1)) AS u
     WHERE api_keys.tenant_id = u.tenant AND api_keys.key_id = u.key
       AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at < u.at)";

/// Marks many keys as exposed, given as a JSON array of objects. The first time stays.
pub(crate) const EXPOSE_KEYS: &str = "UPDATE api_keys SET exposed_at = u.at, exposed_by = u.by
     FROM (SELECT value ->> 'tenant' AS tenant, value ->> 'key' AS key, value ->> 'at' AS at,
             value ->> 'by' AS by FROM json_each($1)) AS u
     WHERE api_keys.tenant_id = u.tenant AND api_keys.key_id = u.key
       AND api_keys.exposed_at IS NULL";

/// Appends what one change touched, given as a JSON array of `[position, kind, subject]`.
pub(crate) const APPEND_CHANGES: &str =
    "INSERT INTO changes (tenant_id, epoch, position, kind, subject, at)
     SELECT $1, authority.epoch, t.value ->> 0, t.value ->> 1, t.value ->> 2, $2
     FROM json_each($3) AS t, authority WHERE authority.singleton = 1";

// One process has the database and one of its transactions writes: nothing needs a lock, nobody
// must be told, and the engine has no history of its own.
pub(crate) const EXCLUDE_RENEWALS: &str = "SELECT 1";
pub(crate) const SHARE_CHANGES: &str = "SELECT 1";
pub(crate) const COMMIT_DURABLY: &str = "SELECT 1";
pub(crate) const HINT: &str = "SELECT 1";
pub(crate) const ADVANCE_EPOCH: &str =
    "UPDATE authority SET epoch = epoch + 1 WHERE singleton = 1 RETURNING epoch, incarnation";
pub(crate) const READ_HISTORY: &str =
    "SELECT epoch, incarnation, NULL, timeline FROM authority WHERE singleton = 1";

/// Prepared statements kept per connection.
const STATEMENT_CACHE: usize = 256;

/// The write-ahead log is cut back to this size after a checkpoint, in bytes.
const JOURNAL_SIZE_LIMIT: i64 = 64 << 20;

/// An open SQLite database.
pub struct SqliteEngine {
    writer: Pool<ThreadManager>,
    readers: Pool<ThreadManager>,
    path: PathBuf,
    limits: StoreLimits,
    lock: Arc<DataDirLock>,
}

/// What a connection may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Reader,
    Writer,
}

impl SqliteEngine {
    pub(super) async fn open(path: &str, config: &StoreConfig) -> Result<Self, StoreError> {
        if path.is_empty() || path.starts_with(':') || path.contains(['?', '\0']) {
            let text = "the store's address must be sqlite:PATH with the path of a file";
            return Err(StoreError::Refused(text.to_owned()));
        }
        let path = config.data_dir.join(path);
        let (file, migrations, now) = (path.clone(), config.migrations.clone(), config.now);
        let wait = config.limits.lock;
        let prepare = move || {
            let lock = DataDirLock::take(&file)?;
            sqlite_backup::migrate(&file, &migrations, now, wait)?;
            Ok(lock)
        };
        let lock = Arc::new(blocking(prepare).await?);
        let pool = |access, size| {
            let manager = ThreadManager {
                path: path.clone(),
                access,
                busy_timeout: config.limits.lock,
                lock: Arc::clone(&lock),
            };
            let wait = Some(config.limits.wait);
            let timeouts = Timeouts { wait, create: wait, recycle: None };
            Pool::builder(manager)
                .max_size(size)
                .timeouts(timeouts)
                .runtime(deadpool::Runtime::Tokio1)
                .build()
                .map_err(|error| StoreError::Internal(error.to_string()))
        };
        let writer = pool(Access::Write, 1)?;
        let readers = pool(Access::Read, config.limits.readers.max(1))?;
        Ok(Self { writer, readers, path, limits: config.limits, lock })
    }

    pub(super) async fn begin(&self, access: Access) -> Result<SqliteTransaction, StoreError> {
        let (pool, sql) = match access {
            Access::Read => (&self.readers, "BEGIN DEFERRED"),
            Access::Write | Access::Note => (&self.writer, "BEGIN IMMEDIATE"),
        };
        if pool.status().waiting >= self.limits.waiting {
            return Err(StoreError::Busy("too many callers wait for a connection".to_owned()));
        }
        let lease = pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => StoreError::Busy("no connection came free in time".to_owned()),
            other => StoreError::Unavailable(other.to_string()),
        })?;
        let mut transaction =
            SqliteTransaction { lease: Some(lease), running: false, limit: self.limits.statement };
        transaction
            .call(move |connection| {
                connection.execute_batch(sql).map_err(|error| classify("BEGIN", &error))
            })
            .await?;
        Ok(transaction)
    }

    pub(super) async fn backup_to(&self, path: &Path) -> Result<(), StoreError> {
        let (from, to, wait) = (self.path.clone(), path.to_owned(), self.limits.lock);
        blocking(move || sqlite_backup::copy(&from, &to, wait)).await
    }

    /// Ready once the file is free for another process, which it is not before this is dropped.
    pub(super) fn released(&self) -> impl Future<Output = ()> + Send + use<> {
        self.lock.released()
    }

    pub(super) async fn close(self) {
        let released = self.released();
        drop(self);
        released.await;
    }
}

/// Runs file work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Internal(format!("file work ended early: {error}")))?
}

/// One transaction on a lent connection.
pub(super) struct SqliteTransaction {
    /// Absent once the transaction has ended.
    lease: Option<Object<ThreadManager>>,
    /// A job is on the thread whose answer nobody has read yet.
    running: bool,
    limit: Duration,
}

impl SqliteTransaction {
    async fn call<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(lease) = &self.lease else {
            return Err(StoreError::Internal("the transaction has ended".to_owned()));
        };
        self.running = true;
        let answer = lease.call(self.limit, work).await;
        self.running = false;
        answer
    }

    pub(super) async fn query(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let values = values.to_vec();
        self.call(move |connection| rows(connection, statement, &values)).await
    }

    /// Runs statements one after the other in one visit to the connection's thread.
    pub(super) async fn flight(&mut self, sent: &[Sent]) -> Result<Vec<Vec<Row>>, StoreError> {
        let sent = sent.to_vec();
        self.call(move |connection| {
            sent.iter().map(|(statement, values)| rows(connection, statement, values)).collect()
        })
        .await
    }

    pub(super) async fn execute(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        let values = values.to_vec();
        self.call(move |connection| {
            let mut prepared = prepare(connection, statement, &values)?;
            let changed = prepared.raw_execute();
            changed.map(|count| count as u64).map_err(|error| classify(statement.name(), &error))
        })
        .await
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.call(|connection| {
            let committed = connection.execute_batch("COMMIT");
            committed.map_err(|error| classify("COMMIT", &error))
        })
        .await?;
        self.lease = None;
        Ok(())
    }

    pub(super) async fn rollback(mut self) -> Result<(), StoreError> {
        self.call(|connection| {
            take_back(connection);
            Ok(())
        })
        .await?;
        self.lease = None;
        Ok(())
    }
}

impl Drop for SqliteTransaction {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            if self.running {
                lease.interrupt();
            }
            abandon(lease);
        }
    }
}

/// Rolls back whatever is open.
pub(super) fn take_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a rollback failed");
    }
}

/// Opens a connection with the settings the store relies on.
pub(super) fn connect(
    path: &Path,
    role: Role,
    busy_timeout: Duration,
) -> Result<Connection, StoreError> {
    let configure = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(busy_timeout)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        if role == Role::Writer {
            connection.pragma_update(None, "journal_mode", "wal")?;
        }
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.pragma_update(None, "journal_size_limit", JOURNAL_SIZE_LIMIT)?;
        connection.pragma_update(None, "query_only", role == Role::Reader)?;
        Ok(connection)
    };
    configure().map_err(|error| classify("open", &error))
}

/// Prepares a statement and binds its values by the number in their name: SQLite itself numbers
/// `$2 … $1` in order of appearance.
fn prepare<'c>(
    connection: &'c Connection,
    statement: &'static Statement,
    values: &[Value],
) -> Result<CachedStatement<'c>, StoreError> {
    let failed = |error: rusqlite::Error| classify(statement.name(), &error);
    let mut prepared = connection.prepare_cached(statement.sqlite()).map_err(failed)?;
    let count = prepared.parameter_count();
    if count != values.len() {
        let text = format!("binds {count} values and was given {}", values.len());
        return Err(defect(statement, &text));
    }
    for index in 1..=count {
        let number = prepared.parameter_name(index).and_then(|name| name.strip_prefix('$'));
        let value = number
            .and_then(|number| number.parse::<usize>().ok()?.checked_sub(1))
            .and_then(|place| values.get(place))
            .ok_or_else(|| defect(statement, "does not number its parameters $1, $2, …"))?;
        prepared.raw_bind_parameter(index, value).map_err(failed)?;
    }
    Ok(prepared)
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

fn rows(
    connection: &Connection,
    statement: &'static Statement,
    values: &[Value],
) -> Result<Vec<Row>, StoreError> {
    let failed = |error: rusqlite::Error| classify(statement.name(), &error);
    let mut prepared = prepare(connection, statement, values)?;
    let columns = prepared.column_count();
    let mut found = prepared.raw_query();
    let (mut answer, mut builder) = (Vec::new(), RowBuilder::new(statement));
    while let Some(row) = found.next().map_err(failed)? {
        if answer.len() == MAX_ROWS {
            return Err(defect(statement, "answers too many rows; it needs a LIMIT"));
        }
        for column in 0..columns {
            let corrupt = |problem: &str| StoreError::Corrupt {
                statement: statement.name(),
                column,
                problem: problem.to_owned(),
            };
            builder.push(match row.get_ref(column).map_err(failed)? {
                ValueRef::Null => Field::Null,
                ValueRef::Integer(value) => Field::Int(value),
                ValueRef::Real(_) => return Err(corrupt("found a floating-point number")),
                ValueRef::Text(value) => {
                    Field::Text(str::from_utf8(value).map_err(|_| corrupt("found text not UTF-8"))?)
                }
                ValueRef::Blob(value) => Field::Blob(value),
            });
        }
        answer.push(builder.row());
    }
    Ok(answer)
}

/// Puts an error of SQLite into the store's words.
pub(super) fn classify(statement: &'static str, error: &rusqlite::Error) -> StoreError {
    let text = format!("statement `{statement}`: {error}");
    let Some(code) = error.sqlite_error() else {
        return StoreError::Internal(text);
    };
    match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy(text),
        ErrorCode::OperationInterrupted => StoreError::Timeout { statement },
        ErrorCode::DiskFull => StoreError::StorageFull(text),
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure => {
            StoreError::Unavailable(text)
        }
        ErrorCode::ConstraintViolation => violation(code.extended_code, &error.to_string()),
        _ => StoreError::Internal(text),
    }
}

fn violation(extended: i32, text: &str) -> StoreError {
    let detail = text.split_once("failed: ").map_or(text, |(_, detail)| detail);
    match extended {
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => StoreError::ForeignKeyViolation,
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            let table = detail.split('.').next().unwrap_or_default();
            StoreError::UniqueViolation { constraint: format!("{table}_pkey") }
        }
        ffi::SQLITE_CONSTRAINT_UNIQUE => {
            StoreError::UniqueViolation { constraint: unique_name(detail) }
        }
        _ => StoreError::RuleViolation(detail.to_owned()),
    }
}

/// `t.a, t.b` becomes `t_a_b_key`, the name PostgreSQL gives such a constraint; an index on an
/// expression is reported by name already.
fn unique_name(detail: &str) -> String {
    if let Some(index) = detail.strip_prefix("index '") {
        return index.trim_end_matches('\'').to_owned();
    }
    let mut name = detail.split('.').next().unwrap_or_default().to_owned();
    for (_, column) in detail.split(", ").filter_map(|column| column.split_once('.')) {
        name.push('_');
        name.push_str(column);
    }
    name + "_key"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(connection: &Connection, sql: &str) -> StoreError {
        classify("probe", &connection.execute_batch(sql).unwrap_err())
    }

    #[test]
    fn classifies_what_sqlite_answers() {
        let connection = Connection::open_in_memory().unwrap();
        let schema = "PRAGMA foreign_keys = on;
            CREATE TABLE t (a TEXT, b TEXT NOT NULL, c BLOB, PRIMARY KEY (a, b), UNIQUE (b, c));
            CREATE TABLE u (t_a TEXT, t_b TEXT, FOREIGN KEY (t_a, t_b) REFERENCES t (a, b));
            INSERT INTO t VALUES ('1', '2', '3');";
        connection.execute_batch(schema).unwrap();
        let unique = |sql: &str| match error_of(&connection, sql) {
            StoreError::UniqueViolation { constraint } => constraint,
            other => panic!("{other}"),
        };
        assert_eq!(unique("INSERT INTO t VALUES ('1', '2', '4')"), "t_pkey");
        assert_eq!(unique("INSERT INTO t VALUES ('9', '2', '3')"), "t_b_c_key");
        assert!(matches!(
            error_of(&connection, "INSERT INTO t VALUES ('9', NULL, '3')"),
            StoreError::RuleViolation(text) if text == "t.b"
        ));
        assert!(matches!(
            error_of(&connection, "INSERT INTO u VALUES ('no', 'such')"),
            StoreError::ForeignKeyViolation
        ));
        connection.execute_batch("PRAGMA max_page_count = 8").unwrap();
        assert!(matches!(
            error_of(&connection, "INSERT INTO t VALUES ('9', '9', zeroblob(100000))"),
            StoreError::StorageFull(_)
        ));
    }
}
