//! PostgreSQL: pooled transactions under a signed tenant context.

use std::error::Error as _;
use std::sync::Arc;

use bytes::BytesMut;
use deadpool::managed::{Object, Pool, PoolError, Timeouts};
use futures_util::{FutureExt as _, TryStreamExt as _};
use keyward_core::Clock;
use tokio_postgres::RowStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type};

use super::config::{Listen, Pooler};
use super::hints::Hints;
use super::postgres_session::{Address, Session, SessionManager, Signer};
use super::{
    Access, MAX_ROWS, Row, Statement, StoreConfig, StoreError, StoreLimits, Value, defect,
    postgres_admission, postgres_listen, postgres_schema,
};

/// Notes the last use of many keys, given as a JSON array of objects.
pub(crate) const TOUCH_KEYS: &str = "UPDATE api_keys
     SET last_used_at = u.at, last_used_ip = u.ip, last_used_agent = u.agent
     FROM jsonb_to_recordset(CAST(CAST($1 AS TEXT) AS JSONB))
       AS u(tenant TEXT, key TEXT, at BIGINT, ip TEXT, agent TEXT)
     WHERE api_keys.tenant_id = u.tenant AND api_keys.key_id = u.key
       AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at < u.at)";

/// An open PostgreSQL database.
pub struct PostgresEngine {
    pool: Pool<SessionManager>,
    address: Address,
    signer: Signer,
    limits: StoreLimits,
    /// Where hints are heard; absent when they are not wanted or cannot come through.
    listens_at: Option<Address>,
}

impl PostgresEngine {
    pub(super) async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let limits = config.limits;
        let address = Address::parse(&config.url, &limits)?;
        let listens_at = listens_at(config, &address)?;
        if let Some(url) = &config.migrate_url {
            let owner = Address::parse(url, &limits)?;
            postgres_schema::migrate(&owner, address.role(), config).await?;
        }
        let (client, _) = address.connect().await?;
        if config.migrate_url.is_none() {
            postgres_schema::require_current(&client, &config.migrations).await?;
        }
        postgres_admission::check(&client, address.role()).await?;
        let wait = Some(limits.wait);
        let pool = Pool::builder(SessionManager { address: address.clone() })
            .max_size(limits.connections.max(1))
            .timeouts(Timeouts { wait, create: wait, recycle: wait })
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Internal(error.to_string()))?;
        let signer = Signer::new(&config.context_key);
        let engine = Self { pool, address, signer, limits, listens_at };
        engine.require_key().await?;
        Ok(engine)
    }

    /// Checks that the database accepts contexts signed with our key.
    async fn require_key(&self) -> Result<(), StoreError> {
        static PROBE: Statement =
            Statement::system("context_probe", "SELECT keyward.current_tenant()");
        let mut transaction = self.begin(super::SYSTEM_CONTEXT, Access::Read).await?;
        match transaction.query(&PROBE, &[]).await {
            Err(StoreError::Refused(_)) => Err(StoreError::Refused(
                "the database holds another context key: give the owner's address as the store's \
                 migrate_url once, so that this deployment's key is installed"
                    .to_owned(),
            )),
            Err(error) => Err(error),
            Ok(_) => transaction.rollback().await,
        }
    }

    pub(super) async fn begin(
        &self,
        context: &str,
        access: Access,
    ) -> Result<PostgresTransaction, StoreError> {
        if self.pool.status().waiting >= self.limits.waiting {
            return Err(StoreError::Busy("too many callers wait for a connection".to_owned()));
        }
        let session = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => StoreError::Busy("no connection came free in time".to_owned()),
            other => StoreError::Unavailable(other.to_string()),
        })?;
        let address = self.address.clone();
        let mut transaction =
            PostgresTransaction { session: Some(session), running: true, address, access };
        let session = transaction.session()?;
        session.begin(&self.signer, context, access, &self.limits).await?;
        transaction.running = false;
        Ok(transaction)
    }

    /// Hears the hints of other nodes, when they can be heard.
    pub(super) fn listen(&self, clock: Arc<dyn Clock>) -> Hints {
        match &self.listens_at {
            Some(address) => postgres_listen::start(address.clone(), self.limits, clock),
            None => Hints::silent(),
        }
    }

    pub(super) fn close(self) {
        self.pool.close();
    }
}

/// Hints do not come through a pooler that lends connections by the transaction.
fn listens_at(config: &StoreConfig, store: &Address) -> Result<Option<Address>, StoreError> {
    match (&config.listen, config.pooler) {
        (Listen::Apart(url), _) => Address::parse(url, &config.limits).map(Some),
        (Listen::WithStore, Pooler::None) => Ok(Some(store.clone())),
        (Listen::WithStore, Pooler::Transaction) | (Listen::Off, _) => Ok(None),
    }
}

/// One transaction on a lent connection.
pub(super) struct PostgresTransaction {
    /// Absent once the transaction has ended.
    session: Option<Object<SessionManager>>,
    /// A request is on the wire whose answer nobody has read to its end.
    running: bool,
    address: Address,
    access: Access,
}

impl PostgresTransaction {
    fn session(&mut self) -> Result<&mut Session, StoreError> {
        let ended = || StoreError::Internal("the transaction has ended".to_owned());
        self.session.as_deref_mut().ok_or_else(ended)
    }

    pub(super) async fn query(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        self.running = true;
        let answer = self.rows(statement, values).await;
        self.running = !is_answered(&answer);
        answer
    }

    async fn rows(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let failed = |error| classify(statement.name(), &error);
        let mut found = std::pin::pin!(self.run(statement, values).await?);
        let mut rows = Vec::new();
        while let Some(row) = found.try_next().await.map_err(failed)? {
            if rows.len() == MAX_ROWS {
                return Err(defect(statement, "answers too many rows; it needs a LIMIT"));
            }
            rows.push(read(statement, &row)?);
        }
        Ok(rows)
    }

    pub(super) async fn execute(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        self.running = true;
        let answer = self.changed(statement, values).await;
        self.running = !is_answered(&answer);
        answer
    }

    async fn changed(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        let failed = |error| classify(statement.name(), &error);
        let mut found = std::pin::pin!(self.run(statement, values).await?);
        if found.try_next().await.map_err(failed)?.is_some() {
            return Err(defect(statement, "answers rows where none are read"));
        }
        Ok(found.rows_affected().unwrap_or_default())
    }

    async fn run(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<RowStream, StoreError> {
        let session = self.session()?;
        let prepared = session.prepare(statement.name(), statement.postgres()).await?;
        let count = prepared.params().len();
        if count != values.len() {
            let text = format!("binds {count} values and was given {}", values.len());
            return Err(defect(statement, &text));
        }
        let found = session.client.query_raw(&prepared, values).await;
        found.map_err(|error| classify(statement.name(), &error))
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        let access = self.access;
        self.running = true;
        self.session()?.client.batch_execute("COMMIT").await.map_err(|error| {
            let error = classify("COMMIT", &error);
            match error {
                StoreError::Unavailable(text) if access != Access::Read => {
                    StoreError::CommitUnknown(text)
                }
                other => other,
            }
        })?;
        self.session = None;
        Ok(())
    }

    pub(super) async fn rollback(mut self) -> Result<(), StoreError> {
        self.running = true;
        let rolled_back = self.session()?.client.batch_execute("ROLLBACK").await;
        rolled_back.map_err(|error| classify("ROLLBACK", &error))?;
        self.session = None;
        Ok(())
    }
}

impl Drop for PostgresTransaction {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if self.running {
            // Its state is unknown: the connection is given up, and the server takes the work
            // back when it ends.
            self.address.cancel(&session.client);
            drop(Object::take(session));
            return;
        }
        // One poll queues the message; whoever gets the connection next is queued behind it.
        let _ = session.client.batch_execute("ROLLBACK").now_or_never();
    }
}

/// Whether the server has said its last word on a request, so that the connection is good for the
/// next one. After the other errors rows may still be on the way, or nothing at all.
fn is_answered<T>(answer: &Result<T, StoreError>) -> bool {
    !matches!(
        answer,
        Err(StoreError::Unavailable(_) | StoreError::Internal(_) | StoreError::Corrupt { .. })
    )
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) if *ty == Type::INT4 => i32::try_from(*value)?.to_sql(ty, out),
            Self::Int(value) if *ty == Type::INT8 => value.to_sql(ty, out),
            Self::Text(value) if <&str as ToSql>::accepts(ty) => value.to_sql(ty, out),
            Self::Blob(value) if *ty == Type::BYTEA => value.to_sql(ty, out),
            _ => Err(format!("the value does not fit a parameter of type {ty}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

fn read(statement: &'static Statement, row: &tokio_postgres::Row) -> Result<Row, StoreError> {
    let mut values = Vec::with_capacity(row.len());
    for (column, described) in row.columns().iter().enumerate() {
        let ty = described.type_();
        let value = if *ty == Type::INT8 {
            row.try_get::<_, Option<i64>>(column).map(Value::from)
        } else if *ty == Type::INT4 {
            row.try_get::<_, Option<i32>>(column).map(Value::from)
        } else if *ty == Type::BOOL {
            row.try_get::<_, Option<bool>>(column).map(Value::from)
        } else if *ty == Type::BYTEA {
            row.try_get::<_, Option<Vec<u8>>>(column).map(Value::from)
        } else if [Type::TEXT, Type::VARCHAR, Type::NAME, Type::UNKNOWN].contains(ty) {
            row.try_get::<_, Option<String>>(column).map(Value::from)
        } else {
            let problem = format!("its type is {ty}: cast it to BIGINT, TEXT or BYTEA");
            return Err(StoreError::Corrupt { statement: statement.name(), column, problem });
        };
        values.push(value.map_err(|error| classify(statement.name(), &error))?);
    }
    Ok(Row::new(statement, values))
}

/// Puts an error of the driver into the store's words. The server's detail line stays out: it
/// may hold values of rows.
pub(super) fn classify(statement: &'static str, error: &tokio_postgres::Error) -> StoreError {
    let Some(answer) = error.as_db_error() else {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let text = format!("statement `{statement}`: {error}{cause}");
        let io = error.source().map(<dyn std::error::Error>::is::<std::io::Error>);
        let on_the_way = error.is_closed() || io.unwrap_or(true);
        return if on_the_way { StoreError::Unavailable(text) } else { StoreError::Internal(text) };
    };
    let code = answer.code();
    let class = code.code().get(..2).unwrap_or_default();
    // Class 22 quotes the value that was wrong.
    let message = if class == "22" { "a value was refused" } else { answer.message() };
    let text = format!("statement `{statement}`: {message} ({})", code.code());
    let constraint = || answer.constraint().unwrap_or_default().to_owned();
    match (class, code) {
        (_, &SqlState::UNIQUE_VIOLATION) => {
            StoreError::UniqueViolation { constraint: constraint() }
        }
        (_, &SqlState::FOREIGN_KEY_VIOLATION) => StoreError::ForeignKeyViolation,
        (_, &SqlState::NOT_NULL_VIOLATION) => {
            let column = answer.column().unwrap_or_default();
            StoreError::RuleViolation(format!("{}.{column}", answer.table().unwrap_or_default()))
        }
        (_, &SqlState::CHECK_VIOLATION) => StoreError::RuleViolation(constraint()),
        (_, &SqlState::QUERY_CANCELED) => StoreError::Timeout { statement },
        (_, &(SqlState::LOCK_NOT_AVAILABLE | SqlState::TOO_MANY_CONNECTIONS)) => {
            StoreError::Busy(text)
        }
        (_, &SqlState::DISK_FULL) => StoreError::StorageFull(text),
        ("40", _) => StoreError::Conflict(text),
        ("08" | "57", _) => StoreError::Unavailable(text),
        (_, &SqlState::INSUFFICIENT_PRIVILEGE) | ("28" | "3D", _) => StoreError::Refused(text),
        _ => StoreError::Internal(text),
    }
}
