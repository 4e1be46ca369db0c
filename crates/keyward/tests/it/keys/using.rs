//! What a running node tells of the use of keys.

use std::time::Duration;

use keyward_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::harness::node_on_every_engine;

/// How long a write may take that nobody asked for; it takes ten seconds at most.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_last_use_of_keys_is_written_while_the_node_runs() {
    node_on_every_engine(async |node| {
        let used = node.minted(&["reports:read"]).await;
        let unused = node.minted(&["reports:read"]).await;
        let caller = node.bearer(&used.secret).with("user-agent", "billing/1");
        caller.get("/v1/reports").await.is(200);
        let at = node.clock.now();
        let record = async {
            let mut looks = tokio::time::interval(Duration::from_millis(200));
            loop {
                looks.tick().await;
                let record = node.record(&used.id).await;
                if record["lastUsedAt"] != Value::Null {
                    return record;
                }
            }
        };
        let record = tokio::time::timeout(PATIENCE, record).await.unwrap();
        assert_eq!(record["lastUsedAt"], json!(at));
        assert_eq!(record["lastUsedIp"], "127.0.0.1");
        assert_eq!(record["lastUsedAgent"], "billing/1");
        assert_eq!(node.record(&unused.id).await["lastUsedAt"], Value::Null);
    })
    .await;
}
