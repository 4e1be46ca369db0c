//! Requests beside the probes, at a bounded rate, to every node for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fleet::Fleet;
use crate::ledger::{Asked, Outcome};
use crate::moment;
use crate::node::Node;

/// Requests of the load that may be under way on one node.
const WORKERS: u32 = 8;
/// Failures of which the story is kept.
const STORIES: usize = 1_000;
/// How often a load balancer asks whether a node is ready.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which requests the load makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any keys, to every node, whatever state it is in.
    Everywhere,
    /// Working keys only, and as through a load balancer: to nodes that say they are ready.
    Balanced,
}

/// What came of a balanced load.
#[derive(Default)]
pub(crate) struct Served {
    pub(crate) count: AtomicU64,
    /// The stories of requests that a ready node did not serve; the first thousand.
    pub(crate) failed: Mutex<Vec<Value>>,
}

/// A load that goes on until it is stopped.
pub(crate) struct Load {
    served: Arc<Served>,
    stop: watch::Sender<bool>,
    workers: JoinSet<()>,
}

impl Load {
    /// Begins with this many requests a second over all nodes.
    pub(crate) fn begin(fleet: &Arc<Fleet>, rate: u32, kind: Kind) -> Self {
        let stop = watch::Sender::new(false);
        let served = Arc::new(Served::default());
        let mut workers = JoinSet::new();
        let nodes = u32::try_from(fleet.nodes.len()).unwrap_or(1);
        let every = Duration::from_secs(1) * WORKERS * nodes / rate.max(1);
        for node in &fleet.nodes {
            for _ in 0..WORKERS {
                let worker = Worker {
                    fleet: Arc::clone(fleet),
                    node: Arc::clone(node),
                    every: moment::ns(every),
                    kind,
                    served: Arc::clone(&served),
                };
                workers.spawn(worker.work(stop.subscribe()));
            }
            if kind == Kind::Balanced {
                workers.spawn(look(Arc::clone(node), stop.subscribe()));
            }
        }
        Self { served, stop, workers }
    }

    /// Waits until the last request is answered.
    pub(crate) async fn end(mut self) -> Arc<Served> {
        self.stop.send_replace(true);
        while self.workers.join_next().await.is_some() {}
        self.served
    }
}

struct Worker {
    fleet: Arc<Fleet>,
    node: Arc<Node>,
    every: u64,
    kind: Kind,
    served: Arc<Served>,
}

impl Worker {
    async fn work(self, stop: watch::Receiver<bool>) {
        let Self { fleet, node, .. } = &self;
        // spread, so that the workers do not beat together
        let first = fleet.chance.below(usize::try_from(self.every).unwrap_or(1));
        let mut due = moment::now_ns() + u64::try_from(first).unwrap_or(0);
        while !*stop.borrow() {
            moment::pause_until(due).await;
            due = moment::now_ns().max(due + self.every);
            if *stop.borrow() || (self.kind == Kind::Balanced && !node.is_ready()) {
                continue;
            }
            let key = match self.kind {
                Kind::Everywhere => fleet.ledger.any_key(&fleet.chance),
                Kind::Balanced => fleet.ledger.any_working(&fleet.chance),
            };
            let Some(key) = key else { continue };
            let stopped = key.is_stopped(moment::now_ns());
            let asked = node.ask(&key, stopped).await;
            fleet.ledger.judge(&key, &asked);
            self.note(&asked);
        }
    }

    fn note(&self, asked: &Asked) {
        self.served.count.fetch_add(1, Ordering::Relaxed);
        if asked.outcome != Outcome::Accepted && self.kind == Kind::Balanced {
            let mut failed = self.served.failed.lock();
            if failed.len() < STORIES {
                failed.push(asked.shown());
            }
        }
    }
}

async fn look(node: Arc<Node>, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        node.look().await;
        moment::pause(LOOK_EVERY).await;
    }
}
