//! Hints that other nodes have changed something. They may be lost or wrong: what a hint names is
//! looked up, and who hears nothing looks by itself.

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What was heard of other nodes' changes. Dropping it ends the listening.
pub struct Hints {
    heard: watch::Receiver<i64>,
    source: Source,
}

enum Source {
    /// The sender is kept so that waiting does not end.
    Silent {
        _kept: watch::Sender<i64>,
    },
    Task(JoinHandle<()>),
}

impl Hints {
    /// Hints that never come.
    pub(super) fn silent() -> Self {
        let (kept, heard) = watch::channel(0);
        Self { heard, source: Source::Silent { _kept: kept } }
    }

    /// Hints that a task sends.
    pub(super) const fn of(heard: watch::Receiver<i64>, task: JoinHandle<()>) -> Self {
        Self { heard, source: Source::Task(task) }
    }

    /// Whether any may come.
    pub const fn are_on(&self) -> bool {
        matches!(self.source, Source::Task(_))
    }

    /// Waits for the next hint and answers the greatest epoch heard so far; 0 before the first.
    /// The number need not have grown: after each connecting there is a hint without a number,
    /// because others may have been lost. Hints that come while nobody waits are one.
    ///
    /// Cancel safe.
    pub async fn changed(&mut self) -> i64 {
        if self.heard.changed().await.is_err() {
            // the task ends with its owner; were it to end alone, looking goes on without it
            std::future::pending::<()>().await;
        }
        *self.heard.borrow_and_update()
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        if let Source::Task(task) = &self.source {
            task.abort();
        }
    }
}
