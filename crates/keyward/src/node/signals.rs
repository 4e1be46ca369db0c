//! The signals that this process was sent.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// Nothing, for a server: there is nothing to reload yet.
    Ignored,
    /// The terminal is gone, and with it who asked.
    Stops,
}

/// Ends a process that was told a second time to stop.
#[derive(Debug, thiserror::Error)]
#[error("told to stop again: what was in flight was cut")]
pub(crate) struct Cut;

/// How often this process was told to stop. Counted from the moment this is made.
#[derive(Clone)]
pub(crate) struct Stops(watch::Receiver<u32>);

impl Stops {
    /// Begins to listen for SIGTERM, SIGINT and SIGHUP, which no longer end the process by
    /// themselves.
    pub(crate) fn listen(hangup: Hangup) -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let mut hung_up = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
        let (count, counted) = watch::channel(0_u32);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hung_up.recv() => if hangup == Hangup::Ignored {
                        tracing::info!("SIGHUP does nothing: settings are read at the start");
                        continue;
                    },
                }
                count.send_modify(|count| *count = count.saturating_add(1));
            }
        });
        Ok(Self(counted))
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

    async fn times(&self, times: u32) {
        // the counting task lives as long as the runtime
        let _ = self.0.clone().wait_for(|count| *count >= times).await;
    }
}
