//! R3: after healing, all nodes have applied the same epoch within the lease and a second.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use crate::fleet::Fleet;
use crate::moment;

const ASK_AGAIN: Duration = Duration::from_millis(50);
/// When waiting is given up.
const GIVE_UP: Duration = Duration::from_secs(30);
/// A node whose row is older than this does not renew.
const FRESH_MS: i64 = 1_500;
const BEYOND_LEASE_NS: u64 = 1_000_000_000;

const STATE: &str = "SELECT a.epoch, coalesce((SELECT count(*) FROM keyward.nodes n
      WHERE n.applied_epoch = a.epoch AND n.renewed_at > $1), 0),
    coalesce((SELECT string_agg(n.node_id || ' ' || n.applied_epoch || ' ' || n.renewed_at, ', ')
      FROM keyward.nodes n), '')
  FROM keyward.authority a";

impl Fleet {
    /// Waits until as many nodes as run have applied the present epoch; how long it took from
    /// `healed`. Nothing changes authority meanwhile.
    pub(crate) async fn converge(&self, healed: u64, lease_ns: u64) -> anyhow::Result<Duration> {
        let bound = lease_ns + BEYOND_LEASE_NS;
        let client = self.database().await?;
        let mut last = String::new();
        loop {
            let row = client.query_one(STATE, &[&(moment::wall_ms() - FRESH_MS)]).await?;
            let (epoch, applied): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let took = moment::now_ns() - healed;
            if usize::try_from(applied)? >= self.nodes.len() {
                if took > bound {
                    let story = json!({ "tookMs": moment::ms(took), "lastSeen": last });
                    self.ledger.violation("R3", story);
                }
                return Ok(Duration::from_nanos(took));
            }
            last = format!("epoch {epoch}; {}", row.try_get::<_, String>(2)?);
            if took > moment::ns(GIVE_UP) {
                let story = json!({ "tookMs": moment::ms(took), "state": last });
                self.ledger.violation("R3", story);
                return Ok(Duration::from_nanos(took));
            }
            moment::pause(ASK_AGAIN).await;
        }
    }

    /// A superuser's connection to the nodes' database, past the proxies.
    pub(crate) async fn database(&self) -> anyhow::Result<Client> {
        self.postgres.lock().await.superuser("keyward").await
    }
}
