//! Phase 1: how long a revocation takes to answer when all is well.

use std::sync::Arc;

use serde_json::{Map, json};
use tokio::sync::Semaphore;

use super::{Run, latencies};
use crate::load::{Kind, Load};

/// Calls at once, and the share of the revocations of this phase in percent.
const STEPS: [(usize, usize); 4] = [(1, 20), (4, 20), (16, 25), (100, 35)];
/// The share of all revocations, in percent.
const SHARE: usize = 20;
/// The fewest revocations of this phase.
const LEAST: usize = 40;
/// What is wanted of the answer, in milliseconds.
const P50_MS: f64 = 10.0;
const P99_MS: f64 = 50.0;

impl Run {
    /// Answers with how many keys were revoked.
    pub(super) async fn latency(&self) -> anyhow::Result<usize> {
        eprintln!("healthy: how long a revocation takes to answer");
        let all = (self.options.revocations * SHARE / 100).max(LEAST);
        let load = Load::begin(&self.fleet, self.options.rate, Kind::Everywhere);
        let mut figures = Map::new();
        let mut revoked = 0;
        for (at_once, share) in STEPS {
            let count = (all * share / 100).max(1);
            let keys = self.fleet.keys(&self.homes, count).await?;
            self.fleet.ledger.focus(&keys);
            let turn = Arc::new(Semaphore::new(at_once));
            let lowered = if at_once == 1 {
                let mut lowered = Vec::new();
                for key in keys {
                    lowered.extend(self.revoke(vec![key], &turn, None).await);
                    self.fleet.probed().await;
                }
                lowered
            } else {
                self.revoke(keys, &turn, None).await
            };
            self.fleet.probed().await;
            revoked += lowered.len();
            let spans = latencies(&lowered);
            let waited = lowered.iter().map(|it| it.waited_ms).max();
            let shown = json!({ "answers": spans.shown(), "waitedMaxMs": waited });
            figures.insert(format!("atOnce{at_once}"), shown);
            let what = format!("revoke answer, healthy, {at_once} at once: p50 / p99 / max");
            let got = format!("{} ({} calls)", spans.text(), spans.count());
            if at_once <= 4 {
                let met = spans.at(500) <= P50_MS && spans.at(990) <= P99_MS;
                self.report.wants(&what, "p50 ≤ 10 ms, p99 ≤ 50 ms", got, met);
            } else {
                self.report.says(&what, got);
            }
        }
        load.end().await;
        let tally = self.fleet.ledger.tally();
        let unwell = ["unavailable", "noAnswer", "otherStatus"].map(|name| tally.of(name));
        let got = format!("{} of {} accepted", unwell.iter().sum::<u64>(), tally.of("accepted"));
        self.report.wants("requests not served, healthy", "0", got, unwell == [0; 3]);
        self.close("latency", json!(figures)).await;
        Ok(revoked)
    }
}
