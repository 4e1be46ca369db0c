//! Calls that lower authority, until one is answered, and what their answers promise.

use std::sync::Arc;
use std::time::Duration;

use keyward_core::Timestamp;
use serde_json::{Value, json};

use crate::control::{Called, refusal};
use crate::fleet::Fleet;
use crate::ledger::Key;
use crate::moment;

/// For how long a call is tried before it is given up.
const GIVE_UP_NS: u64 = 90_000_000_000;
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// When a lowering whose answer was lost, and which a repetition finds done, has surely reached
/// every node: two leases.
const LOST_ANSWER_NS: u64 = 4_200_000_000;
/// Between two questions whether a lowering has reached every node.
const POLL_AGAIN: Duration = Duration::from_millis(100);
/// For how long after the promised instant the question is repeated.
const POLL_BEYOND_NS: u64 = 8_000_000_000;
/// How long after the instant that it names itself an answer may say `propagating`. That instant
/// may be later than the one promised first: a node that has just started does not know when the
/// change was made, and counts a lease from its own start. Such answers are counted.
const POLL_SLACK_NS: u64 = 1_000_000_000;
/// How many keys are tried at once.
pub(crate) const PROBED_AT_ONCE: u32 = 600;
/// Requests with a lowered key on each node, right after the answer.
const PROBES: usize = 3;

/// A call that takes authority from some keys.
pub(crate) struct Lowering {
    pub(crate) keys: Vec<Arc<Key>>,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Value,
    /// The instant from which it holds at the earliest, for expiries.
    pub(crate) not_before: Option<Timestamp>,
    /// The tenant, for the question how far it has got.
    pub(crate) tenant: String,
    /// The code of a repetition that finds it done.
    pub(crate) done_codes: &'static [&'static str],
}

/// How a lowering went.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lowered {
    /// From sending to answer, of the call that was answered.
    pub(crate) latency_ns: u64,
    pub(crate) attempts: u32,
    pub(crate) waited_ms: u64,
    pub(crate) effective: bool,
    /// False when the answer was lost, or when nobody answered.
    pub(crate) answered: bool,
}

impl Lowering {
    pub(crate) fn revoke(key: &Arc<Key>) -> Self {
        Self {
            keys: vec![Arc::clone(key)],
            method: "POST",
            path: format!("/v1/tenants/{}/keys/{}/revoke", key.tenant, key.id),
            body: json!({ "reason": "leaked" }),
            not_before: None,
            tenant: key.tenant.clone(),
            done_codes: &[],
        }
    }
}

/// What a fence says.
struct Fence {
    status: String,
    epoch: u64,
    effective_by: Option<Timestamp>,
    waited_ms: u64,
}

impl Fence {
    fn read(body: &Value) -> Option<Self> {
        let fence = body.get("fence").unwrap_or(body);
        let by = fence.get("effectiveBy").and_then(Value::as_str);
        Some(Self {
            status: fence.get("status")?.as_str()?.to_owned(),
            epoch: fence.get("epoch")?.as_u64()?,
            effective_by: by.and_then(|by| by.parse().ok()),
            waited_ms: fence.get("waitedMs").and_then(Value::as_u64).unwrap_or(0),
        })
    }
}

impl Fleet {
    /// Lowers through random nodes until one has answered, then tries every node at once.
    ///
    /// `wait` is for how many seconds the node may hold the answer back; its own choice if `None`.
    pub(crate) async fn lower(
        self: &Arc<Self>,
        lowering: Lowering,
        wait: Option<u32>,
        through: Option<usize>,
    ) -> Lowered {
        let headers = wait.map(|wait| format!("prefer: wait={wait}\r\n")).unwrap_or_default();
        let call = (lowering.method, lowering.path.as_str());
        let begun = moment::now_ns();
        let mut attempt = 0;
        while moment::now_ns() < begun + GIVE_UP_NS {
            attempt += 1;
            let node = through.unwrap_or_else(|| self.chance.below(self.nodes.len()));
            for key in &lowering.keys {
                key.lowering(begun);
            }
            match self.call_node(node, call, &headers, &lowering.body).await {
                Ok(called) if matches!(called.status, 200..=202) => {
                    return self.answered(lowering, &called, attempt).await;
                }
                Ok(called) if called.status < 500 && called.status != 429 => {
                    if self.came_too_late(&lowering).await {
                        return Lowered { attempts: attempt, ..Lowered::default() };
                    }
                    let text = refusal(&called);
                    let known = lowering.done_codes.iter().any(|code| text.ends_with(code));
                    if attempt == 1 || !known {
                        let story = json!({ "path": lowering.path, "answer": called.body });
                        self.ledger.violation("the wire contract", story);
                    }
                    self.stop_at(&lowering, called.done + LOST_ANSWER_NS, &json!("answer lost"));
                    return Lowered { attempts: attempt, ..Lowered::default() };
                }
                Ok(called) => self.ledger.tally().add(status_name(called.status), 1),
                Err(_) => self.ledger.tally().add("callsUnanswered", 1),
            }
            moment::pause(TRY_AGAIN).await;
        }
        let story = json!({ "path": lowering.path, "attempts": attempt });
        self.ledger.violation("R5", story);
        Lowered { attempts: attempt, ..Lowered::default() }
    }

    /// Whether an expiry that was refused had passed before any call with it was carried out: then
    /// nothing was lowered.
    async fn came_too_late(&self, lowering: &Lowering) -> bool {
        let Some(expiry) = lowering.not_before else { return false };
        let late = moment::now_ns() + GIVE_UP_NS;
        while moment::now_ns() < late {
            let node = self.chance.below(self.nodes.len());
            let call = ("GET", lowering.path.as_str());
            if let Ok(Called { status: 200, body, .. }) =
                self.call_node(node, call, "", &Value::Null).await
            {
                let set = body.get("expiresAt").and_then(Value::as_str);
                let unset = set.and_then(|at| at.parse::<Timestamp>().ok()) != Some(expiry);
                self.ledger.tally().add("expiriesTooLate", u64::from(unset));
                return unset;
            }
            moment::pause(TRY_AGAIN).await;
        }
        false
    }

    async fn answered(
        self: &Arc<Self>,
        lowering: Lowering,
        called: &Called,
        attempts: u32,
    ) -> Lowered {
        let latency_ns = called.done - called.sent;
        let Some(fence) = Fence::read(&called.body) else {
            // an edit that was done by the call before has nothing to fence
            if attempts == 1 {
                let story = json!({ "path": lowering.path, "answer": called.body });
                self.ledger.violation("the wire contract", story);
            }
            self.stop_at(&lowering, called.done + LOST_ANSWER_NS, &json!("answer lost"));
            return Lowered { attempts, ..Lowered::default() };
        };
        let effective = fence.status == "effective";
        let story = json!({
            "path": lowering.path, "node": called.node, "sentMs": moment::ms(called.sent),
            "answeredMs": moment::ms(called.done), "attempt": attempts, "status": called.status,
            "answer": called.body.get("fence"),
        });
        if effective != (called.status != 202) {
            self.ledger.violation("R7", json!({ "why": "status and fence differ", "call": story }));
        }
        let waited_ms = fence.waited_ms;
        if effective {
            self.stop_at(&lowering, called.done, &story);
        } else {
            self.follow(&lowering, &fence, story).await;
        }
        self.probe_beside(lowering).await;
        Lowered { latency_ns, attempts, waited_ms, effective, answered: true }
    }

    /// Nobody may accept the keys from then on, or from the instant the change is about.
    fn stop_at(&self, lowering: &Lowering, at: u64, story: &Value) {
        let at = lowering.not_before.map_or(at, |instant| at.max(moment::of_wall(instant)));
        for key in &lowering.keys {
            self.ledger.lowered(key, at, story);
        }
    }

    /// R7: asks how far a change has got that was answered as propagating.
    async fn follow(&self, lowering: &Lowering, fence: &Fence, story: Value) {
        self.ledger.tally().add("propagating", 1);
        let Some(by) = fence.effective_by.map(moment::of_wall) else {
            let why = json!({ "why": "202 without effectiveBy", "call": story });
            return self.ledger.violation("R7", why);
        };
        self.stop_at(lowering, by, &story);
        let path = format!("/v1/tenants/{}/changes/{}", lowering.tenant, fence.epoch);
        while moment::now_ns() < by + POLL_BEYOND_NS {
            let node = self.chance.below(self.nodes.len());
            if let Ok(asked) = self.call_node(node, ("GET", &path), "", &Value::Null).await {
                let status = Fence::read(&asked.body).map(|fence| fence.status);
                match (asked.status, status.as_deref()) {
                    (200, Some("effective")) => {
                        self.stop_at(lowering, asked.done, &story);
                        self.ledger.tally().add("propagatingThenEffective", 1);
                        return;
                    }
                    (200 | 202, Some("propagating")) if is_over(&asked) => {
                        let why = json!({
                            "why": "still propagating after effectiveBy", "call": story,
                            "answer": asked.body, "askedMs": moment::ms(asked.sent),
                            "effectiveByMs": moment::ms(by),
                        });
                        return self.ledger.violation("R7", why);
                    }
                    (400..=499, _) => {
                        let why = json!({ "path": path, "answer": asked.body, "call": story });
                        return self.ledger.violation("the wire contract", why);
                    }
                    (200 | 202, Some("propagating")) if asked.sent > by => {
                        // a node that began after the change knows no better; nobody is harmed
                        self.ledger.tally().add("pollsPastEffectiveBy", 1);
                    }
                    _ => {}
                }
            }
            moment::pause(POLL_AGAIN).await;
        }
        // nobody could answer for long enough; that it holds by then is still tried
        self.ledger.tally().add("propagatingUnknown", 1);
    }

    /// R1: tries the keys on every node at once, several times, while other calls go on.
    async fn probe_beside(self: &Arc<Self>, lowering: Lowering) {
        let fleet = Arc::clone(self);
        // never closed
        let turn = Arc::clone(&self.probes).acquire_owned().await;
        tokio::spawn(async move {
            fleet.probe(&lowering).await;
            drop(turn);
        });
    }

    /// Waits until no keys are being tried.
    pub(crate) async fn probed(&self) {
        drop(self.probes.acquire_many(PROBED_AT_ONCE).await);
    }

    async fn probe(&self, lowering: &Lowering) {
        if let Some(at) = lowering.not_before {
            moment::pause_until(moment::of_wall(at)).await;
        }
        for key in &lowering.keys {
            self.try_everywhere(key, PROBES).await;
        }
    }
}

/// Whether an answer says `propagating` although the instant that it names has passed.
fn is_over(asked: &Called) -> bool {
    let by = Fence::read(&asked.body).and_then(|fence| fence.effective_by);
    by.is_none_or(|by| asked.sent > moment::of_wall(by) + POLL_SLACK_NS)
}

const fn status_name(status: u16) -> &'static str {
    match status {
        503 => "calls503",
        429 => "calls429",
        _ => "calls5xx",
    }
}
