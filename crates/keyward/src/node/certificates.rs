//! The certificates of a node's listeners: read at the start, and again when their files change.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyward_core::Clock;
use keyward_core::time::Timestamp;
use keyward_gateway::{Certificate, Tls};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::tls::TlsSettings;
use crate::config::{ConfigError, Problem};

/// How long before its end a certificate is warned of, once a day.
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
    listeners: Mutex<Vec<Shown>>,
    reloaded: AtomicU64,
    refused: AtomicU64,
}

/// What one listener shows.
struct Shown {
    listener: String,
    settings: TlsSettings,
    tls: Arc<Tls>,
    looks: Vec<Option<Look>>,
    /// When the first of them expires.
    not_after: Timestamp,
    /// The day on which that was last warned of.
    warned_on: Option<i64>,
}

impl Certificates {
    /// None yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            listeners: Mutex::new(Vec::new()),
            reloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
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
        // before the files are read: what changes meanwhile is read again
        let looks = look(settings);
        let certificates = settings.read(self.clock.now())?;
        let not_after = first_end(&certificates);
        let tls = Arc::new(Tls::new(certificates).map_err(|error| unusable(&listener, &error))?);
        let mut shown = Shown {
            listener,
            settings: settings.clone(),
            tls: Arc::clone(&tls),
            looks,
            not_after,
            warned_on: None,
        };
        shown.warn(self.clock.now());
        self.listeners.lock().push(shown);
        Ok(Some(tls))
    }

    /// Reads again what has changed, or everything.
    pub(crate) fn reload(&self, everything: bool) {
        let now = self.clock.now();
        for shown in &mut *self.listeners.lock() {
            let looks = look(&shown.settings);
            if everything || looks != shown.looks {
                shown.looks = looks;
                self.reread(shown, now);
            }
            shown.warn(now);
        }
    }

    fn reread(&self, shown: &mut Shown, now: Timestamp) {
        let listener = shown.listener.as_str();
        let replaced = shown.settings.read(now).and_then(|certificates| {
            let not_after = first_end(&certificates);
            let replaced = shown.tls.replace(certificates);
            replaced.map(|()| not_after).map_err(|error| unusable(listener, &error))
        });
        match replaced {
            Ok(not_after) => {
                self.reloaded.fetch_add(1, Ordering::Relaxed);
                tracing::info!(listener, %not_after, "certificates were read anew");
                shown.not_after = not_after;
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
        let left_ms = self.not_after.as_millis() - now.as_millis();
        let today = now.as_millis() / DAY_MS;
        if left_ms < WARN_BEFORE_MS && self.warned_on != Some(today) {
            self.warned_on = Some(today);
            let (listener, not_after) = (self.listener.as_str(), self.not_after);
            tracing::warn!(listener, %not_after, "a certificate expires soon and was not renewed");
        }
    }
}

/// What the files look like now; nothing for one that cannot be looked at.
fn look(settings: &TlsSettings) -> Vec<Option<Look>> {
    let one = |path| {
        let about = std::fs::metadata(path).ok()?;
        let changed = (about.mtime(), about.mtime_nsec());
        Some(Look { inode: about.ino(), bytes: about.size(), changed })
    };
    settings.files().map(one).collect()
}

fn first_end(certificates: &[Certificate]) -> Timestamp {
    let ends = certificates.iter().map(Certificate::not_after);
    ends.min().unwrap_or(Timestamp::from_millis(0))
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
            ends.encode_family(&labels)?.encode_gauge(&shown.not_after.as_seconds())?;
        }
        let mut reloads = encoder.encode_descriptor(
            "keyward_certificate_reloads",
            "Certificates that were read again, by whether they are served now",
            None,
            MetricType::Counter,
        )?;
        for (result, count) in [("replaced", &self.0.reloaded), ("refused", &self.0.refused)] {
            let labels = [("result", result)];
            let count = count.load(Ordering::Relaxed);
            reloads
                .encode_family(&labels)?
                .encode_counter::<[(&str, &str); 0], u64, u64>(&count, None)?;
        }
        Ok(())
    }
}
