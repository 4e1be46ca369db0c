//! The store as the authority that a node follows.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use keyward_core::Clock;
use keyward_core::audit::{Actor, ActorKind, AuditEntry, AuditOutcome, Origin};
use keyward_core::authority::{Answered, Fact, Found, Invalidation, Wanted};
use keyward_core::id::NodeId;
use keyward_core::key::RevokeReason;
use keyward_core::lease::{Ask, Epoch, Incarnation, Listed, NodeProfile, Reach, Roster, Terms};
use keyward_gateway::DataPlane;
use keyward_gateway::authority::{
    Authority, Away, Follower, Following, Membership, Replied, Revocation,
};
use keyward_store::{Author, Change, CommitHook, Store, StoreError, SystemTx};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::housekeeper;
use crate::config::Settings;
use crate::config::settings::NodeRole;

/// Rows read at a time while loading.
const LOAD_PAGE: u32 = 10_000;
/// The longest time for everything to be loaded before the node counts as not started.
const START_TIMEOUT: Duration = Duration::from_mins(5);

/// A follower of the store and its tasks, which end with this.
pub(crate) struct Followed {
    pub(crate) follower: Arc<Follower>,
    tasks: JoinSet<()>,
    /// Whether it is on the register, or will be.
    registers: bool,
}

impl Followed {
    /// Loads everything from the store and keeps it true from now on; nothing on a node that only
    /// works.
    pub(crate) async fn start(
        store: &Store,
        plane: &DataPlane,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let clock = Arc::clone(store.clock());
        let node = NodeId::generate(&*clock);
        let terms = settings.authority.terms();
        let me = NodeProfile {
            node,
            roles: NodeRole::words(&settings.role),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hold_ms: terms.hold_ms(),
            started_at: clock.now(),
        };
        let registers = NodeRole::decide(&settings.role);
        let writes = NodeRole::Control.is_in(&settings.role);
        let authority: Arc<dyn Authority> = if registers {
            Arc::new(StoreAuthority { store: store.clone(), me, writes })
        } else {
            Arc::new(housekeeper::Undecided)
        };
        let follower = plane.follow(Following {
            authority,
            clock,
            terms,
            membership: Membership {
                node,
                spread: u64::try_from(node.bits() & u128::from(u64::MAX)).unwrap_or_default(),
                sole: !store.is_shared(),
                janitor: writes || NodeRole::Worker.is_in(&settings.role),
            },
        });
        let mut tasks = JoinSet::new();
        if !registers {
            tasks.spawn(housekeeper::keep_register(store.clone(), terms));
            return Ok(Self { follower, tasks, registers });
        }
        // hooked first, so that no commit falls between loading and hooking
        store.on_commit(hook(&follower, Arc::clone(store.clock()), terms));
        follower.start(&mut tasks);
        tasks.spawn(hear(store.clone(), Arc::clone(&follower)));
        let settled = follower.settled(START_TIMEOUT).await;
        settled.context("the keys could not be loaded from the store")?;
        Ok(Self { follower, tasks, registers })
    }

    /// Decides nothing any more, and takes the node off the register.
    pub(crate) async fn leave(mut self) {
        if self.registers {
            self.follower.leave().await;
        }
        self.tasks.shutdown().await;
    }
}

/// The store holds its hook: a strong pointer would keep both for ever, and the data directory
/// locked.
fn hook(follower: &Arc<Follower>, clock: Arc<dyn Clock>, terms: Terms) -> CommitHook {
    let hooked = Arc::downgrade(follower);
    Arc::new(move |fenced| {
        let follower = hooked.upgrade();
        // nobody is left here to ask the others: what they may still do ends with their leases
        let (unconfirmed, over_ns) =
            (fenced.listed.len(), terms.certainly_over_ns(terms.hold_ms()));
        let wait = i64::try_from(over_ns.div_ceil(1_000_000)).unwrap_or(i64::MAX);
        let effective_by = (unconfirmed > 0).then(|| clock.now().plus_ms(wait));
        Box::pin(async move {
            match follower {
                Some(follower) => follower.fence(fenced).await,
                None => Reach { effective_by, nodes: unconfirmed.max(1), unconfirmed },
            }
        })
    })
}

/// Passes hints of other nodes' changes on.
async fn hear(store: Store, follower: Arc<Follower>) {
    let mut hints = store.hints();
    let mut last = 0;
    loop {
        let epoch = hints.changed().await;
        let heard = Epoch(u64::try_from(epoch).unwrap_or_default());
        if epoch == last {
            // the connection was made anew, and hints may be lost
            follower.hear(None);
        } else if heard > follower.epoch() {
            follower.hear(Some(heard));
        }
        last = epoch;
    }
}

struct StoreAuthority {
    store: Store,
    me: NodeProfile,
    /// Whether this node may write what others decide with.
    writes: bool,
}

impl Authority for StoreAuthority {
    fn ask(&self, ask: Ask) -> Replied<'_, Answered> {
        Box::pin(async move { self.store.answer(&self.me, ask).await.map_err(away) })
    }

    fn load(&self, pages: mpsc::Sender<Vec<Fact>>) -> Replied<'_, (Incarnation, Epoch)> {
        Box::pin(async move { load(&self.store, &pages).await.map_err(away) })
    }

    fn find(&self, wanted: Wanted) -> Replied<'_, Found> {
        Box::pin(async move { self.store.find(wanted).await.map_err(away) })
    }

    fn acknowledge(&self, history: Incarnation, applied: Epoch) -> Replied<'_, ()> {
        Box::pin(async move {
            self.store.acknowledge(self.me.node, history, applied).await.map_err(away)
        })
    }

    fn roster(&self) -> Replied<'_, Roster> {
        Box::pin(async move { self.store.roster().await.map_err(away) })
    }

    fn deregister(&self) -> Replied<'_, ()> {
        Box::pin(async move { self.store.deregister(self.me.node).await.map_err(away) })
    }

    fn forget(&self, silent: Vec<Listed>) -> Replied<'_, ()> {
        Box::pin(async move { self.store.forget_nodes(&silent).await.map(drop).map_err(away) })
    }

    fn begin_incarnation(&self, seen: Incarnation) -> Replied<'_, ()> {
        Box::pin(async move { self.store.begin_incarnation(seen).await.map_err(away) })
    }

    fn revoke_anew(&self, revoked: Vec<Revocation>) -> Replied<'_, ()> {
        Box::pin(async move {
            if !self.writes {
                return Err(Away("this node may not write keys; one with control does".to_owned()));
            }
            for revocation in revoked {
                revoke_anew(&self.store, revocation).await.map_err(away)?;
            }
            Ok(())
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn away(error: StoreError) -> Away {
    Away(error.to_string())
}

/// Sends everything that is decided with, as of one snapshot.
async fn load(
    store: &Store,
    pages: &mpsc::Sender<Vec<Fact>>,
) -> Result<(Incarnation, Epoch), StoreError> {
    let mut tx = store.read_system("load the authority to call").await?;
    let (epoch, incarnation) = tx.epoch().await?;
    load_tenants(&mut tx, pages).await?;
    load_members(&mut tx, pages).await?;
    load_keys(&mut tx, pages).await?;
    load_admin_tokens(&mut tx, pages).await?;
    let number = |value: i64| u64::try_from(value).unwrap_or_default();
    Ok((Incarnation(number(incarnation)), Epoch(number(epoch))))
}

async fn send(pages: &mpsc::Sender<Vec<Fact>>, page: Vec<Fact>) -> Result<(), StoreError> {
    let gone = |_| StoreError::Internal("nobody takes what is loaded".to_owned());
    pages.send(page).await.map_err(gone)
}

async fn load_tenants(
    tx: &mut SystemTx,
    pages: &mpsc::Sender<Vec<Fact>>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = tx.tenant_authorities(after, LOAD_PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
        send(pages, page.into_iter().map(Fact::Tenant).collect()).await?;
    }
}

async fn load_members(
    tx: &mut SystemTx,
    pages: &mpsc::Sender<Vec<Fact>>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = tx.member_authorities(after, LOAD_PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some((last.tenant, last.user));
        send(pages, page.into_iter().map(Fact::Member).collect()).await?;
    }
}

/// Reads a page of keys while what the page before it says is made out on another thread.
async fn load_keys(tx: &mut SystemTx, pages: &mpsc::Sender<Vec<Fact>>) -> Result<(), StoreError> {
    let mut after = <[String; 2]>::default();
    let mut earlier: Option<JoinHandle<Vec<Fact>>> = None;
    loop {
        let mut page = tx.key_authorities(after, LOAD_PAGE).await?;
        if let Some(facts) = earlier {
            let ended = |_| StoreError::Internal("the reading of a page ended".to_owned());
            send(pages, facts.await.map_err(ended)?).await?;
        }
        let Some(last) = page.last.take() else { return Ok(()) };
        after = last;
        earlier = Some(tokio::task::spawn_blocking(move || {
            page.into_facts().into_iter().map(|key| Fact::Key(Box::new(key))).collect()
        }));
    }
}

async fn load_admin_tokens(
    tx: &mut SystemTx,
    pages: &mpsc::Sender<Vec<Fact>>,
) -> Result<(), StoreError> {
    let mut after = <[String; 1]>::default();
    loop {
        let mut page = tx.admin_token_authorities(after, LOAD_PAGE).await?;
        let Some(last) = page.last.take() else { return Ok(()) };
        after = last;
        let facts = page.into_facts().into_iter().map(|it| Fact::AdminToken(Box::new(it)));
        send(pages, facts.collect()).await?;
    }
}

/// Enters a revocation that the store has forgotten, unless another node has.
async fn revoke_anew(store: &Store, revocation: Revocation) -> Result<(), StoreError> {
    let Revocation { tenant, key: id, revoked_at } = revocation;
    let actor = Actor {
        kind: ActorKind::System,
        id: "-".to_owned(),
        name: "keyward".to_owned(),
        role: None,
    };
    let author = Author { actor, origin: Origin::default() };
    let mut tx = store.write(tenant, author).await?;
    let Some(mut key) = tx.find_key(id).await?.filter(|key| key.revoked_at.is_none()) else {
        return Ok(());
    };
    key.revoke(RevokeReason::Other, revoked_at);
    tx.update_key(&key).await?;
    let entry = AuditEntry {
        action: "api_key.revoked",
        target_kind: "api_key",
        target_id: id.to_string(),
        outcome: AuditOutcome::Succeeded,
        details: json!({
            "comment": "was revoked before the store lost it",
            "after": { "revokedAt": key.revoked_at },
        }),
    };
    tx.finish(Change::new((), entry).invalidating([Invalidation::Key(tenant, id)])).await?;
    Ok(())
}
