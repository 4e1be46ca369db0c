//! The bound on the requests of one upstream, and the wait before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Requests that wait for one upstream; more are refused at once.
const MAX_WAITING: usize = 4_096;

/// Lets so many requests through at a time, first come, first served.
pub(super) struct Gate {
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    patience: Duration,
}

/// Counts a request that waits.
struct Waiting<'g>(&'g AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        Self { slots: Arc::new(Semaphore::new(most)), waiting: AtomicUsize::new(0), patience }
    }

    /// Waits for a slot; `None` when that took too long, or too many wait already.
    pub(super) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if ahead >= MAX_WAITING {
            return None;
        }
        timeout(self.patience, Arc::clone(&self.slots).acquire_owned()).await.ok()?.ok()
    }
}
