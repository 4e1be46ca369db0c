//! Phase: rotations under load. Old and new key are accepted everywhere within the overlap (R2,
//! R6), and an old key whose overlap has run out nowhere.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use keyward_core::Timestamp;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Run, latencies};
use crate::control::text;
use crate::ledger::Key;
use crate::load::{Kind, Load};
use crate::lowering::Lowered;
use crate::moment;
use crate::report::Spans;

/// Lines of keys that are rotated beside one another.
const LINES: usize = 8;
/// Seconds of the usual overlap, longer than any run, and of one that runs out.
const LONG: u32 = 86_400;
const SHORT: u32 = 2;
/// Rotations whose overlap runs out.
const RUNNING_OUT: usize = 24;
/// For how long beyond its end an old key is tried.
const BEYOND: Duration = Duration::from_millis(300);

impl Run {
    pub(super) async fn rotations(&self) -> anyhow::Result<()> {
        eprintln!("rotations under load");
        let first = self.fleet.keys(from_ref(&self.home), LINES).await?;
        self.fleet.ledger.employ(&first);
        let load = Load::begin(&self.fleet, self.options.rate, Kind::Everywhere);
        let mut lines = JoinSet::new();
        let share = self.options.rotations.div_ceil(LINES);
        for key in first {
            lines.spawn(rotate_line(self.line(), key, share));
        }
        let mut spans = Vec::new();
        while let Some(line) = lines.join_next().await {
            spans.extend(line??);
        }
        let count = spans.len();
        let running_out = self.running_out().await?;
        load.end().await;
        self.fleet.probed().await;
        let tally = self.fleet.ledger.tally();
        let refused = tally.of("refusedWorking");
        let unserved: u64 =
            ["unavailable", "noAnswer", "otherStatus"].iter().map(|name| tally.of(name)).sum();
        let got =
            format!("{refused} refused, {unserved} not served, {} accepted", tally.of("accepted"));
        let what = format!("{count} rotations under {} requests/s", self.options.rate);
        self.report.wants(&what, "0 refused", got, refused + unserved == 0);
        let spans = Spans::new(spans);
        self.report.says("rotate answer: p50 / p99 / max", spans.text());
        let got = format!("{} accepted", tally.of("acceptedStopped"));
        let what = format!("{running_out} old keys after their overlap ran out");
        self.report.wants(&what, "0 accepted", got, tally.of("acceptedStopped") == 0);
        self.close("rotations", json!({ "rotations": count, "answers": spans.shown() })).await;
        Ok(())
    }

    fn line(&self) -> Line {
        Line { fleet: Arc::clone(&self.fleet), home: self.home.clone() }
    }

    /// Rotations with a short overlap, and what becomes of the old keys.
    async fn running_out(&self) -> anyhow::Result<usize> {
        let count = RUNNING_OUT.min(self.options.rotations);
        let line = self.line();
        let mut tried = JoinSet::new();
        for key in self.fleet.keys(from_ref(&self.home), count).await? {
            let (_, new, ends) = line.rotate(&key, SHORT).await?;
            let ends = moment::of_wall(ends);
            // the conversion of instants is exact to two milliseconds
            key.lowering(ends.saturating_sub(3_000_000));
            let story = json!({ "overlapOf": key.id, "endsMs": moment::ms(ends) });
            self.fleet.ledger.lowered(&key, ends, &story);
            let fleet = Arc::clone(&self.fleet);
            tried.spawn(async move {
                while moment::now_ns() < ends + moment::ns(BEYOND) {
                    fleet.try_everywhere(&key, 1).await;
                    fleet.try_everywhere(&new, 1).await;
                    moment::pause(Duration::from_millis(50)).await;
                }
            });
        }
        tried.join_all().await;
        Ok(count)
    }
}

/// What rotates the keys of one line.
struct Line {
    fleet: Arc<crate::fleet::Fleet>,
    home: crate::control::Home,
}

impl Line {
    /// Rotates a key; how long that took, the new key, and when the overlap ends.
    async fn rotate(
        &self,
        key: &Key,
        overlap: u32,
    ) -> anyhow::Result<(Lowered, Arc<Key>, Timestamp)> {
        let path = format!("/v1/tenants/{}/keys/{}/rotate", key.tenant, key.id);
        let called = self.fleet.make(&path, &json!({ "overlapSeconds": overlap })).await?;
        let new = self.fleet.enter(&self.home, &called.body)?;
        let ends = text(&called.body, "/overlapEndsAt")?.parse()?;
        let latency_ns = called.done - called.sent;
        let lowered = Lowered { latency_ns, answered: true, ..Lowered::default() };
        Ok((lowered, new, ends))
    }
}

async fn rotate_line(line: Line, mut key: Arc<Key>, count: usize) -> anyhow::Result<Vec<u64>> {
    let mut spans = Vec::new();
    for _ in 0..count {
        let (lowered, new, _) = line.rotate(&key, LONG).await?;
        spans.push(latencies(&[lowered]).max_ns());
        line.fleet.try_everywhere(&new, 1).await;
        line.fleet.try_everywhere(&key, 1).await;
        line.fleet.ledger.employ(&[Arc::clone(&new)]);
        key = new;
    }
    Ok(spans)
}
