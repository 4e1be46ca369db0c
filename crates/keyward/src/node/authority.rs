//! This node's memory of the authority to call: loaded at start, kept true by every commit.

use std::sync::Arc;

use keyward_core::authority::Invalidation;
use keyward_gateway::DataPlane;
use keyward_store::{CommitHook, Store, StoreError, SystemTx};
use tokio::sync::Mutex;

/// Rows read at a time while loading.
const LOAD_PAGE: u32 = 10_000;
/// How often a change is tried to be taken in before the node stops deciding.
const TAKE_IN_ATTEMPTS: u32 = 3;

/// What this node decides from, and where it comes from.
pub(crate) struct Authority {
    store: Store,
    plane: Arc<DataPlane>,
    /// Changes are taken in one after the other: read and write must not mix with another's, or an
    /// older reading could overwrite a newer one.
    order: Mutex<()>,
}

impl Authority {
    /// Loads everything from the store and keeps it true from now on.
    pub(crate) async fn start(
        store: Store,
        plane: Arc<DataPlane>,
    ) -> Result<Arc<Self>, StoreError> {
        let authority = Arc::new(Self { store, plane, order: Mutex::new(()) });
        let hooked = Arc::clone(&authority);
        let hook: CommitHook = Arc::new(move |epoch, touched| {
            let authority = Arc::clone(&hooked);
            Box::pin(async move { authority.take_in(epoch, &touched).await })
        });
        // hooked first, so that no commit falls between loading and hooking
        authority.store.on_commit(hook);
        authority.load().await?;
        Ok(authority)
    }

    async fn load(&self) -> Result<(), StoreError> {
        let _order = self.order.lock().await;
        let mut tx = self.store.read_system("load the authority to call").await?;
        let (epoch, _) = tx.epoch().await?;
        let mut after = None;
        loop {
            let page = tx.tenant_authorities(after, LOAD_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            page.into_iter().for_each(|tenant| self.plane.keys().replace_tenant(tenant));
        }
        let mut after = None;
        loop {
            let page = tx.member_authorities(after, LOAD_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.tenant, last.user));
            page.iter().for_each(|member| self.plane.keys().replace_member(member));
        }
        let mut after = None;
        loop {
            let page = tx.key_authorities(after, LOAD_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            self.plane.keys().load(page);
        }
        let mut after = None;
        loop {
            let page = tx.admin_token_authorities(after, LOAD_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            page.into_iter().for_each(|token| self.plane.admin_tokens().replace(token));
        }
        self.plane.set_epoch(u64::try_from(epoch).unwrap_or_default());
        Ok(())
    }

    /// Reads again what a commit touched. When that fails for good the node stops deciding: a
    /// revoked key must not live on because the database went away after the commit.
    async fn take_in(&self, epoch: i64, touched: &[Invalidation]) {
        let _order = self.order.lock().await;
        for attempt in 1..=TAKE_IN_ATTEMPTS {
            match self.read_again(touched).await {
                Ok(()) => {
                    self.plane.set_epoch(u64::try_from(epoch).unwrap_or_default());
                    return;
                }
                Err(error) => tracing::error!(%error, epoch, attempt, "a change was not taken in"),
            }
        }
        tracing::error!(epoch, "the node stops deciding until it is started again");
        self.plane.stop_deciding();
    }

    async fn read_again(&self, touched: &[Invalidation]) -> Result<(), StoreError> {
        let mut tx = self.store.read_system("take a change in").await?;
        for invalidation in touched {
            self.read_one(&mut tx, *invalidation).await?;
        }
        Ok(())
    }

    async fn read_one(&self, tx: &mut SystemTx, touched: Invalidation) -> Result<(), StoreError> {
        match touched {
            Invalidation::Key(_, id) => match tx.key_authority(id).await? {
                Some(key) => self.plane.keys().replace_key(key),
                None => self.plane.keys().remove_key(id),
            },
            Invalidation::Member(tenant, user) => {
                match tx.member_authority(tenant, user).await? {
                    Some(member) => self.plane.keys().replace_member(&member),
                    None => self.plane.keys().remove_member(tenant, user),
                }
            }
            Invalidation::Tenant(id) => match tx.tenant_authority(id).await? {
                Some(tenant) => self.plane.keys().replace_tenant(tenant),
                None => self.plane.keys().remove_tenant(id),
            },
            Invalidation::AdminToken(id) => match tx.admin_token_authority(id).await? {
                Some(token) => self.plane.admin_tokens().replace(token),
                None => self.plane.admin_tokens().remove(id),
            },
        }
        Ok(())
    }
}
