//! Phase 2: one node was killed and does not come back by itself.

use std::time::Duration;

use serde_json::json;

use super::{Run, latencies, shown_ms};
use crate::load::{Kind, Load};
use crate::lowering::Lowering;
use crate::moment;
use crate::report::{Figures, Spans};

const BEFORE_NOTICED: usize = 3;
const AT_ONCE: usize = 20;
const AFTER_NOTICED: usize = 20;
/// Latency that says that nobody waits for the dead node any more.
const NOTICED_BELOW_NS: u64 = 500_000_000;
/// How many leases the fleet may take to forget the node, with some room.
const NOTICED_WITHIN_LEASES: u64 = 15;
/// P2: what a revocation may take beyond the lease, and R5: what is a violation.
const WANTED_BEYOND_NS: u64 = 200_000_000;
const BEYOND_NS: u64 = 1_051_000_000;
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Run {
    /// Answers with how many keys were revoked.
    pub(super) async fn dead(&self) -> anyhow::Result<usize> {
        eprintln!("one node dead");
        let dead = self.fleet.nodes.len() - 1;
        let keys = self.fleet.keys(&self.homes, BEFORE_NOTICED + AT_ONCE).await?;
        let load = Load::begin(&self.fleet, self.options.rate, Kind::Everywhere);
        self.fleet.ledger.focus(&keys);
        self.fleet.node(dead)?.kill().await?;
        let killed = moment::now_ns();
        self.fleet.ledger.fault(format!("node {dead} killed for good"));

        let mut waiting = Vec::new();
        for key in keys.iter().take(BEFORE_NOTICED) {
            waiting.push(self.revoke_through_living(key).await);
        }
        let rest: Vec<_> = keys.iter().skip(BEFORE_NOTICED).cloned().collect();
        waiting.extend(self.revoke_beside(rest, dead).await);
        let waiting = Spans::new(waiting);
        let bound = self.lease_ns() + WANTED_BEYOND_NS;
        let got = format!("{} ({} calls)", waiting.text(), waiting.count());
        let wanted = format!("≤ {:.0} ms", moment::ms(bound));
        let met = waiting.max() <= moment::ms(bound);
        self.report.wants("revoke answer, one node dead: p50 / p99 / max", &wanted, got, met);
        if waiting.max() > moment::ms(self.lease_ns() + BEYOND_NS) {
            self.fleet.ledger.violation("R5", json!({ "deadNode": waiting.shown() }));
        }

        let mut figures = Figures::default();
        figures.set("waiting", waiting.shown());
        let mut revoked = waiting.count();
        if !self.options.quick {
            revoked += self.noticed(killed, &mut figures).await?;
        }
        load.end().await;
        self.fleet.heal().await?;
        let took = self.fleet.converge(moment::now_ns(), self.lease_ns()).await?;
        self.report.says("the killed node is back and has caught up after", shown_ms(took));
        self.close("dead", figures.shown()).await;
        Ok(revoked)
    }

    /// Revokes now and then until nobody waits for the dead node, and measures again.
    async fn noticed(&self, killed: u64, figures: &mut Figures) -> anyhow::Result<usize> {
        let mut revoked = 0;
        let bound = self.lease_ns() * NOTICED_WITHIN_LEASES;
        let noticed = loop {
            let key = self.fleet.key(&self.home).await?;
            let latency = self.revoke_through_living(&key).await;
            revoked += 1;
            let since = moment::now_ns() - killed;
            if latency < NOTICED_BELOW_NS || since > bound {
                break since;
            }
            moment::pause(LOOK_AGAIN).await;
        };
        let what = "revocations stop waiting for a dead node after";
        let got = format!("{:.1} s", moment::ms(noticed) / 1e3);
        self.report.wants(what, "≤ 15 leases", got, noticed <= bound);
        let keys = self.fleet.keys(&self.homes, AFTER_NOTICED).await?;
        let mut after = Vec::new();
        for key in &keys {
            after.push(self.revoke_through_living(key).await);
        }
        revoked += after.len();
        let after = Spans::new(after);
        let got = format!("{} ({} calls)", after.text(), after.count());
        let what = "revoke answer, the dead node forgotten: p50 / p99 / max";
        self.report.wants(what, "p50 ≤ 10 ms", got, after.at(500) <= 10.0);
        figures.set("noticedMs", moment::ms(noticed));
        figures.set("after", after.shown());
        Ok(revoked)
    }

    async fn revoke_through_living(&self, key: &std::sync::Arc<crate::ledger::Key>) -> u64 {
        // the last node is the dead one
        let living = self.fleet.chance.below(self.fleet.nodes.len() - 1);
        let lowering = Lowering::revoke(key);
        let lowered = self.fleet.lower(lowering, None, Some(living)).await;
        latencies(&[lowered]).max_ns()
    }

    async fn revoke_beside(
        &self,
        keys: Vec<std::sync::Arc<crate::ledger::Key>>,
        dead: usize,
    ) -> Vec<u64> {
        let mut calls = tokio::task::JoinSet::new();
        for key in keys {
            let fleet = std::sync::Arc::clone(&self.fleet);
            let living = self.fleet.chance.below(dead);
            calls.spawn(
                async move { fleet.lower(Lowering::revoke(&key), None, Some(living)).await },
            );
        }
        calls.join_all().await.iter().map(|lowered| lowered.latency_ns).collect()
    }
}
