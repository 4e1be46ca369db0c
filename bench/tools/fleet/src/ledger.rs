//! What is known of every key, and what contradicts a promise.
//!
//! All instants are readings of the one monotonic clock of this process. A request counts as sent
//! when the clock was read, right before its first byte was written; a lowering counts as answered
//! when the clock was read, right after the last byte of its answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::moment;

/// The keys that stopped last and are still tried by the load.
const STOPPED_KEPT: usize = 2_000;
/// Violations of which the story is kept; the others are counted.
const STORIES: usize = 50;
/// Faults that are remembered.
const FAULTS_KEPT: usize = 20_000;
/// For how long before a lowering its faults belong to the story.
const STORY_BEFORE_NS: u64 = 15_000_000_000;

/// A key and what happened to it.
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) secret: String,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    /// When the call that lowers its authority was first sent.
    lowering_sent: Option<u64>,
    /// When that call was answered, or is promised to hold.
    lowered: Option<u64>,
    /// How it was lowered, for the story.
    story: Value,
    /// The accepted request that was sent last.
    accepted: Option<Accepted>,
    told: bool,
}

#[derive(Clone, Copy)]
struct Accepted {
    sent: u64,
    seen: u64,
    node: usize,
    /// Whether the upstream saw it, or only our own answer says so.
    by: &'static str,
}

impl Key {
    /// Notes that a call is about to be sent that lowers the authority of this key.
    pub(crate) fn lowering(&self, sent: u64) {
        self.life.lock().lowering_sent.get_or_insert(sent);
    }

    /// Whether a request that was sent then must be refused.
    pub(crate) fn is_stopped(&self, sent: u64) -> bool {
        self.life.lock().lowered.is_some_and(|at| sent > at)
    }
}

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The upstream answered.
    Accepted,
    /// 401, 403 or 429.
    Refused(u16, String),
    /// 503, and whether it says when to come again.
    Unavailable { retry_after: bool },
    /// Another status.
    Other(u16, String),
    /// No answer.
    Failed(String),
}

/// One request of ours.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) node: usize,
    pub(crate) sent: u64,
    pub(crate) done: u64,
    pub(crate) outcome: Outcome,
}

impl Asked {
    pub(crate) fn shown(&self) -> Value {
        json!({
            "node": self.node,
            "sentMs": moment::ms(self.sent),
            "doneMs": moment::ms(self.done),
            "outcome": format!("{:?}", self.outcome),
        })
    }
}

/// Counts of one phase.
#[derive(Default)]
pub(crate) struct Tally {
    counts: Mutex<std::collections::BTreeMap<&'static str, u64>>,
    /// Texts of failures, and how often each came.
    failures: Mutex<std::collections::BTreeMap<String, u64>>,
}

impl Tally {
    pub(crate) fn add(&self, what: &'static str, count: u64) {
        *self.counts.lock().entry(what).or_default() += count;
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.counts.lock().get(what).copied().unwrap_or(0)
    }

    fn failed(&self, text: &str) {
        const TEXTS: usize = 40;
        let mut failures = self.failures.lock();
        if failures.len() < TEXTS || failures.contains_key(text) {
            *failures.entry(text.to_owned()).or_default() += 1;
        }
    }

    pub(crate) fn shown(&self) -> Value {
        json!({ "counts": *self.counts.lock(), "failures": *self.failures.lock() })
    }
}

/// A promise that was not kept.
pub(crate) struct Violation {
    pub(crate) promise: &'static str,
    pub(crate) story: Value,
}

/// All keys, all faults, all violations.
pub(crate) struct Ledger {
    keys: RwLock<HashMap<String, Arc<Key>>>,
    /// Keys that work and that the load uses.
    working: RwLock<Vec<Arc<Key>>>,
    /// Keys that are about to be lowered.
    focus: RwLock<Vec<Arc<Key>>>,
    /// Keys that were lowered lately.
    stopped: RwLock<Vec<Arc<Key>>>,
    faults: Mutex<Vec<(u64, String)>>,
    violations: Mutex<Vec<Violation>>,
    violated: AtomicU64,
    rehearses: AtomicBool,
    tally: RwLock<Arc<Tally>>,
    accepted_upstream: AtomicU64,
    /// How long killed nodes took from start to ready, in nanoseconds.
    starts: Mutex<Vec<u64>>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            keys: RwLock::default(),
            working: RwLock::default(),
            focus: RwLock::default(),
            stopped: RwLock::default(),
            faults: Mutex::default(),
            violations: Mutex::default(),
            violated: AtomicU64::new(0),
            rehearses: AtomicBool::new(false),
            tally: RwLock::default(),
            accepted_upstream: AtomicU64::new(0),
            starts: Mutex::default(),
        }
    }

    // -- phases and faults ---------------------------------------------------------------------

    /// The counts of the phase that runs.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally.read())
    }

    /// Begins to count anew; answers with the counts so far.
    pub(crate) fn begin_tally(&self) -> Arc<Tally> {
        std::mem::take(&mut *self.tally.write())
    }

    pub(crate) fn fault(&self, what: String) {
        let mut faults = self.faults.lock();
        if faults.len() < FAULTS_KEPT {
            faults.push((moment::now_ns(), what));
        }
    }

    fn faults_between(&self, from: u64, to: u64) -> Vec<String> {
        let faults = self.faults.lock();
        let within = faults.iter().filter(|(at, _)| (from..=to).contains(at));
        within.map(|(at, what)| format!("{:.1} ms: {what}", moment::ms(*at))).collect()
    }

    /// A node that was killed is ready again.
    pub(crate) fn started(&self, took: Duration) {
        self.starts.lock().push(moment::ns(took));
    }

    pub(crate) fn starts(&self) -> Vec<u64> {
        self.starts.lock().clone()
    }

    /// While it rehearses, violations are counted and not told; afterwards the count is 0 again.
    pub(crate) fn rehearse(&self, begins: bool) {
        self.rehearses.store(begins, Ordering::Relaxed);
        self.violated.store(0, Ordering::Relaxed);
    }

    /// Notes a violation with its story.
    pub(crate) fn violation(&self, promise: &'static str, story: Value) {
        self.violated.fetch_add(1, Ordering::Relaxed);
        if self.rehearses.load(Ordering::Relaxed) {
            return;
        }
        let mut violations = self.violations.lock();
        if violations.len() < STORIES {
            eprintln!("VIOLATION of {promise}: {story:#}");
            violations.push(Violation { promise, story });
        }
    }

    pub(crate) fn violated(&self) -> u64 {
        self.violated.load(Ordering::Relaxed)
    }

    pub(crate) fn violations_shown(&self) -> Vec<Value> {
        let violations = self.violations.lock();
        let shown = |it: &Violation| json!({ "promise": it.promise, "story": it.story });
        violations.iter().map(shown).collect()
    }

    pub(crate) fn accepted_upstream(&self) -> u64 {
        self.accepted_upstream.load(Ordering::Relaxed)
    }

    // -- keys ----------------------------------------------------------------------------------

    /// A key that was just made.
    pub(crate) fn made(&self, id: &str, tenant: &str, secret: &str) -> Arc<Key> {
        let key = Arc::new(Key {
            id: id.to_owned(),
            tenant: tenant.to_owned(),
            secret: secret.to_owned(),
            life: Mutex::default(),
        });
        self.keys.write().insert(id.to_owned(), Arc::clone(&key));
        key
    }

    /// Lets the load use these keys, which work and stay so.
    pub(crate) fn employ(&self, keys: &[Arc<Key>]) {
        self.working.write().extend_from_slice(keys);
    }

    /// Lets the load use these keys more than others for now.
    pub(crate) fn focus(&self, keys: &[Arc<Key>]) {
        *self.focus.write() = keys.to_vec();
    }

    /// A key for the next request of the load: in focus, working, or stopped.
    pub(crate) fn any_key(&self, chance: &Chance) -> Option<Arc<Key>> {
        let dice = chance.below(4);
        let pick = |of: &RwLock<Vec<Arc<Key>>>| chance.pick(&of.read()).cloned();
        let found = if dice < 2 { pick(&self.focus) } else { None };
        let found = found.or_else(|| if dice == 2 { pick(&self.stopped) } else { None });
        found.or_else(|| pick(&self.working))
    }

    pub(crate) fn any_working(&self, chance: &Chance) -> Option<Arc<Key>> {
        chance.pick(&self.working.read()).cloned()
    }

    /// From `at` on nobody may accept the key.
    pub(crate) fn lowered(&self, key: &Arc<Key>, at: u64, story: &Value) {
        let mut life = key.life.lock();
        life.lowering_sent.get_or_insert(at);
        if life.lowered.is_none_or(|known| at < known) {
            life.lowered = Some(at);
            life.story = story.clone();
        }
        self.judge_life(key, &mut life);
        drop(life);
        let mut stopped = self.stopped.write();
        stopped.push(Arc::clone(key));
        if stopped.len() > STOPPED_KEPT {
            let excess = stopped.len() - STOPPED_KEPT;
            stopped.drain(..excess);
        }
    }

    // -- judgement -----------------------------------------------------------------------------

    /// The upstream got a request with this key that was sent then.
    pub(crate) fn reached_upstream(&self, id: &str, sent: u64, node: usize) {
        self.accepted_upstream.fetch_add(1, Ordering::Relaxed);
        let Some(key) = self.keys.read().get(id).cloned() else {
            let story = json!({ "key": id, "node": node, "why": "a key nobody made" });
            return self.violation("R1", story);
        };
        self.accept(&key, sent, node, "upstream");
    }

    fn accept(&self, key: &Arc<Key>, sent: u64, node: usize, by: &'static str) {
        let mut life = key.life.lock();
        if life.accepted.is_none_or(|known| sent >= known.sent) {
            life.accepted = Some(Accepted { sent, seen: moment::now_ns(), node, by });
        }
        self.judge_life(key, &mut life);
    }

    /// R1: nothing that was sent after the answer is accepted.
    fn judge_life(&self, key: &Key, life: &mut Life) {
        let (Some(lowered), Some(accepted)) = (life.lowered, life.accepted) else { return };
        if accepted.sent <= lowered || life.told {
            return;
        }
        life.told = true;
        let from = life.lowering_sent.unwrap_or(lowered).saturating_sub(STORY_BEFORE_NS);
        let story = json!({
            "key": key.id,
            "lowering": life.story,
            "loweringSentMs": life.lowering_sent.map(moment::ms),
            "loweredMs": moment::ms(lowered),
            "acceptedSentMs": moment::ms(accepted.sent),
            "afterMs": moment::ms(accepted.sent - lowered),
            "acceptedSeenMs": moment::ms(accepted.seen),
            "acceptedBy": accepted.by,
            "node": accepted.node,
            "faults": self.faults_between(from, accepted.seen),
        });
        self.violation("R1", story);
    }

    /// Counts a request and holds it against the promises.
    pub(crate) fn judge(&self, key: &Arc<Key>, asked: &Asked) {
        let tally = self.tally();
        let (works, stopped) = {
            let life = key.life.lock();
            let works = life.lowering_sent.is_none_or(|sent| sent > asked.done);
            (works, life.lowered.is_some_and(|at| asked.sent > at))
        };
        match &asked.outcome {
            Outcome::Accepted => {
                tally.add(if stopped { "acceptedStopped" } else { "accepted" }, 1);
                self.accept(key, asked.sent, asked.node, "answer");
            }
            Outcome::Refused(..) if stopped => tally.add("refusedStopped", 1),
            Outcome::Refused(..) if works => {
                tally.add("refusedWorking", 1);
                let faults =
                    self.faults_between(asked.sent.saturating_sub(STORY_BEFORE_NS), asked.done);
                let story = json!({ "key": key.id, "asked": asked.shown(), "faults": faults });
                self.violation("R2", story);
            }
            Outcome::Refused(..) => tally.add("refusedMeanwhile", 1),
            Outcome::Unavailable { retry_after } => {
                tally.add("unavailable", 1);
                if !retry_after {
                    let story = json!({ "asked": asked.shown(), "why": "no Retry-After" });
                    self.violation("R4", story);
                }
            }
            Outcome::Other(status, code) => {
                tally.add("otherStatus", 1);
                tally.failed(&format!("{status} {code}"));
            }
            Outcome::Failed(text) => {
                tally.add("noAnswer", 1);
                tally.failed(text);
            }
        }
    }
}
