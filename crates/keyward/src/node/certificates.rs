//! The certificates of a node's listeners: read at the start, and again when their files change.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyward_core::Clock;
use keyward_core::time::Timestamp;
use keyward_gateway::{Certificate, InvalidCertificate, Tls};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::acme::AcmeFolder;
use crate::config::tls::TlsSettings;
use crate::config::{ConfigError, Problem};

/// How long before its end a certificate is warned of, once a day; one with a short life when a
/// quarter of it is left.
const WARN_BEFORE_MS: i64 = 14 * DAY_MS;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What a file looked like from outside. A file that is moved into its place is another one, even
/// if it has the size and the time of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// The certificates of all listeners.
pub(crate) struct Certificates {
    clock: Arc<dyn Clock>,
    acme: Arc<AcmeFolder>,
    listeners: Mutex<Vec<Shown>>,
    reloaded: AtomicU64,
    refused: AtomicU64,
    issued: AtomicU64,
    not_issued: AtomicU64,
}

/// What one listener shows.
struct Shown {
    listener: String,
    source: Source,
    tls: Arc<Tls>,
    looks: Vec<Option<Look>>,
    /// The life of the one that expires first; nothing before there is one.
    life: Option<Life>,
    /// The day on which its end was last warned of.
    warned_on: Option<i64>,
}

/// Where the certificates of a listener are read from.
struct Source {
    settings: TlsSettings,
    acme: Option<Arc<AcmeFolder>>,
}

impl Source {
    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let issued = self.acme.iter().map(|folder| folder.certificate_file());
        self.settings.files().map(Path::to_owned).chain(issued)
    }

    /// What the files look like now; nothing for one that cannot be looked at.
    fn look(&self) -> Vec<Option<Look>> {
        let one = |path| {
            let about = std::fs::metadata(path).ok()?;
            let changed = (about.mtime(), about.mtime_nsec());
            Some(Look { inode: about.ino(), bytes: about.size(), changed })
        };
        self.files().map(one).collect()
    }

    /// The certificates, which must be valid now. The one of `[acme]` comes last, once there is
    /// one.
    fn read(&self, now: Timestamp) -> Result<Vec<Certificate>, Problem> {
        let mut certificates = self.settings.read(now)?;
        certificates.extend(self.issued(now)?);
        Ok(certificates)
    }

    fn issued(&self, now: Timestamp) -> Result<Option<Certificate>, Problem> {
        let Some(folder) = &self.acme else {
            return Ok(None);
        };
        folder.valid_certificate(now)
    }

    /// What is shown from the start. What was issued earlier and is of no use any more does not
    /// prevent it: another one is ordered.
    fn first(&self, now: Timestamp) -> Result<Vec<Certificate>, Problem> {
        let mut certificates = self.settings.read(now)?;
        match self.issued(now) {
            Ok(issued) => certificates.extend(issued),
            Err(Problem { problem, .. }) => tracing::warn!("{problem}; it is not shown"),
        }
        Ok(certificates)
    }

    fn show(&self, certificates: Vec<Certificate>) -> Result<Tls, InvalidCertificate> {
        match &self.acme {
            None => Tls::new(certificates),
            Some(folder) => {
                let folder = Arc::clone(folder);
                Tls::answering(certificates, Box::new(move |name| folder.challenge(name)))
            }
        }
    }
}

/// The life of a certificate.
#[derive(Clone, Copy)]
struct Life {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Life {
    /// That of the one that expires first.
    fn first_to_end(certificates: &[Certificate]) -> Option<Self> {
        let lives = certificates
            .iter()
            .map(|it| Self { not_before: it.not_before(), not_after: it.not_after() });
        lives.min_by_key(|life| life.not_after)
    }

    /// Whether its end is near.
    fn is_ending(self, now: Timestamp) -> bool {
        let life_ms = self.not_after.as_millis().saturating_sub(self.not_before.as_millis());
        let left_ms = self.not_after.as_millis().saturating_sub(now.as_millis());
        left_ms < WARN_BEFORE_MS.min(life_ms / 4)
    }
}

impl Certificates {
    /// None yet. What `[acme]` gets is in that folder.
    pub(crate) fn new(clock: Arc<dyn Clock>, acme: AcmeFolder) -> Self {
        Self {
            clock,
            acme: Arc::new(acme),
            listeners: Mutex::new(Vec::new()),
            reloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            issued: AtomicU64::new(0),
            not_issued: AtomicU64::new(0),
        }
    }

    /// Whether a listener shows what `[acme]` gets.
    pub(crate) fn show_issued(&self) -> bool {
        self.listeners.lock().iter().any(|shown| shown.source.acme.is_some())
    }

    /// Counts an order, by whether a certificate was issued.
    pub(crate) fn count_order(&self, issued: bool) {
        let count = if issued { &self.issued } else { &self.not_issued };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// What a listener shows in its handshakes; nothing when it has no certificate.
    ///
    /// # Errors
    /// When a certificate cannot be served.
    pub(crate) fn show(
        &self,
        listener: String,
        settings: &TlsSettings,
    ) -> Result<Option<Arc<Tls>>, ConfigError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let acme = settings.acme.then(|| Arc::clone(&self.acme));
        let source = Source { settings: settings.clone(), acme };
        // before the files are read: what changes meanwhile is read again
        let looks = source.look();
        let certificates = source.first(self.clock.now())?;
        let life = Life::first_to_end(&certificates);
        let tls = source.show(certificates).map_err(|error| unusable(&listener, &error))?;
        let tls = Arc::new(tls);
        let mut shown =
            Shown { listener, source, tls: Arc::clone(&tls), looks, life, warned_on: None };
        shown.warn(self.clock.now());
        self.listeners.lock().push(shown);
        Ok(Some(tls))
    }

    /// Reads again what has changed, or everything.
    pub(crate) fn reload(&self, everything: bool) {
        let now = self.clock.now();
        for shown in &mut *self.listeners.lock() {
            let looks = shown.source.look();
            if everything || looks != shown.looks {
                shown.looks = looks;
                self.reread(shown, now);
            }
            shown.warn(now);
        }
    }

    fn reread(&self, shown: &mut Shown, now: Timestamp) {
        let listener = shown.listener.as_str();
        let replaced = shown.source.read(now).and_then(|certificates| {
            let Some(life) = Life::first_to_end(&certificates) else {
                // the first one is still to be issued
                return Ok(None);
            };
            let replaced = shown.tls.replace(certificates);
            replaced.map(|()| Some(life)).map_err(|error| unusable(listener, &error))
        });
        match replaced {
            Ok(None) => {}
            Ok(Some(life)) => {
                self.reloaded.fetch_add(1, Ordering::Relaxed);
                let not_after = life.not_after;
                tracing::info!(listener, %not_after, "certificates were read anew");
                shown.life = Some(life);
                shown.warned_on = None;
            }
            Err(Problem { problem, fix }) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    listener,
                    problem,
                    fix,
                    "changed certificates cannot be used; the earlier ones stay"
                );
            }
        }
    }

    /// Looks at the files from time to time until `stopped` turns true.
    pub(crate) async fn keep(self: Arc<Self>, every: Duration, mut stopped: watch::Receiver<bool>) {
        let mut looking = interval(every.max(Duration::from_millis(1)));
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looking.tick() => {
                    let it = Arc::clone(&self);
                    // a file system may be slow; nothing is lost if the look is
                    let _ = tokio::task::spawn_blocking(move || it.reload(false)).await;
                }
                _ = stopped.changed() => return,
            }
        }
    }
}

impl Shown {
    /// Says once a day that a certificate is about to expire.
    fn warn(&mut self, now: Timestamp) {
        let today = now.as_millis() / DAY_MS;
        let ending = self.life.filter(|life| life.is_ending(now));
        if let Some(Life { not_after, .. }) = ending.filter(|_| self.warned_on != Some(today)) {
            self.warned_on = Some(today);
            let listener = self.listener.as_str();
            tracing::warn!(listener, %not_after, "a certificate expires soon and was not renewed");
        }
    }
}

fn unusable(listener: &str, error: &dyn std::error::Error) -> Problem {
    Problem::new(format!("TLS of {listener}: {error}"), "name certificates that can be served")
}

/// The certificates as the metrics show them.
#[derive(Clone)]
pub(crate) struct CertificateMetrics(pub(crate) Arc<Certificates>);

impl std::fmt::Debug for CertificateMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateMetrics")
    }
}

impl Collector for CertificateMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut ends = encoder.encode_descriptor(
            "keyward_certificate_expires_seconds",
            "When the first certificate of a listener expires, in seconds since 1970",
            None,
            MetricType::Gauge,
        )?;
        for shown in &*self.0.listeners.lock() {
            let labels = [("listener", shown.listener.clone())];
            if let Some(life) = shown.life {
                ends.encode_family(&labels)?.encode_gauge(&life.not_after.as_seconds())?;
            }
        }
        let reloads = encoder.encode_descriptor(
            "keyward_certificate_reloads",
            "Certificates that were read again, by whether they are served now",
            None,
            MetricType::Counter,
        )?;
        encode(reloads, [("replaced", &self.0.reloaded), ("refused", &self.0.refused)])?;
        if self.0.show_issued() {
            let orders = encoder.encode_descriptor(
                "keyward_acme_orders",
                "Certificates ordered from the authority of [acme], by whether one was issued",
                None,
                MetricType::Counter,
            )?;
            encode(orders, [("issued", &self.0.issued), ("failed", &self.0.not_issued)])?;
        }
        Ok(())
    }
}

fn encode(mut counter: MetricEncoder<'_>, results: [(&str, &AtomicU64); 2]) -> std::fmt::Result {
    for (result, count) in results {
        let labels = [("result", result)];
        let count = count.load(Ordering::Relaxed);
        counter
            .encode_family(&labels)?
            .encode_counter::<[(&str, &str); 0], u64, u64>(&count, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_near_in_two_weeks_or_when_a_quarter_of_a_short_life_is_left() {
        let day = |day: i64| Timestamp::from_millis(1_800_000_000_000 + day * DAY_MS);
        for (life, now, expected) in
            [(90, 75, false), (90, 77, true), (90, 91, true), (6, 4, false), (6, 5, true)]
        {
            let lived = Life { not_before: day(0), not_after: day(life) };
            assert_eq!(lived.is_ending(day(now)), expected, "{now} of {life}");
        }
    }
}
