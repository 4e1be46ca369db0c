//! The one way to change anything: rows, audit event, epoch and idempotency record commit together.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use keyward_core::Timestamp;
use keyward_core::audit::{Actor, AuditEntry, Origin};
use keyward_core::authority::Invalidation;

use crate::engine::{Conn, StoreError};
use crate::sql::audit::{self, Head};
use crate::sql::changes;
use crate::sql::idempotency::{self, Claim, Idempotency};
use crate::store::Store;
use crate::tx::Transaction;

/// Who makes a change, and from where.
#[derive(Clone, Debug)]
pub struct Author {
    /// Whom the audit trail names.
    pub actor: Actor,
    /// Where the request came from.
    pub origin: Origin,
}

/// What a change did: its answer, its one audit event and what it touched in the authority to call.
pub struct Change<V> {
    value: V,
    audit: AuditEntry,
    invalidations: Vec<Invalidation>,
    replay: Option<String>,
}

impl<V> Change<V> {
    /// A change with its answer and its audit event.
    pub const fn new(value: V, audit: AuditEntry) -> Self {
        Self { value, audit, invalidations: Vec::new(), replay: None }
    }

    /// Names what every node must read again before the change is answered.
    #[must_use]
    pub fn invalidating(mut self, touched: impl IntoIterator<Item = Invalidation>) -> Self {
        self.invalidations.extend(touched);
        self
    }

    /// The body to answer when the same idempotency key comes again. Never a secret.
    #[must_use]
    pub fn replayed_as(mut self, body: String) -> Self {
        self.replay = Some(body);
        self
    }
}

/// A change that is on disk and in the memory of this node.
pub struct Committed<V> {
    /// The answer.
    pub value: V,
    /// The number of the change in the authority to call; 0 when it touched none.
    pub epoch: i64,
    /// When it was committed and taken in.
    pub effective_at: Timestamp,
    /// Milliseconds between the commit and this node having taken it in.
    pub waited_ms: i64,
}

/// A transaction that may write. Dropped without [`WriteTx::finish`] it leaves nothing behind.
pub struct WriteTx<T> {
    tx: T,
    store: Store,
    author: Author,
    /// The chain the change is entered in, and its newest event once it is taken.
    chain: (String, Option<Head>),
    at: Timestamp,
    /// With the chain it was taken in, which `enter_in` does not move.
    claimed: Option<(String, Idempotency)>,
}

impl<T> Deref for WriteTx<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.tx
    }
}

impl<T> DerefMut for WriteTx<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.tx
    }
}

impl<T: Transaction> WriteTx<T> {
    /// Begins a change by taking its chain. The writers of one chain thereby come one after the
    /// other from their first look at a row on: nothing that is read can change before it is
    /// written, on any engine.
    pub(crate) async fn begin(
        mut tx: T,
        store: &Store,
        author: Author,
        chain: String,
    ) -> Result<Self, StoreError> {
        let head = audit::take_head(tx.conn(), &chain).await?;
        let at = store.clock().now();
        Ok(Self { tx, store: store.clone(), author, chain: (chain, Some(head)), at, claimed: None })
    }

    /// The instant of this change.
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// Enters the change in the chain of another tenant than the one it began with (a tenant that
    /// the change itself makes).
    pub fn enter_in(&mut self, chain: crate::Chain) {
        self.chain = (chain.name(), None);
    }

    /// Takes an idempotency key for this change, or tells what came of the first use.
    pub async fn claim(&mut self, idempotency: Idempotency) -> Result<Claim, StoreError> {
        let claim =
            idempotency::claim(self.tx.conn(), &self.chain.0, &idempotency, self.at).await?;
        if matches!(claim, Claim::Fresh) {
            self.claimed = Some((self.chain.0.clone(), idempotency));
        }
        Ok(claim)
    }

    /// Commits everything or nothing, and has this node take the change in before it returns.
    ///
    /// Runs to its end even when the caller goes away: a commit whose change is not in memory would
    /// leave a revoked key alive.
    pub async fn finish<V: Send + 'static>(
        self,
        change: Change<V>,
    ) -> Result<Committed<V>, StoreError> {
        let task = tokio::spawn(self.run(change));
        task.await.map_err(|e| StoreError::Internal(format!("the write task ended: {e}")))?
    }

    async fn run<V>(mut self, change: Change<V>) -> Result<Committed<V>, StoreError> {
        let clock = Arc::clone(self.store.clock());
        let conn = self.tx.conn();
        let (chain, head) = self.chain;
        let head = match head {
            Some(head) => head,
            None => audit::take_head(conn, &chain).await?,
        };
        let entered = audit::next(head, &chain, &*clock, &self.author, self.at, change.audit);
        audit::append(conn, &chain, entered).await?;
        if let (Some((chain, claimed)), Some(body)) = (&self.claimed, &change.replay) {
            idempotency::complete(conn, chain, claimed, body).await?;
        }
        let epoch = advance(conn, &chain, &change.invalidations, self.at).await?;
        let outcome = self.tx.into_conn().commit().await;
        let committed = clock.monotonic_ns();
        // after a commit whose outcome nobody knows, memory must be made true as well
        let happened = matches!(outcome, Ok(()) | Err(StoreError::CommitUnknown(_)));
        if let (Some(hook), true, true) = (self.store.hook(), epoch > 0, happened) {
            hook(epoch, change.invalidations.into()).await;
        }
        outcome?;
        let waited_ns = clock.monotonic_ns().saturating_sub(committed);
        Ok(Committed {
            value: change.value,
            epoch,
            effective_at: clock.now(),
            waited_ms: i64::try_from(waited_ns / 1_000_000).unwrap_or(i64::MAX),
        })
    }
}

/// Numbers the change, as the last statement of its transaction; 0 when it touched no authority.
async fn advance(
    conn: &mut Conn,
    chain: &str,
    invalidations: &[Invalidation],
    at: Timestamp,
) -> Result<i64, StoreError> {
    if invalidations.is_empty() {
        return Ok(0);
    }
    changes::append(conn, chain, invalidations, at).await
}
