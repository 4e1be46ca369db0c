//! Looking up what is not in memory: once at a time for each, a few at a time in all.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use keyward_core::authority::Wanted;

use super::memory::{Memory, Settled};
use super::{Authority, Away};

/// Different ids looked up or waiting for it at once; the next caller is turned away.
const MAX_WANTED: usize = 256;
/// Look-ups that the store gets at once.
const MAX_AT_ONCE: usize = 2;
/// The longest time for which a caller waits for a look-up.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a reading is repeated because something in it changed meanwhile.
const ATTEMPTS: u32 = 4;

type Looking = Shared<Pin<Box<dyn Future<Output = Result<(), Away>> + Send>>>;

/// Look-ups under way.
pub(super) struct Fill {
    authority: Arc<dyn Authority>,
    memory: Arc<Memory>,
    under_way: Arc<Mutex<HashMap<Wanted, Looking>>>,
    turns: Arc<Semaphore>,
}

impl Fill {
    pub(super) fn new(authority: Arc<dyn Authority>, memory: Arc<Memory>) -> Self {
        Self {
            authority,
            memory,
            under_way: Arc::default(),
            turns: Arc::new(Semaphore::new(MAX_AT_ONCE)),
        }
    }

    /// Sees to it that memory knows this, or knows that it does not exist.
    pub(super) async fn look_up(&self, wanted: Wanted) -> Result<(), Away> {
        if self.memory.is_absent(&wanted) {
            return Ok(());
        }
        self.join(wanted)?.await
    }

    fn join(&self, wanted: Wanted) -> Result<Looking, Away> {
        let mut under_way = self.under_way.lock();
        if let Some(looking) = under_way.get(&wanted) {
            return Ok(looking.clone());
        }
        if under_way.len() >= MAX_WANTED {
            return Err(Away("too many unknown ids are looked up at once".to_owned()));
        }
        let (authority, memory) = (Arc::clone(&self.authority), Arc::clone(&self.memory));
        let (turns, all) = (Arc::clone(&self.turns), Arc::clone(&self.under_way));
        // a task of its own: it ends, and makes room, even when every caller has gone away
        let task = tokio::spawn(async move {
            let found = timeout(PATIENCE, read(&*authority, &memory, &turns, wanted)).await;
            all.lock().remove(&wanted);
            found.unwrap_or_else(|_| Err(Away("the store did not answer in time".to_owned())))
        });
        let ended = task.map(|it| it.unwrap_or_else(|error| Err(Away(error.to_string()))));
        let looking: Looking = ended.boxed().shared();
        under_way.insert(wanted, looking.clone());
        Ok(looking)
    }
}

async fn read(
    authority: &dyn Authority,
    memory: &Memory,
    turns: &Semaphore,
    wanted: Wanted,
) -> Result<(), Away> {
    let _turn = turns.acquire().await.map_err(|error| Away(error.to_string()))?;
    for _ in 0..ATTEMPTS {
        let stamp = memory.begin_fill();
        let stamp = stamp.ok_or_else(|| Away("everything is being loaded anew".to_owned()))?;
        let reading = Reading { memory, stamp };
        let found = authority.find(wanted).await?;
        if memory.settle(reading.stamp, wanted, found) == Settled::Known {
            return Ok(());
        }
    }
    Err(Away("what was looked up changed all the time".to_owned()))
}

/// A reading under way; ended however it ends.
struct Reading<'m> {
    memory: &'m Memory,
    stamp: keyward_core::lease::Stamp,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.memory.end_fill(self.stamp);
    }
}
