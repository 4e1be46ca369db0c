//! Phase: the authority is away, for one node or for all (R4, P18). A node goes on for no longer
//! than its lease, says 503 with `Retry-After` from then on, and never 401; when the database is
//! back it serves within seconds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use keyward_testkit::Fault;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Run, latencies};
use crate::fleet::Fleet;
use crate::ledger::{Asked, Outcome};
use crate::lowering::Lowering;
use crate::moment;
use crate::node::Node;
use crate::report::Figures;

/// Requests under way on each node, and the pause of each between two.
const ASKERS: usize = 3;
const ASK_EVERY: Duration = Duration::from_millis(30);
/// For how long the authority is away beyond the lease.
const BEYOND_LEASE: Duration = Duration::from_millis(2_500);
/// For how long nodes are watched afterwards, and within which they must serve again.
const WATCHED: Duration = Duration::from_secs(7);
const BACK_WITHIN_MS: f64 = 5_000.0;
/// P2 for a node that is cut off.
const REVOKE_BEYOND_NS: u64 = 200_000_000;
/// For how long the database's transactions are counted before and after.
const COUNTED: Duration = Duration::from_secs(4);
const TRANSACTIONS: &str = "SELECT (xact_commit + xact_rollback)::bigint FROM pg_stat_database
    WHERE datname = 'keyward'";

/// How the authority goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    /// One node's network does this.
    OneNode(Fault),
    /// The network of all nodes does this.
    AllNodes(Fault),
    /// Every process of the database is stopped, and goes on afterwards.
    DatabaseStopped,
    /// `kill -9` of every process of the database.
    DatabaseKilled,
}

const EVERY: [Away; 8] = [
    Away::OneNode(Fault::Stall),
    Away::OneNode(Fault::StallRequests),
    Away::OneNode(Fault::StallAnswers),
    Away::OneNode(Fault::Reset),
    Away::AllNodes(Fault::Stall),
    Away::AllNodes(Fault::Reset),
    Away::DatabaseStopped,
    Away::DatabaseKilled,
];
const QUICK: [Away; 1] = [Away::OneNode(Fault::Stall)];

impl Run {
    pub(super) async fn away(&self) -> anyhow::Result<()> {
        let mut figures = Vec::new();
        let all: &[Away] = if self.options.quick { &QUICK } else { &EVERY };
        for away in all {
            let single = matches!(away, Away::OneNode(_));
            if !single || self.fleet.nodes.len() > 1 {
                eprintln!("authority away: {away:?}");
                figures.push(self.one(*away).await?);
            }
        }
        self.close("away", json!(figures)).await;
        Ok(())
    }

    async fn one(&self, away: Away) -> anyhow::Result<Value> {
        let steady = match away {
            Away::AllNodes(Fault::Stall) => Some(self.transactions_of(COUNTED).await?),
            _ => None,
        };
        let key = self.fleet.key(&self.home).await?;
        let askers = Askers::begin(&self.fleet);
        moment::pause(ASK_EVERY * 5).await;
        self.fleet.ledger.fault(format!("authority away: {away:?}"));
        self.cut(away).await?;
        let cut = moment::now_ns();
        let mut figures = Figures::default();
        figures.set("away", format!("{away:?}"));
        if matches!(away, Away::OneNode(_)) {
            // node 0 is the one that is cut off
            let through = 1 + self.fleet.chance.below(self.fleet.nodes.len() - 1);
            let revoke = self.fleet.lower(Lowering::revoke(&key), None, Some(through)).await;
            let took = latencies(&[revoke]).max_ns();
            let bound = self.lease_ns() + REVOKE_BEYOND_NS;
            let wanted = format!("≤ {:.0} ms", moment::ms(bound));
            let what = format!("revoke answer, {away:?}");
            self.report.wants(&what, &wanted, format!("{:.0} ms", moment::ms(took)), took <= bound);
            figures.set("revokeMs", moment::ms(took));
        }
        let until = cut + self.lease_ns() + moment::ns(BEYOND_LEASE);
        moment::pause_until(until).await;
        self.fleet.heal().await?;
        let healed = moment::now_ns();
        let (converged, after) =
            tokio::join!(self.fleet.converge(healed, self.lease_ns()), async {
                match steady {
                    Some(_) => self.transactions_of(COUNTED).await,
                    None => Ok(0),
                }
            });
        figures.set("convergedMs", converged?.as_secs_f64() * 1e3);
        if let Some(steady) = steady {
            let after = after?;
            let got = format!("{after} after, {steady} before");
            let what = format!("transactions in {COUNTED:?} around {away:?}");
            self.report.wants(&what, "≤ 2 ×", got, after <= steady.max(1) * 2);
            figures.set("transactions", json!({ "before": steady, "after": after }));
        }
        let watched = if self.options.quick { WATCHED / 3 } else { WATCHED };
        moment::pause_until(healed + moment::ns(watched)).await;
        let asked = askers.end().await;
        self.judge_away(away, cut, until, healed, &asked, &mut figures);
        Ok(figures.shown())
    }

    async fn cut(&self, away: Away) -> anyhow::Result<()> {
        match away {
            Away::OneNode(fault) => self.fleet.node(0)?.proxy.set(fault),
            Away::AllNodes(fault) => self.fleet.nodes.iter().for_each(|node| node.proxy.set(fault)),
            Away::DatabaseStopped => self.fleet.postgres.lock().await.freeze(true),
            Away::DatabaseKilled => self.fleet.postgres.lock().await.kill().await?,
        }
        Ok(())
    }

    fn judge_away(
        &self,
        away: Away,
        cut: u64,
        until: u64,
        healed: u64,
        asked: &[Asked],
        figures: &mut Figures,
    ) {
        let alone = matches!(away, Away::OneNode(_));
        let lease_end = cut + self.lease_ns();
        let concerned = |it: &&Asked| !alone || it.node == 0;
        let without =
            asked.iter().filter(concerned).filter(|it| it.sent >= lease_end && it.done < until);
        let without: Vec<&Asked> = without.collect();
        let accepted = without.iter().filter(|it| it.outcome == Outcome::Accepted);
        let wrongly: Vec<Value> = accepted.map(|it| it.shown()).collect();
        let proper = |it: &&&Asked| it.outcome == Outcome::Unavailable { retry_after: true };
        let properly = without.iter().filter(proper).count();
        for story in wrongly.iter().take(3) {
            let story =
                json!({ "away": format!("{away:?}"), "cutMs": moment::ms(cut), "asked": story });
            self.fleet.ledger.violation("R4", story);
        }
        let got = format!(
            "{} accepted, {properly} of {} were 503 with Retry-After",
            wrongly.len(),
            without.len()
        );
        let met = wrongly.is_empty() && properly == without.len() && !without.is_empty();
        self.report.wants(&format!("{away:?}: after the lease"), "only 503", got, met);
        let late = asked.iter().filter(|it| it.sent > cut && it.outcome != Outcome::Accepted);
        let after = late.filter(|it| it.done > healed).map(|it| it.done - healed).max();
        let back = moment::ms(after.unwrap_or(0));
        let got = format!("{back:.0} ms");
        let what = format!("{away:?}: all requests served again after");
        self.report.wants(&what, "≤ 5000 ms", got, back <= BACK_WITHIN_MS);
        figures.set(
            "afterLease",
            json!({
                "requests": without.len(), "accepted": wrongly.len(), "unavailable": properly,
            }),
        );
        figures.set("backMs", back);
        if alone {
            let others = asked.iter().filter(|it| it.node != 0);
            let failed = others.filter(|it| it.outcome != Outcome::Accepted).count();
            let what = format!("{away:?}: requests to the other nodes that failed");
            self.report.wants(&what, "0", failed.to_string(), failed == 0);
            figures.set("othersFailed", failed);
        }
    }

    async fn transactions_of(&self, span: Duration) -> anyhow::Result<i64> {
        let client = self.fleet.database().await?;
        let count = || async {
            let row = client.query_one(TRANSACTIONS, &[]).await?;
            row.try_get::<_, i64>(0).context("pg_stat_database")
        };
        let before = count().await?;
        moment::pause(span).await;
        Ok(count().await? - before)
    }
}

/// Requests to every node, all of which are remembered.
struct Askers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Vec<Asked>>,
}

impl Askers {
    fn begin(fleet: &Arc<Fleet>) -> Self {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for node in &fleet.nodes {
            for _ in 0..ASKERS {
                tasks.spawn(ask(Arc::clone(fleet), Arc::clone(node), stop.subscribe()));
            }
        }
        Self { stop, tasks }
    }

    async fn end(self) -> Vec<Asked> {
        self.stop.send_replace(true);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

async fn ask(fleet: Arc<Fleet>, node: Arc<Node>, stop: watch::Receiver<bool>) -> Vec<Asked> {
    let mut all = Vec::new();
    while !*stop.borrow() {
        if let Some(key) = fleet.ledger.any_working(&fleet.chance) {
            let asked = node.ask(&key, false).await;
            fleet.ledger.judge(&key, &asked);
            all.push(asked);
        }
        moment::pause(ASK_EVERY).await;
    }
    all
}
