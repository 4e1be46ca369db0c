//! SQLite connections, each on a thread of its own, lent out one transaction at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use rusqlite::{Connection, InterruptHandle};
use tokio::sync::oneshot;

use super::data_dir::DataDirLock;
use super::sqlite::{self, Role};
use super::{Access, StoreError};

/// One job runs and at most two wait: a transaction sends one statement at a time, and its drop
/// adds the rollback.
const QUEUE: usize = 2;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A connection on its thread. Dropping it ends the thread and closes the connection.
pub(super) struct Thread {
    jobs: SyncSender<Job>,
    interrupt: InterruptHandle,
    /// Shared with the thread, so that a count of one says it is gone.
    alive: Arc<()>,
}

/// Opens connections for a pool.
pub(super) struct ThreadManager {
    pub(super) path: PathBuf,
    pub(super) access: Access,
    pub(super) busy_timeout: Duration,
    /// Held until the last connection is closed.
    pub(super) lock: Arc<DataDirLock>,
}

impl Manager for ThreadManager {
    type Type = Thread;
    type Error = StoreError;

    async fn create(&self) -> Result<Thread, StoreError> {
        let (path, busy_timeout) = (self.path.clone(), self.busy_timeout);
        let (held, alive) = (Arc::clone(&self.lock), Arc::new(()));
        let (name, role) = match self.access {
            Access::Read => ("keyward-sqlite-reader", Role::Reader),
            Access::Write | Access::Note => ("keyward-sqlite-writer", Role::Writer),
        };
        let (jobs, inbox) = sync_channel(QUEUE);
        let (opened, ready) = oneshot::channel();
        let token = Arc::clone(&alive);
        let work = move || {
            match sqlite::connect(&path, role, busy_timeout) {
                Ok(connection) => {
                    let _ = opened.send(Ok(connection.get_interrupt_handle()));
                    serve(connection, &inbox);
                }
                Err(error) => drop(opened.send(Err(error))),
            }
            drop((token, held));
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|error| StoreError::Unavailable(format!("no thread for SQLite: {error}")))?;
        let interrupt = ready.await.map_err(|_| gone())??;
        Ok(Thread { jobs, interrupt, alive })
    }

    async fn recycle(&self, thread: &mut Thread, _: &Metrics) -> RecycleResult<StoreError> {
        if Arc::strong_count(&thread.alive) == 1 {
            return Err(RecycleError::message("the connection's thread is gone"));
        }
        Ok(())
    }
}

/// Runs jobs in order until the last sender is dropped, then closes the connection.
fn serve(mut connection: Connection, inbox: &Receiver<Job>) {
    while let Ok(job) = inbox.recv() {
        job(&mut connection);
    }
}

impl Thread {
    /// Runs a job; past the limit it is interrupted, and its error says so.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, mut answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| drop(reply.send(work(connection))));
        self.jobs.try_send(job).map_err(|_| gone())?;
        loop {
            // An interrupt before the statement began has no effect, hence more than one.
            match tokio::time::timeout(limit, &mut answer).await {
                Ok(answer) => return answer.map_err(|_| gone())?,
                Err(_) => self.interrupt.interrupt(),
            }
        }
    }

    /// Stops the statement that is running, if any.
    pub(super) fn interrupt(&self) {
        self.interrupt.interrupt();
    }
}

/// Takes the open transaction back on the connection's own thread; the connection goes back to
/// its pool only after that, so nobody can begin on it earlier.
pub(super) fn abandon(lease: Object<ThreadManager>) {
    let jobs = lease.jobs.clone();
    let job: Job = Box::new(move |connection| {
        sqlite::take_back(connection);
        drop(lease);
    });
    if jobs.try_send(job).is_err() {
        tracing::error!("a SQLite connection was lost with a transaction open");
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the connection's thread is gone".to_owned())
}
