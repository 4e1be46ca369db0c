//! Phase: most revocations, up to 100 at once, with faults of every kind beside them.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Run, latencies, shown_ms};
use crate::faults::Faults;
use crate::load::{Kind, Load};
use crate::lowering::Lowered;
use crate::moment;
use crate::report::Spans;

/// The most revocations at once.
const AT_ONCE: usize = 100;
/// Batches of each stream between two healings.
const BATCHES: usize = 5;
/// Batches of a short run, which are all of them.
const QUICK_BATCHES: usize = 1;
/// When no further batch is begun, in minutes.
const MINUTES: u64 = 25;
/// The seconds a node may hold its answer back; chosen for each batch. `None` is the node's own.
const WAITS: [Option<u32>; 4] = [None, None, Some(0), Some(1)];

impl Run {
    pub(super) async fn faults(&self, revocations: usize) -> anyhow::Result<()> {
        eprintln!("{revocations} revocations with faults");
        let load = Load::begin(&self.fleet, self.options.rate, Kind::Everywhere);
        let violated = self.fleet.ledger.violated();
        let begun = moment::now_ns();
        let mut all: Vec<Lowered> = Vec::new();
        let mut converged = Vec::new();
        let turn = Arc::new(Semaphore::new(AT_ONCE));
        let late = begun + MINUTES * 60 * 1_000_000_000;
        while all.len() < revocations && moment::now_ns() < late {
            let faults = Faults::begin(&self.fleet);
            let left = Mutex::new(revocations - all.len());
            let stream = || self.batches(&left, &turn);
            let (one, two, three) = tokio::try_join!(stream(), stream(), stream())?;
            all.extend([one, two, three].into_iter().flatten());
            let healed = faults.end(&self.fleet).await?;
            let took = self.fleet.converge(healed, self.lease_ns()).await?;
            converged.push(moment::ns(took));
            eprintln!("  {} revocations, converged after {}", all.len(), shown_ms(took));
            if self.options.quick {
                break;
            }
        }
        load.end().await;
        self.fleet.probed().await;
        let violated = self.fleet.ledger.violated() - violated;
        let figures = self.show_faults(&all, &Spans::new(converged), violated);
        self.close("faults", figures).await;
        Ok(())
    }

    /// Batches of revocations one after the other; three of these run beside one another.
    async fn batches(
        &self,
        left: &Mutex<usize>,
        turn: &Arc<Semaphore>,
    ) -> anyhow::Result<Vec<Lowered>> {
        let batches = if self.options.quick { QUICK_BATCHES } else { BATCHES };
        let mut all = Vec::new();
        for _ in 0..batches {
            let count = {
                let mut left = left.lock();
                let count = self.fleet.chance.between(1, AT_ONCE).min(*left);
                *left -= count;
                count
            };
            if count == 0 {
                break;
            }
            let keys = self.fleet.keys(&self.homes, count).await?;
            self.fleet.ledger.focus(&keys);
            let wait = self.fleet.chance.pick(&WAITS).copied().flatten();
            all.extend(self.revoke(keys, turn, wait).await);
        }
        Ok(all)
    }

    fn show_faults(&self, all: &[Lowered], converged: &Spans, violated: u64) -> Value {
        let tally = self.fleet.ledger.tally();
        let effective = all.iter().filter(|it| it.effective).count();
        let propagating = all.iter().filter(|it| it.answered && !it.effective).count();
        let repeated = all.iter().filter(|it| it.attempts > 1).count();
        let got = format!("{violated} violations of {} revocations", all.len());
        self.report.wants(
            "requests accepted after a revocation was answered",
            "0",
            got,
            violated == 0,
        );
        let got = format!("{effective} effective, {propagating} propagating, {repeated} repeated");
        self.report.says("answers under faults", got);
        let polls = tally.of("pollsPastEffectiveBy");
        self.report.says("questions answered `propagating` after effectiveBy", polls.to_string());
        let spans = latencies(all);
        self.report.says("revoke answer under faults: p50 / p99 / max", spans.text());
        let names = ["pauses", "nodeKills", "databaseKills", "databasePauses", "networkFaults"];
        let faults: Vec<String> =
            names.iter().map(|name| format!("{} {name}", tally.of(name))).collect();
        self.report.says("faults", faults.join(", "));
        let bound = moment::ms(self.lease_ns() + 1_000_000_000);
        let got = format!("{} ({} times)", converged.text(), converged.count());
        let what = "all nodes on one epoch after healing: p50 / p99 / max";
        self.report.wants(what, "≤ 3000 ms", got, converged.max() <= bound);
        let starts = Spans::new(self.fleet.ledger.starts());
        let got = format!("{} ({} starts)", starts.text(), starts.count());
        self.report.says("killed node, start to ready: p50 / p99 / max", got);
        json!({
            "revocations": all.len(), "effective": effective, "propagating": propagating,
            "repeated": repeated, "answers": spans.shown(), "convergence": converged.shown(),
            "starts": starts.shown(),
        })
    }
}
