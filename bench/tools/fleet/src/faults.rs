//! Faults at random, one after the other, each bounded in time.

use std::sync::Arc;
use std::time::Duration;

use keyward_testkit::Fault;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::chance::Chance;
use crate::fleet::Fleet;
use crate::moment;

const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
const DOWN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(4));
const NETWORK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(6));
const BETWEEN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
const DATABASE_DOWN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3));
const SLOWEST: Duration = Duration::from_millis(150);

/// For how long a node is started again that ends at once, and the pause between.
const RESTARTED_WITHIN: Duration = Duration::from_secs(40);
const RESTART_AGAIN: Duration = Duration::from_millis(300);
/// Long enough for every connection to notice a reset.
const RESET: Duration = Duration::from_millis(50);

/// Faults that go on until they are stopped.
pub(crate) struct Faults {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Faults {
    /// Begins: one source of faults of processes, one of faults of the network.
    pub(crate) fn begin(fleet: &Arc<Fleet>) -> Self {
        let stop = watch::Sender::new(false);
        let source = |purpose| Source {
            fleet: Arc::clone(fleet),
            chance: fleet.chance.fork(purpose),
            stop: stop.subscribe(),
        };
        let tasks = vec![tokio::spawn(source(11).processes()), tokio::spawn(source(13).network())];
        Self { stop, tasks }
    }

    /// Stops them and heals what is broken; answers with the instant of healing.
    pub(crate) async fn end(self, fleet: &Fleet) -> anyhow::Result<u64> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await??;
        }
        fleet.heal().await?;
        Ok(moment::now_ns())
    }
}

struct Source {
    fleet: Arc<Fleet>,
    chance: Chance,
    stop: watch::Receiver<bool>,
}

impl Source {
    /// Lasts this long, or until faults are stopped.
    async fn last(&self, span: Duration) {
        let mut stop = self.stop.clone();
        let stopped = stop.wait_for(|stopped| *stopped);
        tokio::select! {
            () = moment::pause(span) => {}
            _ = stopped => {}
        }
    }

    fn say(&self, what: String) {
        self.fleet.ledger.fault(what);
    }

    async fn processes(self) -> anyhow::Result<()> {
        while !*self.stop.borrow() {
            self.last(self.chance.span(BETWEEN.0, BETWEEN.1)).await;
            let Some(node) = self.chance.pick(&self.fleet.nodes) else { break };
            let number = node.number;
            match self.chance.below(100) {
                0..55 => {
                    let span = self.chance.span(PAUSES.0, PAUSES.1);
                    self.say(format!("node {number} stopped for {span:?}"));
                    self.count("pauses");
                    node.freeze(true).await?;
                    self.last(span).await;
                    node.freeze(false).await?;
                    self.say(format!("node {number} goes on"));
                }
                55..85 => {
                    let span = self.chance.span(DOWN.0, DOWN.1);
                    self.say(format!("node {number} killed for {span:?}"));
                    self.count("nodeKills");
                    node.kill().await?;
                    self.last(span).await;
                    self.restart(number).await?;
                }
                85..93 => {
                    let span = self.chance.span(DATABASE_DOWN.0, DATABASE_DOWN.1);
                    self.say(format!("the database killed for {span:?}"));
                    self.count("databaseKills");
                    self.fleet.postgres.lock().await.kill().await?;
                    self.last(span).await;
                    self.fleet.postgres.lock().await.start().await?;
                    self.say("the database runs".to_owned());
                }
                _ => {
                    let span = self.chance.span(DATABASE_DOWN.0, DATABASE_DOWN.1);
                    self.say(format!("the database stopped for {span:?}"));
                    self.count("databasePauses");
                    self.fleet.postgres.lock().await.freeze(true);
                    self.last(span).await;
                    self.fleet.postgres.lock().await.freeze(false);
                    self.say("the database goes on".to_owned());
                }
            }
        }
        Ok(())
    }

    /// Starts a killed node, as a supervisor does: one that cannot reach its database ends, and is
    /// started again.
    async fn restart(&self, number: usize) -> anyhow::Result<()> {
        let node = self.fleet.node(number)?;
        let late = moment::now_ns() + moment::ns(RESTARTED_WITHIN);
        loop {
            match node.start().await {
                Ok(took) => {
                    self.fleet.ledger.started(took);
                    self.say(format!("node {number} is ready after {took:?}"));
                    return Ok(());
                }
                Err(error) if moment::now_ns() > late => return Err(error),
                Err(_) => {
                    self.count("startsFailed");
                    self.say(format!("node {number} did not start"));
                    node.kill().await?;
                    moment::pause(RESTART_AGAIN).await;
                }
            }
        }
    }

    async fn network(self) -> anyhow::Result<()> {
        while !*self.stop.borrow() {
            self.last(self.chance.span(BETWEEN.0, BETWEEN.1)).await;
            let Some(node) = self.chance.pick(&self.fleet.nodes) else { break };
            let fault = match self.chance.below(6) {
                0 => Fault::Stall,
                1 => Fault::StallRequests,
                2 => Fault::StallAnswers,
                3 => Fault::Drop,
                4 => Fault::Reset,
                _ => {
                    let least = self.chance.span(Duration::from_millis(1), SLOWEST);
                    Fault::Delay { least, jitter: least }
                }
            };
            let span = self.chance.span(NETWORK.0, NETWORK.1);
            self.say(format!("node {}: {fault:?} for {span:?}", node.number));
            self.count("networkFaults");
            node.proxy.set(fault);
            self.last(span).await;
            // half of the time what was held back is delivered, else it is lost with its connection
            if self.chance.below(2) == 0 {
                node.proxy.set(Fault::Reset);
                moment::pause(RESET).await;
            }
            node.proxy.set(Fault::Pass);
            self.say(format!("node {}: everything passes", node.number));
        }
        Ok(())
    }

    fn count(&self, what: &'static str) {
        self.fleet.ledger.tally().add(what, 1);
    }
}
