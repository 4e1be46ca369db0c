//! The phases of a run, each with its load, its faults and its figures.

mod away;
mod dead;
mod faults;
mod latency;
mod lowering;
mod rolling;
mod rotations;

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::control::Home;
use crate::fleet::Fleet;
use crate::ledger::Key;
use crate::lowering::{Lowered, Lowering};
use crate::moment;
use crate::options::{Phase, RunOptions};
use crate::report::{Report, Spans};

/// Keys that work throughout and that the load uses.
const WORKING_KEYS: usize = 60;
const TENANTS: usize = 32;

/// A run.
pub(crate) struct Run {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) options: RunOptions,
    pub(crate) report: Report,
    home: Home,
    /// Tenants over which revocations spread: the changes of one tenant queue behind one another,
    /// since their audit events form a chain.
    homes: Vec<Home>,
}

impl Run {
    /// A run whose fleet has working keys.
    pub(crate) async fn begin(fleet: Arc<Fleet>, options: RunOptions) -> anyhow::Result<Self> {
        let mut homes = Vec::new();
        for _ in 0..TENANTS {
            homes.push(fleet.home("owner").await?);
        }
        let home = fleet.home("owner").await?;
        let keys = fleet.keys(&homes, WORKING_KEYS).await?;
        fleet.ledger.employ(&keys);
        check_the_judge(&fleet, &home).await?;
        Ok(Self { fleet, options, report: Report::default(), home, homes })
    }

    /// All phases that are wanted.
    pub(crate) async fn all(&self) -> anyhow::Result<()> {
        let wants = |phase| self.options.wants(phase);
        let mut left = self.options.revocations;
        if wants(Phase::Latency) {
            left = left.saturating_sub(self.latency().await?);
        }
        if wants(Phase::Dead) && self.fleet.nodes.len() > 1 {
            left = left.saturating_sub(self.dead().await?);
        }
        if wants(Phase::Rotations) {
            self.rotations().await?;
        }
        if wants(Phase::Lowering) {
            left = left.saturating_sub(self.lowerings().await?);
        }
        if wants(Phase::Away) {
            self.away().await?;
        }
        if wants(Phase::Rolling) && self.fleet.nodes.len() > 1 {
            left = left.saturating_sub(self.rolling().await?);
        }
        if wants(Phase::Faults) {
            self.faults(left).await?;
        }
        Ok(())
    }

    const fn lease_ns(&self) -> u64 {
        self.options.lease_ms * 1_000_000
    }

    /// Ends a phase: waits for what still tries keys, and takes its counts.
    async fn close(&self, name: &str, figures: Value) {
        self.fleet.probed().await;
        self.fleet.ledger.focus(&[]);
        let tally = self.fleet.ledger.begin_tally();
        self.report.phase(name, &figures, &tally);
    }

    /// Revokes these keys, as many calls at once as there are permits.
    async fn revoke(
        &self,
        keys: Vec<Arc<Key>>,
        turn: &Arc<Semaphore>,
        wait: Option<u32>,
    ) -> Vec<Lowered> {
        let mut calls = JoinSet::new();
        for key in keys {
            let (fleet, turn) = (Arc::clone(&self.fleet), Arc::clone(turn));
            calls.spawn(async move {
                // the semaphore is never closed
                let _turn = turn.acquire().await;
                fleet.lower(Lowering::revoke(&key), wait, None).await
            });
        }
        calls.join_all().await
    }
}

/// A key that works and is said to have stopped must be found out, or nothing here means anything.
async fn check_the_judge(fleet: &Arc<Fleet>, home: &Home) -> anyhow::Result<()> {
    let key = fleet.key(home).await?;
    fleet.ledger.rehearse(true);
    fleet.ledger.lowered(&key, moment::now_ns(), &json!("never asked for"));
    fleet.try_everywhere(&key, 1).await;
    let found = fleet.ledger.violated();
    fleet.ledger.rehearse(false);
    ensure!(found == 1, "the judge did not see that a stopped key was accepted");
    // the others go on as if nothing had been
    fleet.lower(Lowering::revoke(&key), None, None).await;
    fleet.probed().await;
    fleet.ledger.begin_tally();
    Ok(())
}

/// How long the calls took that were answered.
fn latencies(lowered: &[Lowered]) -> Spans {
    let answered = lowered.iter().filter(|it| it.answered);
    Spans::new(answered.map(|it| it.latency_ns).collect())
}

fn shown_ms(span: Duration) -> String {
    format!("{:.0} ms", span.as_secs_f64() * 1e3)
}
