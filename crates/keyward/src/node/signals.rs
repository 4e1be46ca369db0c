//! The signals that this process was sent.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// Files that may be replaced under way are read again.
    Reloads,
    /// The terminal is gone, and with it who asked.
    Stops,
}

/// Ends a process that was told a second time to stop.
#[derive(Debug, thiserror::Error)]
#[error("told to stop again: what was in flight was cut")]
pub(crate) struct Cut;

/// How often this process was told to stop. Counted from the moment this is made.
#[derive(Clone)]
pub(crate) struct Stops {
    stops: watch::Receiver<u32>,
    hangups: watch::Receiver<u32>,
}

impl Stops {
    /// Begins to listen for SIGTERM, SIGINT and SIGHUP, which no longer end the process by
    /// themselves.
    pub(crate) fn listen(hangup: Hangup) -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let mut hung_up = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
        let (count, stops) = watch::channel(0_u32);
        let (reload, hangups) = watch::channel(0_u32);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hung_up.recv() => if hangup == Hangup::Reloads {
                        reload.send_modify(|count| *count = count.wrapping_add(1));
                        continue;
                    },
                }
                count.send_modify(|count| *count = count.saturating_add(1));
            }
        });
        Ok(Self { stops, hangups })
    }

    /// Waits until the process is told to stop.
    pub(crate) async fn first(&self) {
        self.times(1).await;
    }

    /// Does the work, unless the process is told a second time to stop before it is done.
    pub(crate) async fn unless_repeated<E: From<Cut>>(
        &self,
        work: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        tokio::select! {
            biased;
            () = self.times(2) => Err(Cut.into()),
            done = work => done,
        }
    }

    /// Does this each time the process is told to read its files again. Never ends.
    pub(crate) async fn at_each_hangup(&self, mut reload: impl FnMut()) {
        let mut hangups = self.hangups.clone();
        while hangups.changed().await.is_ok() {
            reload();
        }
        // the watching task lives as long as the runtime
        std::future::pending::<()>().await;
    }

    async fn times(&self, times: u32) {
        // the counting task lives as long as the runtime
        let _ = self.stops.clone().wait_for(|count| *count >= times).await;
    }
}
