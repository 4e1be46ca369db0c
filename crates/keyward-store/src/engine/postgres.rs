//! PostgreSQL: pooled transactions under a signed tenant context.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Pool, PoolError, TimeoutType, Timeouts};
use keyward_core::Clock;
use tokio_postgres::error::SqlState;

use super::config::{Listen, Pooler};
use super::hints::Hints;
use super::postgres_session::{Address, SessionManager, Signer};
use super::postgres_transaction::PostgresTransaction;
use super::{
    Access, Lane, Statement, StoreConfig, StoreError, StoreLimits, postgres_admission,
    postgres_listen, postgres_schema,
};

/// Notes the last use of many keys, given as a JSON array of objects.
pub(crate) const TOUCH_KEYS: &str = "UPDATE api_keys
     SET last_used_at = u.at, last_used_ip = u.ip, last_used_agent = u.agent
     FROM jsonb_to_recordset(CAST(CAST($1 AS TEXT) AS JSONB))
       AS u(tenant TEXT, key TEXT, at BIGINT, ip TEXT, agent TEXT)
     WHERE api_keys.tenant_id = u.tenant AND api_keys.key_id = u.key
       AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at < u.at)";
/// The lock between renewals and changes: "Keyw", and the second of its locks. A holder that falls
/// silent is cut off well within a lease, else it would keep every node from renewing.
pub(crate) const EXCLUDE_RENEWALS: &str =
    "SELECT CAST(pg_catalog.pg_advisory_xact_lock(1264941431, 2) AS TEXT),
       pg_catalog.set_config('idle_in_transaction_session_timeout', '500', true),
       pg_catalog.set_config('statement_timeout', '500', true)";
pub(crate) const SHARE_CHANGES: &str = "SELECT pg_catalog.set_config('lock_timeout', '750', true),
       pg_catalog.set_config('idle_in_transaction_session_timeout', '500', true),
       CAST(pg_catalog.pg_advisory_xact_lock_shared(1264941431, 2) AS TEXT)";
pub(crate) const COMMIT_DURABLY: &str =
    "SELECT pg_catalog.set_config('synchronous_commit', 'local', true)";
/// Any role of the database may listen, so the number is all that is told.
pub(crate) const HINT: &str =
    "SELECT CAST(pg_catalog.pg_notify('keyward_changes', CAST(epoch AS TEXT)) AS TEXT)
     FROM authority WHERE singleton = 1";

/// The first eight digits of a log file's name are the server's timeline. A standby has no log
/// position to write at and answers an error: it must not be asked.
macro_rules! timeline {
    () => {
        "CAST(CAST(('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(
           pg_catalog.pg_current_wal_lsn()), 1, 8)) AS BIT(32)) AS BIGINT)"
    };
}

pub(crate) const READ_HISTORY: &str = concat!(
    "SELECT epoch, incarnation, ",
    timeline!(),
    ", timeline FROM authority WHERE singleton = 1"
);
/// No change is numbered on a promoted standby before its history is entered: the nodes on its
/// register need not be those that decide.
pub(crate) const ADVANCE_EPOCH: &str = concat!(
    "UPDATE authority SET epoch = epoch + 1
     WHERE singleton = 1 AND (timeline IS NULL OR timeline = ",
    timeline!(),
    ") RETURNING epoch, incarnation"
);
/// Marks many keys as exposed, given as a JSON array of objects. The first time stays.
pub(crate) const EXPOSE_KEYS: &str = "UPDATE api_keys SET exposed_at = u.at, exposed_by = u.by
     FROM jsonb_to_recordset(CAST(CAST($1 AS TEXT) AS JSONB))
       AS u(tenant TEXT, key TEXT, at BIGINT, by TEXT)
     WHERE api_keys.tenant_id = u.tenant AND api_keys.key_id = u.key
       AND api_keys.exposed_at IS NULL";

/// Appends what one change touched, given as a JSON array of `[position, kind, subject]`.
pub(crate) const APPEND_CHANGES: &str = concat!(
    "INSERT INTO changes (tenant_id, epoch, position, kind, subject, at)
     SELECT CAST($1 AS TEXT), a.epoch, CAST(t.value ->> 0 AS BIGINT),
       t.value ->> 1, t.value ->> 2, CAST($2 AS BIGINT)
     FROM authority AS a, jsonb_array_elements(CAST(CAST($3 AS TEXT) AS JSONB)) AS t(value)
     WHERE a.singleton = 1 AND (a.timeline IS NULL OR a.timeline = ",
    timeline!(),
    ")"
);

/// Connections of a node beside those for everybody: one asks what changed, one acknowledges, one
/// reads the register, and two read single facts.
const RESERVED_CONNECTIONS: usize = 5;
/// The longest wait for one of them; a lease is longer.
const RESERVED_WAIT: Duration = Duration::from_secs(1);

/// An open PostgreSQL database.
pub struct PostgresEngine {
    pool: Pool<SessionManager>,
    /// Kept for what leases depend on.
    reserved: Pool<SessionManager>,
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
        Box::pin(admit(&address, config)).await?;
        let manager = |lane| SessionManager::new(&address, config.pooler, lane);
        let pool = pool_of(&manager(Lane::Common), limits.connections.max(1), limits.wait)?;
        let reserved = pool_of(&manager(Lane::Reserved), RESERVED_CONNECTIONS, RESERVED_WAIT)?;
        let signer = Signer::new(&config.context_key);
        let engine = Self { pool, reserved, address, signer, limits, listens_at };
        engine.require_key().await?;
        Ok(engine)
    }

    /// Checks that the database accepts contexts signed with our key.
    async fn require_key(&self) -> Result<(), StoreError> {
        static PROBE: Statement =
            Statement::system("context_probe", "SELECT keyward.current_tenant()");
        let mut transaction = self.begin(Lane::Common, super::SYSTEM_CONTEXT, Access::Read).await?;
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
        lane: Lane,
        context: &str,
        access: Access,
    ) -> Result<PostgresTransaction, StoreError> {
        let pool = match lane {
            Lane::Common => &self.pool,
            Lane::Reserved => &self.reserved,
        };
        if pool.status().waiting >= self.limits.waiting {
            return Err(StoreError::Busy("too many callers wait for a connection".to_owned()));
        }
        let session = pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => {
                StoreError::Busy("no connection came free in time".to_owned())
            }
            other => StoreError::Unavailable(other.to_string()),
        })?;
        let address = self.address.clone();
        let transaction = PostgresTransaction::new(session, address, lane, access, self.limits);
        transaction.begin(&self.signer, context).await
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
        self.reserved.close();
    }
}

fn pool_of(
    manager: &SessionManager,
    size: usize,
    wait: Duration,
) -> Result<Pool<SessionManager>, StoreError> {
    let wait = Some(wait);
    Pool::builder(manager.clone())
        .max_size(size)
        .timeouts(Timeouts { wait, create: wait, recycle: wait })
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::Internal(error.to_string()))
}

/// Checks the schema and the role, in one transaction: a pooler may lend another connection for
/// what comes after it.
async fn admit(address: &Address, config: &StoreConfig) -> Result<(), StoreError> {
    let looked = async {
        let failed = |error| classify("admission", &error);
        let (client, _) = address.connect().await?;
        client.batch_execute("BEGIN READ ONLY").await.map_err(failed)?;
        if config.migrate_url.is_none() {
            postgres_schema::require_current(&client, config).await?;
        }
        postgres_admission::check(&client, config).await?;
        client.batch_execute("ROLLBACK").await.map_err(failed)
    };
    within(config.limits.wait + config.limits.answer(), "admission", looked).await
}

/// Hints do not come through a pooler that lends connections by the transaction.
fn listens_at(config: &StoreConfig, store: &Address) -> Result<Option<Address>, StoreError> {
    match (&config.listen, config.pooler) {
        (Listen::Apart(url), _) => match Address::parse(url, &config.limits) {
            Err(StoreError::Refused(text)) => {
                Err(StoreError::Refused(format!("the address to listen at: {text}")))
            }
            parsed => parsed.map(Some),
        },
        (Listen::WithStore, Pooler::None) => Ok(Some(store.clone())),
        (Listen::WithStore, Pooler::Transaction) => {
            tracing::info!("no hints come through the pooler: set store.listen-url-file");
            Ok(None)
        }
        (Listen::Off, _) => Ok(None),
    }
}

/// Waits for the server no longer than the limit, whatever has become of the connection.
pub(super) async fn within<T>(
    limit: Duration,
    statement: &'static str,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(silent(statement)))
}

/// The error of a server that has not answered in time.
pub(super) fn silent(statement: &'static str) -> StoreError {
    StoreError::Unavailable(format!("statement `{statement}`: no answer came in time"))
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
        ("08" | "57", _) | (_, &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT) => {
            StoreError::Unavailable(text)
        }
        (_, &SqlState::INSUFFICIENT_PRIVILEGE) | ("28" | "3D", _) => StoreError::Refused(text),
        _ => StoreError::Internal(text),
    }
}
