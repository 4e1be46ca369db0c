//! The store: an engine, a clock, and what runs after a commit.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use keyward_core::Clock;
use keyward_core::audit::OPERATOR_CHAIN;
use keyward_core::id::TenantId;
use keyward_core::lease::{Fenced, Reach};

use crate::engine::{Access, Context, Engine, Hints, StoreConfig, StoreError};
use crate::tx::{SystemTx, TenantTx};
use crate::write::{Author, WriteTx};

/// Runs after a commit that touched authority and before the answer, and tells how far the change
/// has reached. It may not fail: a node that cannot take a change in stops deciding.
pub type CommitHook =
    Arc<dyn Fn(Fenced) -> Pin<Box<dyn Future<Output = Reach> + Send>> + Send + Sync>;

/// Whose audit chain a system write is entered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// The tenant's.
    Tenant(TenantId),
    /// The deployment's own.
    Operator,
}

impl Chain {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tenant(tenant) => tenant.to_string(),
            Self::Operator => OPERATOR_CHAIN.to_owned(),
        }
    }
}

/// Everything that outlives a request. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    hook: Arc<OnceLock<CommitHook>>,
}

impl Store {
    /// Opens the database and migrates it; a SQLite file is taken for this process.
    pub async fn open(config: &StoreConfig, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let engine = Arc::new(Engine::open(config).await?);
        Ok(Self { engine, clock, hook: Arc::new(OnceLock::new()) })
    }

    /// Ready once another process may have the database: on SQLite when every clone of this is
    /// dropped and the last connection closed, on PostgreSQL at once.
    pub fn released(&self) -> impl Future<Output = ()> + Send + use<> {
        self.engine.released()
    }

    /// Sets what runs after a commit that touched authority; only the first call counts.
    pub fn on_commit(&self, hook: CommitHook) {
        // a second hook would mean two nodes in one process; the first keeps its promise
        let _ = self.hook.set(hook);
    }

    /// The clock of the store.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Reads the rows of one tenant.
    pub async fn read(&self, tenant: TenantId) -> Result<TenantTx, StoreError> {
        let name = tenant.to_string();
        let conn = self.engine.begin_read(Context::Tenant(&name)).await?;
        Ok(TenantTx::new(conn, tenant, name))
    }

    /// Reads over tenants; the reason goes to the log.
    pub async fn read_system(&self, reason: &'static str) -> Result<SystemTx, StoreError> {
        Ok(SystemTx::new(self.engine.begin_read(Context::System { reason }).await?))
    }

    /// Begins the one kind of change there is, on one tenant.
    pub async fn write(
        &self,
        tenant: TenantId,
        author: Author,
    ) -> Result<WriteTx<TenantTx>, StoreError> {
        let name = tenant.to_string();
        let conn = self.engine.begin_write(Context::Tenant(&name)).await?;
        let tx = TenantTx::new(conn, tenant, name.clone());
        WriteTx::begin(tx, self, author, name).await
    }

    /// Begins a change that needs rows of no tenant or of several; the reason goes to the log.
    pub async fn write_system(
        &self,
        reason: &'static str,
        chain: Chain,
        author: Author,
    ) -> Result<WriteTx<SystemTx>, StoreError> {
        let tx = SystemTx::new(self.engine.begin_write(Context::System { reason }).await?);
        WriteTx::begin(tx, self, author, chain.name()).await
    }

    /// Begins a write that changes nothing anybody decides with, such as a last-used instant.
    pub(crate) async fn begin_housekeeping(
        &self,
        reason: &'static str,
    ) -> Result<SystemTx, StoreError> {
        Ok(SystemTx::new(self.engine.begin_note(Context::System { reason }).await?))
    }

    /// Begins to read what nodes follow the authority by, on connections kept for that: however
    /// busy the others are, leases are renewed.
    pub(crate) async fn read_authority(
        &self,
        reason: &'static str,
    ) -> Result<SystemTx, StoreError> {
        Ok(SystemTx::new(
            self.engine.begin_reserved(Context::System { reason }, Access::Read).await?,
        ))
    }

    /// As [`Store::read_authority`], for a write whose loss changes nothing.
    pub(crate) async fn note_authority(
        &self,
        reason: &'static str,
    ) -> Result<SystemTx, StoreError> {
        Ok(SystemTx::new(
            self.engine.begin_reserved(Context::System { reason }, Access::Note).await?,
        ))
    }

    /// As [`Store::read_authority`], for a write that must be on disk.
    pub(crate) async fn write_authority(
        &self,
        reason: &'static str,
    ) -> Result<SystemTx, StoreError> {
        let context = Context::System { reason };
        Ok(SystemTx::new(self.engine.begin_reserved(context, Access::Write).await?))
    }

    /// The word for the engine in logs and health answers.
    pub fn engine_name(&self) -> &'static str {
        self.engine.name()
    }

    /// Hears of changes that other nodes have committed; see [`Hints`].
    pub fn hints(&self) -> Hints {
        self.engine.listen(Arc::clone(&self.clock))
    }

    /// The engine, when nobody else holds the store.
    pub(crate) fn into_engine(self) -> Option<Engine> {
        Arc::into_inner(self.engine)
    }

    pub(crate) fn hook(&self) -> Option<CommitHook> {
        self.hook.get().cloned()
    }
}
