//! How well a node follows the authority, in numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Follower;
use crate::metrics::NoLabels;

/// What is counted along the way.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Questions to the authority: renewals and plain ones.
    pub(super) asks: AtomicU64,
    /// Those that failed.
    pub(super) failed_asks: AtomicU64,
    /// Look-ups of single keys and tokens in the store.
    pub(super) look_ups: AtomicU64,
    /// Loads of everything.
    pub(super) loads: AtomicU64,
}

pub(super) fn count(cell: &AtomicU64) {
    cell.fetch_add(1, Ordering::Relaxed);
}

/// The numbers of a follower as a collector.
#[derive(Debug)]
pub struct FollowerMetrics(pub(super) Arc<Follower>);

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("node", &self.node()).finish_non_exhaustive()
    }
}

impl Collector for FollowerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let counts = self.0.counts();
        let counters = [
            ("keyward_authority_asks", "Questions to the authority", &counts.asks),
            ("keyward_authority_failed_asks", "Questions without an answer", &counts.failed_asks),
            ("keyward_authority_look_ups", "Ids looked up in the store", &counts.look_ups),
            ("keyward_authority_loads", "Loads of everything", &counts.loads),
        ];
        for (name, help, cell) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabels, u64, u64>(&cell.load(Ordering::Relaxed), None)?;
        }
        let keys = self.0.keys();
        let mut evicted = encoder.encode_descriptor(
            "keyward_authority_evicted_keys",
            "Keys that made room for others in memory",
            None,
            MetricType::Counter,
        )?;
        evicted.encode_counter::<NoLabels, u64, u64>(&keys.evicted(), None)?;
        let left_ms = self.0.lease_left_ns() / 1_000_000;
        let gauges = [
            ("keyward_authority_epoch", "The newest change in memory", self.0.epoch().0),
            ("keyward_authority_keys", "Keys in memory", keys.len() as u64),
            ("keyward_authority_lease_left_ms", "What is left of the lease", left_ms),
        ];
        for (name, help, value) in gauges {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }
}
