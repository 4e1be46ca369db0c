//! The one way to change anything: rows, audit event, epoch and idempotency record commit together.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use keyward_core::Timestamp;
use keyward_core::audit::{Actor, AuditEntry, Origin};
use keyward_core::authority::Invalidation;
use keyward_core::lease::{Epoch, Fenced, Reach};

use crate::engine::{Conn, Sent, StoreError};
use crate::sql::audit::{self, Head};
use crate::sql::changes::{self, Numbered};
use crate::sql::idempotency::{self, Claim, Idempotency};
use crate::store::Store;
use crate::tx::Transaction;

/// How long a change waits for every node unless its caller says otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);

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
    introduces: bool,
    replay: Option<String>,
}

impl<V> Change<V> {
    /// A change with its answer and its audit event.
    pub const fn new(value: V, audit: AuditEntry) -> Self {
        Self { value, audit, invalidations: Vec::new(), introduces: true, replay: None }
    }

    /// Names what every node must read again before the change is answered.
    #[must_use]
    pub fn invalidating(mut self, touched: impl IntoIterator<Item = Invalidation>) -> Self {
        self.invalidations.extend(touched);
        self.introduces = false;
        self
    }

    /// Names what the change makes that was not there before. Nodes that do not know it yet look
    /// it up when they meet it, so nobody waits for them.
    #[must_use]
    pub fn introducing(mut self, made: Invalidation) -> Self {
        self.invalidations.push(made);
        self
    }

    /// The body to answer when the same idempotency key comes again. Never a secret.
    #[must_use]
    pub fn replayed_as(mut self, body: String) -> Self {
        self.replay = Some(body);
        self
    }
}

/// A change that is on disk.
pub struct Committed<V> {
    /// The answer.
    pub value: V,
    /// The number of the change in the authority to call; 0 when it touched none.
    pub epoch: Epoch,
    /// How far it has reached.
    pub reach: Reach,
    /// When that was known.
    pub at: Timestamp,
    /// Milliseconds between the commit and that.
    pub waited_ms: u64,
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
    patience: Duration,
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
        Ok(Self {
            tx,
            store: store.clone(),
            author,
            chain: (chain, Some(head)),
            at,
            claimed: None,
            patience: DEFAULT_PATIENCE,
        })
    }

    /// The instant of this change.
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// Waits no longer than this for every node to apply the change.
    pub const fn wait_at_most(&mut self, patience: Duration) {
        self.patience = patience;
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

    /// Commits everything or nothing, and waits until every node has applied the change or its
    /// lease is over.
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
        let mut last = audit::appending(&chain, entered);
        if let (Some((chain, claimed)), Some(body)) = (&self.claimed, &change.replay) {
            last.push(idempotency::completing(chain, claimed, body));
        }
        let numbered = number(conn, last, &chain, &change.invalidations, self.at).await?;
        let outcome = self.tx.into_conn().commit().await;
        let committed_ns = clock.monotonic_ns();
        // after a commit whose outcome nobody knows, memory must be made true as well
        let happened = matches!(outcome, Ok(()) | Err(StoreError::CommitUnknown(_)));
        let epoch = numbered.as_ref().map_or(Epoch(0), |numbered| numbered.epoch);
        let mut reach = Reach { effective_by: None, nodes: 1, unconfirmed: 0 };
        if let (Some(hook), Some(numbered), true) = (self.store.hook(), numbered, happened) {
            reach = hook(Fenced {
                epoch,
                incarnation: numbered.incarnation,
                listed: numbered.listed,
                committed_ns,
                introduces: change.introduces,
                patience: self.patience,
            })
            .await;
        }
        outcome?;
        let waited_ns = clock.monotonic_ns().saturating_sub(committed_ns);
        Ok(Committed {
            value: change.value,
            epoch,
            reach,
            at: clock.now(),
            waited_ms: waited_ns / 1_000_000,
        })
    }
}

/// Does what is left and numbers the change, as the last statements of its transaction; `None` when
/// it touched no authority.
async fn number(
    conn: &mut Conn,
    last: Vec<Sent>,
    chain: &str,
    invalidations: &[Invalidation],
    at: Timestamp,
) -> Result<Option<Numbered>, StoreError> {
    if invalidations.is_empty() {
        conn.flight(last).await?;
        return Ok(None);
    }
    changes::append(conn, last, chain, invalidations, at).await.map(Some)
}
