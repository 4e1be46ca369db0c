//! Keyward's own API as this program uses it, through whichever node answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::fleet::Fleet;
use crate::ledger::Key;
use crate::moment;
use crate::node::code;

/// How long making something is tried while there are faults.
const MAKE_WITHIN: Duration = Duration::from_mins(1);
/// Between two attempts.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Calls that make keys at once.
const MAKERS: usize = 8;
/// What keys are made with; the first is what the one route needs.
pub(crate) const SCOPES: [&str; 2] = ["reports:read", "audit:read"];

/// What answered a call.
pub(crate) struct Called {
    pub(crate) node: usize,
    pub(crate) sent: u64,
    pub(crate) done: u64,
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// A tenant and a member who owns keys.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) tenant: String,
    pub(crate) owner: String,
}

impl Fleet {
    /// One call through one node; an error when there was no answer.
    pub(crate) async fn call_node(
        &self,
        node: usize,
        (method, path): (&str, &str),
        headers: &str,
        body: &Value,
    ) -> Result<Called, String> {
        let Some(at) = self.nodes.get(node) else { return Err("no such node".to_owned()) };
        let exchange = at.call(&self.token, method, path, headers, body).await;
        match exchange.result {
            Err(failure) => Err(failure.to_string()),
            Ok(answer) => Ok(Called {
                node,
                sent: exchange.sent,
                done: exchange.done,
                status: answer.status,
                body: serde_json::from_slice(&answer.body).unwrap_or_default(),
            }),
        }
    }

    /// Makes something through any node, trying again until one has made it.
    pub(crate) async fn make(&self, path: &str, body: &Value) -> anyhow::Result<Called> {
        let late = moment::now_ns() + moment::ns(MAKE_WITHIN);
        loop {
            let node = self.chance.below(self.nodes.len());
            let called = self.call_node(node, ("POST", path), "", body).await;
            let seen = match called {
                Ok(called) if called.status == 201 => return Ok(called),
                Ok(called) if called.status < 500 && called.status != 429 => {
                    bail!("POST {path} {body}: {} {}", called.status, called.body)
                }
                Ok(called) => format!("{} {}", called.status, called.body),
                Err(failure) => failure,
            };
            self.ledger.tally().add("makingRepeated", 1);
            if moment::now_ns() > late {
                bail!("POST {path}: last seen {seen}");
            }
            moment::pause(TRY_AGAIN).await;
        }
    }

    /// A tenant with one member. Names are new every time, so that a repeated call cannot meet
    /// what an unanswered one has made.
    pub(crate) async fn home(&self, role: &str) -> anyhow::Result<Home> {
        let late = moment::now_ns() + moment::ns(MAKE_WITHIN);
        let tenant = loop {
            let slug = format!("fleet-{:016x}", self.chance.next());
            let body = json!({ "slug": slug, "name": slug });
            match self.make("/v1/tenants", &body).await {
                Ok(called) => break text(&called.body, "/id")?,
                // made by a call whose answer was lost
                Err(_) if moment::now_ns() < late => {}
                Err(error) => return Err(error),
            }
        };
        let owner = self.member(&tenant, role).await?;
        Ok(Home { tenant, owner })
    }

    /// A new member of a tenant.
    pub(crate) async fn member(&self, tenant: &str, role: &str) -> anyhow::Result<String> {
        let late = moment::now_ns() + moment::ns(MAKE_WITHIN);
        loop {
            let name = format!("m{:016x}", self.chance.next());
            let body =
                json!({ "email": format!("{name}@example.com"), "name": name, "role": role });
            match self.make(&format!("/v1/tenants/{tenant}/members"), &body).await {
                Ok(called) => return text(&called.body, "/userId"),
                Err(_) if moment::now_ns() < late => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A new key, tried at once on every node.
    pub(crate) async fn key(self: &Arc<Self>, home: &Home) -> anyhow::Result<Arc<Key>> {
        let body = json!({
            "name": "fleet", "environment": "live", "ownerId": home.owner, "scopes": SCOPES,
        });
        let called = self.make(&format!("/v1/tenants/{}/keys", home.tenant), &body).await?;
        let key = self.enter(home, &called.body)?;
        // a node that is stopped keeps nobody from going on
        let (fleet, tried) = (Arc::clone(self), Arc::clone(&key));
        let turn = Arc::clone(&self.probes).acquire_owned().await;
        tokio::spawn(async move {
            fleet.try_everywhere(&tried, 1).await;
            drop(turn);
        });
        Ok(key)
    }

    /// Enters a key with its secret from the answer that made it.
    pub(crate) fn enter(&self, home: &Home, body: &Value) -> anyhow::Result<Arc<Key>> {
        let (id, secret) = (text(body, "/key/id")?, text(body, "/secret")?);
        Ok(self.ledger.made(&id, &home.tenant, &secret))
    }

    /// This many new keys, each in one of these homes.
    pub(crate) async fn keys(
        self: &Arc<Self>,
        homes: &[Home],
        count: usize,
    ) -> anyhow::Result<Vec<Arc<Key>>> {
        let mut makers = JoinSet::new();
        for maker in 0..MAKERS.min(count) {
            let share = count / MAKERS + usize::from(maker < count % MAKERS);
            let (fleet, homes) = (Arc::clone(self), homes.to_vec());
            makers.spawn(async move {
                let mut made = Vec::new();
                for _ in 0..share {
                    let home = fleet.chance.pick(&homes).context("a home")?;
                    made.push(fleet.key(home).await?);
                }
                anyhow::Ok(made)
            });
        }
        let mut keys = Vec::new();
        while let Some(made) = makers.join_next().await {
            keys.extend(made??);
        }
        Ok(keys)
    }

    /// Tries a key on every node at once, this often one after the other, and judges the answers.
    pub(crate) async fn try_everywhere(&self, key: &Arc<Key>, times: usize) {
        let mut probes = JoinSet::new();
        for node in &self.nodes {
            let (node, key) = (Arc::clone(node), Arc::clone(key));
            let ledger = Arc::clone(&self.ledger);
            probes.spawn(async move {
                for _ in 0..times {
                    let stopped = key.is_stopped(moment::now_ns());
                    let asked = node.ask(&key, stopped).await;
                    ledger.judge(&key, &asked);
                }
            });
        }
        probes.join_all().await;
    }
}

/// A text in an answer.
pub(crate) fn text(body: &Value, at: &str) -> anyhow::Result<String> {
    let found = body.pointer(at).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no {at} in {body}"))?.to_owned())
}

/// The code of a refused call.
pub(crate) fn refusal(called: &Called) -> String {
    format!("{} {}", called.status, code(called.body.to_string().as_bytes()))
}
