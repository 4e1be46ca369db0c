//! The certificate of `[acme]`: ordered, kept, and renewed in time (RFC 8555, RFC 8737).

mod account;
mod folder;
mod order;
mod schedule;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use keyward_core::Clock;
use keyward_core::time::Timestamp;
use keyward_gateway::Certificate;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::certificates::Certificates;
use crate::config::Settings;
use crate::config::acme::AcmeSettings;
use account::Accounts;
use folder::Turn;
use schedule::Share;
use transport::Transport;

pub(crate) use folder::AcmeFolder;

/// The longest time between two looks whether a certificate is due.
const LOOK_PERIOD: Duration = Duration::from_secs(30);
/// How long one order may take.
const ORDER_TIMEOUT: Duration = Duration::from_mins(5);

/// Who sees to it that the certificate is there.
pub(super) struct Renewal {
    settings: AcmeSettings,
    folder: Arc<AcmeFolder>,
    transport: Transport,
    clock: Arc<dyn Clock>,
    certificates: Arc<Certificates>,
    /// How much earlier than needed this node renews.
    early: Share,
    failures: u32,
    /// No order before this reading of the monotonic clock.
    not_before_ns: u64,
}

impl Renewal {
    /// Of these settings, for these listeners.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub(super) fn new(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        certificates: Arc<Certificates>,
    ) -> anyhow::Result<Self> {
        let folder = Arc::new(AcmeFolder::of(settings));
        let settings = settings.acme.clone();
        let transport = Transport::new(&settings)?;
        let early = random_share(&*clock);
        Ok(Self {
            settings,
            folder,
            transport,
            clock,
            certificates,
            early,
            failures: 0,
            not_before_ns: 0,
        })
    }

    /// Orders whenever a certificate is due, until `stopped` turns true.
    pub(super) async fn keep(mut self, mut stopped: watch::Receiver<bool>) {
        let mut looking = interval(self.settings.retry_after.duration().min(LOOK_PERIOD));
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            loop {
                looking.tick().await;
                if self.clock.monotonic_ns() >= self.not_before_ns {
                    self.look().await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stopped.changed() => {}
        }
    }

    /// Orders a certificate if one is due and no other process does.
    async fn look(&mut self) {
        let due = match self.take_turn().await {
            Ok(None) => return,
            Ok(Some(turn)) => self.order(turn).await,
            Err(error) => Err(error),
        };
        match due {
            Ok(certificate) => self.issued(&certificate).await,
            Err(error) => self.failed(&error),
        }
    }

    /// The right to order, if a certificate is due.
    async fn take_turn(&self) -> anyhow::Result<Option<Turn>> {
        let (folder, early, now) = (Arc::clone(&self.folder), self.early, self.clock.now());
        let taken = spawn_blocking(move || {
            if !is_due(&folder, early, now) {
                return Ok(None);
            }
            let turn = folder.take_turn()?;
            // another process may have ordered before its turn ended
            Ok::<_, std::io::Error>(turn.filter(|_| is_due(&folder, early, now)))
        });
        Ok(taken.await??)
    }

    async fn order(&self, _turn: Turn) -> anyhow::Result<Certificate> {
        let Self { settings, folder, transport, .. } = self;
        let accounts = Accounts { settings, folder, transport };
        let order = order::order(&accounts, folder, self.clock.now());
        timeout(ORDER_TIMEOUT, order).await.context("the order took too long")?
    }

    async fn issued(&mut self, certificate: &Certificate) {
        self.failures = 0;
        self.certificates.count_order(true);
        let (domains, not_after) = (self.folder.domains().join(" "), certificate.not_after());
        tracing::info!(domains, %not_after, "a certificate was issued");
        let certificates = Arc::clone(&self.certificates);
        let _ = spawn_blocking(move || certificates.reload(false)).await;
    }

    fn failed(&mut self, error: &anyhow::Error) {
        self.failures = self.failures.saturating_add(1);
        self.certificates.count_order(false);
        let asked = self.transport.asked_pause();
        let first = self.settings.retry_after.duration();
        let pause = schedule::pause(first, self.failures, asked, random_share(&*self.clock));
        let pause_ns = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        self.not_before_ns = self.clock.monotonic_ns().saturating_add(pause_ns);
        let (domains, authority) = (self.folder.domains().join(" "), &self.settings.directory_url);
        tracing::error!(
            domains,
            authority,
            error = format!("{error:#}"),
            again_in_s = pause.as_secs(),
            "no certificate was issued; an earlier one stays"
        );
    }
}

fn random_share(clock: &dyn Clock) -> Share {
    let mut random = [0];
    clock.fill_random(&mut random);
    let [random] = random;
    Share::new(random)
}

/// Whether there is no certificate for every name that lasts long enough.
fn is_due(folder: &AcmeFolder, early: Share, now: Timestamp) -> bool {
    match folder.certificate() {
        Ok(Some(kept)) => {
            let all = folder.domains().iter().all(|name| kept.is_for(name));
            !all || now >= schedule::renewal(kept.not_before(), kept.not_after(), early)
        }
        Ok(None) => true,
        Err(error) => {
            tracing::warn!(%error, "the certificate that is kept cannot be used");
            true
        }
    }
}
