//! Every audit chain of a store, computed anew.

use keyward_core::audit::ChainWalk;
use keyward_store::{ChainHead, Store, StoreError};

/// Chains read in one page.
const PAGE: u32 = 500;
/// Events read at a time.
const BATCH: u32 = 500;
/// Broken chains that are named.
const NAMED: usize = 10;

/// What a walk along all chains has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chains {
    /// How many there are.
    pub(crate) count: u64,
    /// How many events they hold, as far as they are whole.
    pub(crate) events: u64,
    /// The names of the first that are not whole.
    pub(crate) broken: Vec<String>,
}

/// Walks along every chain to its end.
pub(crate) async fn walk(store: &Store) -> Result<Chains, StoreError> {
    let mut found = Chains::default();
    let mut after = String::new();
    loop {
        let mut tx = store.read_system("verify the audit chains").await?;
        let heads = tx.audit_chains(&after, PAGE).await?;
        drop(tx);
        let Some(last) = heads.last() else { break };
        after.clone_from(&last.chain);
        for head in heads {
            found.count += 1;
            let (events, whole) = follow(store, &head).await?;
            found.events += events;
            if !whole && found.broken.len() < NAMED {
                found.broken.push(head.chain);
            }
        }
    }
    let mut tx = store.read_system("verify the audit chains").await?;
    if let Some(chain) = tx.headless_chain().await?
        && found.broken.len() < NAMED
    {
        found.broken.push(chain);
    }
    Ok(found)
}

/// How many events of a chain fit, and whether they end at its head.
async fn follow(store: &Store, head: &ChainHead) -> Result<(u64, bool), StoreError> {
    let mut walk = ChainWalk::new(&head.chain);
    while walk.sequence() < head.sequence {
        let mut tx = store.read_system("verify an audit chain").await?;
        let events = tx.chain_events_behind(&head.chain, walk.sequence(), BATCH).await?;
        // what is written meanwhile is for the next walk
        let asked = events.iter().take_while(|event| event.sequence <= head.sequence);
        if !walk.follow(asked) {
            break;
        }
    }
    let events = u64::try_from(walk.sequence()).unwrap_or_default();
    Ok((events, walk.ends_at((head.sequence, head.hash))))
}
