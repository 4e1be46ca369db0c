//! Phase: rolling restarts under load (P25). No request fails, and no revocation waits for a node
//! that has left.
//!
//! Clients are served as through a load balancer that asks `/readyz` every 100 ms and sends nothing
//! new to a node that says no. Every request to a ready node must be answered by the upstream; the
//! rule for connections stands in `pool.rs`.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::Run;
use crate::load::{Kind, Load, Served};
use crate::lowering::Lowering;
use crate::moment;
use crate::report::Spans;

/// What a revocation may take while a node has left; it would be the lease otherwise.
const WAITS_AT_MOST_MS: f64 = 1_000.0;

impl Run {
    /// Answers with how many keys were revoked.
    pub(super) async fn rolling(&self) -> anyhow::Result<usize> {
        eprintln!("rolling restarts under load");
        let load = Load::begin(&self.fleet, self.options.rate, Kind::Balanced);
        let (mut ends, mut starts, mut revokes) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=self.options.restarts {
            for node in &self.fleet.nodes {
                let key = self.fleet.key(&self.home).await?;
                self.fleet.ledger.fault(format!("node {} gets SIGTERM", node.number));
                ends.push(moment::ns(node.terminate().await?));
                let others = self.fleet.nodes.len() - 1;
                let other = (node.number + 1 + self.fleet.chance.below(others)) % (others + 1);
                let lowered = self.fleet.lower(Lowering::revoke(&key), None, Some(other)).await;
                revokes.push(lowered.latency_ns);
                // keys are tried at nodes that run; this one refuses connections for now
                self.fleet.probed().await;
                starts.push(moment::ns(node.start().await?));
                self.fleet.ledger.fault(format!("node {} is ready", node.number));
            }
            eprintln!("  round {round} of {}", self.options.restarts);
        }
        let served = load.end().await;
        let (ends, starts, revokes) = (Spans::new(ends), Spans::new(starts), Spans::new(revokes));
        self.judge_rolling(&served, &revokes);
        self.report.says("SIGTERM to end: p50 / p99 / max", ends.text());
        self.report.says("start to ready: p50 / p99 / max", starts.text());
        let count = revokes.count();
        let figures = json!({
            "ends": ends.shown(), "starts": starts.shown(), "revokes": revokes.shown(),
        });
        let took = self.fleet.converge(moment::now_ns(), self.lease_ns()).await?;
        self.report.says("converged after the last restart after", super::shown_ms(took));
        self.close("rolling", figures).await;
        Ok(count)
    }

    fn judge_rolling(&self, served: &Served, revokes: &Spans) {
        let failed = served.failed.lock().clone();
        let all = served.count.load(Ordering::Relaxed);
        let got = format!("{} of {all} failed", failed.len());
        let what = format!(
            "requests through a load balancer, {} restarts of {} nodes",
            self.options.restarts * self.fleet.nodes.len(),
            self.fleet.nodes.len()
        );
        self.report.wants(&what, "0 failed", got, failed.is_empty());
        for story in failed.into_iter().take(10) {
            self.fleet.ledger.violation("P25", story);
        }
        let what = "revoke answer while a node has left: p50 / p99 / max";
        let met = revokes.max() <= WAITS_AT_MOST_MS;
        self.report.wants(what, "waits for nobody, ≤ 1000 ms", revokes.text(), met);
    }
}
