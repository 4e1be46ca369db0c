//! Phase: everything that lowers authority keeps the same promise (P4), with faults beside it.

use std::sync::Arc;

use keyward_core::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Run, latencies};
use crate::control::{Home, text};
use crate::faults::Faults;
use crate::fleet::Fleet;
use crate::ledger::Key;
use crate::load::{Kind, Load};
use crate::lowering::{Lowered, Lowering};
use crate::moment;

/// Lowerings of one kind at once.
const AT_ONCE: usize = 12;
/// How far ahead an earlier expiry is set.
const EXPIRY_AHEAD_MS: i64 = 6_000;
/// Keys of which one is rotated by a call that is answered.
const ROTATE_ATTEMPTS: u32 = 20;
/// A network that nobody here calls from.
const ELSEWHERE: &str = "203.0.113.0/24";
/// A role whose areas do not hold the route.
const LESSER_ROLE: &str = "control-owner";

/// The ways to lose authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Revoke,
    ScopeCut,
    RoleDemotion,
    Offboarding,
    TenantSuspension,
    EarlierExpiry,
    NarrowerIpList,
    EndOfOverlap,
}

const WAYS: [Way; 8] = [
    Way::Revoke,
    Way::ScopeCut,
    Way::RoleDemotion,
    Way::Offboarding,
    Way::TenantSuspension,
    Way::EarlierExpiry,
    Way::NarrowerIpList,
    Way::EndOfOverlap,
];

impl Run {
    /// Answers with how many of them were revocations.
    pub(super) async fn lowerings(&self) -> anyhow::Result<usize> {
        eprintln!("every kind of lowering, with faults");
        let each = self.options.lowerings.div_ceil(WAYS.len());
        let load = Load::begin(&self.fleet, self.options.rate, Kind::Everywhere);
        let mut figures = Map::new();
        // a short run heals once, a long one after each kind
        for ways in WAYS.chunks(if self.options.quick { WAYS.len() } else { 1 }) {
            self.lower_by(ways, each, &mut figures).await?;
        }
        load.end().await;
        self.close("lowering", json!(figures)).await;
        Ok(each)
    }

    async fn lower_by(
        &self,
        ways: &[Way],
        each: usize,
        figures: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let faults = Faults::begin(&self.fleet);
        let before = self.fleet.ledger.violated();
        let mut count = 0;
        for way in ways {
            let lowered = self.way(*way, each).await?;
            count += lowered.len();
            let effective = lowered.iter().filter(|it| it.effective).count();
            let shown = latencies(&lowered).shown();
            figures.insert(
                format!("{way:?}"),
                json!({ "count": lowered.len(), "effective": effective, "answers": shown }),
            );
        }
        let healed = faults.end(&self.fleet).await?;
        self.fleet.converge(healed, self.lease_ns()).await?;
        self.fleet.probed().await;
        let violated = self.fleet.ledger.violated() - before;
        let names: Vec<String> = ways.iter().map(|way| format!("{way:?}")).collect();
        let what = format!("{} with faults: accepted after the answer", names.join(", "));
        self.report.wants(&what, "0", format!("{violated} of {count}"), violated == 0);
        Ok(())
    }

    async fn way(&self, way: Way, count: usize) -> anyhow::Result<Vec<Lowered>> {
        let turn = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (fleet, turn) = (Arc::clone(&self.fleet), Arc::clone(&turn));
            let home = self.home.clone();
            tasks.spawn(async move {
                let _turn = turn.acquire().await?;
                let lowering = prepare(&fleet, way, &home).await?;
                fleet.ledger.focus(&lowering.keys);
                anyhow::Ok(fleet.lower(lowering, None, None).await)
            });
        }
        let mut lowered = Vec::new();
        while let Some(task) = tasks.join_next().await {
            lowered.push(task??);
        }
        Ok(lowered)
    }
}

/// Makes what is to be lowered, and the call that does it.
async fn prepare(fleet: &Arc<Fleet>, way: Way, home: &Home) -> anyhow::Result<Lowering> {
    let home = match way {
        Way::TenantSuspension => fleet.home("owner").await?,
        Way::RoleDemotion | Way::Offboarding => {
            let owner = fleet.member(&home.tenant, "owner").await?;
            Home { owner, ..home.clone() }
        }
        _ => home.clone(),
    };
    let key = match way {
        Way::EndOfOverlap => rotated(fleet, &home).await?,
        _ => fleet.key(&home).await?,
    };
    let (tenant, owner) = (format!("/v1/tenants/{}", home.tenant), &home.owner);
    let at = format!("{tenant}/keys/{}", key.id);
    let mut not_before = None;
    let (method, path, body) = match way {
        Way::Revoke => return Ok(Lowering::revoke(&key)),
        Way::ScopeCut => {
            ("POST", format!("{at}/narrow-scopes"), json!({ "remove": ["reports:read"] }))
        }
        Way::RoleDemotion => {
            ("PATCH", format!("{tenant}/members/{owner}"), json!({ "role": LESSER_ROLE }))
        }
        Way::Offboarding => {
            ("POST", format!("{tenant}/members/{owner}/offboard"), json!({ "keys": "revoke" }))
        }
        Way::TenantSuspension => {
            ("POST", format!("{tenant}/suspend"), json!({ "reason": "unpaid" }))
        }
        Way::EarlierExpiry => {
            let expiry = Timestamp::from_millis(moment::wall_ms() + EXPIRY_AHEAD_MS);
            not_before = Some(expiry);
            ("PATCH", at, json!({ "expiresAt": expiry.to_string() }))
        }
        Way::NarrowerIpList => ("PATCH", at, json!({ "ipAllowlist": [ELSEWHERE] })),
        Way::EndOfOverlap => ("POST", format!("{at}/end-overlap"), Value::Null),
    };
    let done_codes = &["conflict", "not_found", "validation_failed"];
    let (keys, tenant) = (vec![key], home.tenant);
    Ok(Lowering { keys, method, path, body, not_before, tenant, done_codes })
}

/// A key with a successor beside it.
async fn rotated(fleet: &Arc<Fleet>, home: &Home) -> anyhow::Result<Arc<Key>> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let key = fleet.key(home).await?;
        let path = format!("/v1/tenants/{}/keys/{}/rotate", home.tenant, key.id);
        match fleet.make(&path, &json!({ "overlapSeconds": 86_400 })).await {
            Ok(called) => {
                text(&called.body, "/secret")?;
                return Ok(key);
            }
            // rotated by a call whose answer was lost: another key must do
            Err(_) if attempt < ROTATE_ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}
