//! This node's memory of the authority to call: loaded at start, kept true by every commit.
//!
//! Whenever it may be out of date - a change could not be taken in, the store went away or was
//! written by somebody else - the node refuses to decide until everything was loaded anew.

use std::sync::Arc;
use std::time::Duration;

use keyward_core::authority::Invalidation;
use keyward_gateway::DataPlane;
use keyward_store::{CommitHook, Store, StoreError, SystemTx};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Rows read at a time while loading.
const LOAD_PAGE: u32 = 10_000;
/// How often a change is tried to be taken in before the node stops deciding.
const TAKE_IN_ATTEMPTS: u32 = 3;
/// How often the store is asked whether memory is still true, and the longest pause between two
/// attempts to load anew.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// How long the store may take to answer before it counts as away.
const WATCH_TIMEOUT: Duration = Duration::from_secs(2);

/// What this node decides from, and where it comes from.
pub(crate) struct Authority {
    store: Store,
    plane: Arc<DataPlane>,
    /// Changes are taken in one after the other: read and write must not mix with another's, or an
    /// older reading could overwrite a newer one. Holds the epoch that memory has reached.
    reached: Mutex<i64>,
    /// Rung when memory must be loaded anew.
    outdated: Notify,
}

impl Authority {
    /// Loads everything from the store and keeps it true from now on.
    pub(crate) async fn start(
        store: Store,
        plane: Arc<DataPlane>,
    ) -> Result<Arc<Self>, StoreError> {
        let authority =
            Arc::new(Self { store, plane, reached: Mutex::new(0), outdated: Notify::new() });
        // the store holds its hook: a strong pointer would keep both for ever, and the data
        // directory locked. The watch holds the authority for as long as the node lives.
        let hooked = Arc::downgrade(&authority);
        let hook: CommitHook = Arc::new(move |epoch, touched| {
            let authority = hooked.upgrade();
            Box::pin(async move {
                if let Some(authority) = authority {
                    authority.take_in(epoch, &touched).await;
                }
            })
        });
        // hooked first, so that no commit falls between loading and hooking
        authority.store.on_commit(hook);
        authority.load().await?;
        Ok(authority)
    }

    /// Watches the store until `stopped` turns true.
    pub(crate) fn watch(self: Arc<Self>, mut stopped: watch::Receiver<bool>) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut period = interval(WATCH_PERIOD);
            period.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = period.tick() => {}
                    () = self.outdated.notified() => {}
                    _ = stopped.changed() => break,
                }
                self.check().await;
            }
        })
    }

    /// Suspends when memory may be out of date, and resumes once it was loaded anew.
    async fn check(&self) {
        if self.plane.may_decide().is_ok() {
            match timeout(WATCH_TIMEOUT, self.is_true()).await {
                // a busy store is there, and nobody else has it
                Ok(Ok(true) | Err(StoreError::Busy(_))) => return,
                Ok(Ok(false)) => self.suspend("the store went back in time"),
                Ok(Err(error)) => self.suspend(&error.to_string()),
                Err(_) => self.suspend("the store does not answer"),
            }
        }
        match self.load().await {
            Ok(()) => tracing::info!("the keys were loaded anew; this node decides again"),
            Err(error) => tracing::warn!(%error, "the keys could not be loaded anew"),
        }
    }

    async fn is_true(&self) -> Result<bool, StoreError> {
        let reached = self.reached.lock().await;
        let mut tx = self.store.read_system("tell whether memory is still true").await?;
        // it may be ahead by commits of this node that wait for the lock; behind means restored
        Ok(tx.epoch().await?.0 >= *reached)
    }

    fn suspend(&self, cause: &str) {
        self.plane.suspend();
        tracing::error!(cause, "this node stops deciding until the keys were loaded anew");
    }

    /// Reads again what a commit touched. When that fails the node stops deciding: a revoked key
    /// must not live on because the store went away after the commit.
    async fn take_in(&self, epoch: i64, touched: &[Invalidation]) {
        let mut reached = self.reached.lock().await;
        for attempt in 1..=TAKE_IN_ATTEMPTS {
            match self.read_again(touched).await {
                Ok(()) => {
                    *reached = (*reached).max(epoch);
                    self.plane.set_epoch(u64::try_from(epoch).unwrap_or_default());
                    return;
                }
                Err(error) => tracing::error!(%error, epoch, attempt, "a change was not taken in"),
            }
        }
        self.suspend("a change was not taken in");
        self.outdated.notify_one();
    }

    async fn load(&self) -> Result<(), StoreError> {
        let mut reached = self.reached.lock().await;
        let mut tx = self.store.read_system("load the authority to call").await?;
        let (epoch, _) = tx.epoch().await?;
        self.plane.keys().clear();
        self.load_tenants(&mut tx).await?;
        self.load_keys(&mut tx).await?;
        self.load_admin_tokens(&mut tx).await?;
        *reached = epoch;
        self.plane.set_epoch(u64::try_from(epoch).unwrap_or_default());
        // still under the lock: a change that fails to be taken in after this suspends again
        self.plane.resume();
        Ok(())
    }

    async fn load_tenants(&self, tx: &mut SystemTx) -> Result<(), StoreError> {
        let keys = self.plane.keys();
        let mut after = None;
        loop {
            let page = tx.tenant_authorities(after, LOAD_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for tenant in page {
                keys.replace_tenant(tenant);
            }
        }
        let mut after = None;
        loop {
            let page = tx.member_authorities(after, LOAD_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.tenant, last.user));
            for member in &page {
                keys.replace_member(member);
            }
        }
        Ok(())
    }

    async fn load_keys(&self, tx: &mut SystemTx) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = tx.key_authorities(after, LOAD_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            self.plane.keys().load(page);
        }
    }

    async fn load_admin_tokens(&self, tx: &mut SystemTx) -> Result<(), StoreError> {
        let mut tokens = Vec::new();
        let mut after = None;
        loop {
            let page = tx.admin_token_authorities(after, LOAD_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            tokens.extend(page);
        }
        self.plane.admin_tokens().load(tokens);
        Ok(())
    }

    async fn read_again(&self, touched: &[Invalidation]) -> Result<(), StoreError> {
        let mut tx = self.store.read_system("take a change in").await?;
        for invalidation in touched {
            self.read_one(&mut tx, *invalidation).await?;
        }
        Ok(())
    }

    async fn read_one(&self, tx: &mut SystemTx, touched: Invalidation) -> Result<(), StoreError> {
        let (keys, tokens) = (self.plane.keys(), self.plane.admin_tokens());
        match touched {
            Invalidation::Key(_, id) => match tx.key_authority(id).await? {
                Some(key) => keys.replace_key(key),
                None => keys.remove_key(id),
            },
            Invalidation::Member(tenant, user) => match tx.member_authority(tenant, user).await? {
                Some(member) => keys.replace_member(&member),
                None => keys.remove_member(tenant, user),
            },
            Invalidation::Tenant(id) => match tx.tenant_authority(id).await? {
                Some(tenant) => keys.replace_tenant(tenant),
                None => keys.remove_tenant(id),
            },
            Invalidation::AdminToken(id) => match tx.admin_token_authority(id).await? {
                Some(token) => tokens.replace(token),
                None => tokens.remove(id),
            },
        }
        Ok(())
    }
}
