//! The store goes away under a running node, and comes back changed.

use std::time::Duration;

use keyward_testkit::TestDatabase;

use crate::harness::{Actor, Setup, TestNode};

/// How long a change of mind may take; it takes seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// Shuts the application's role out and ends its connections.
const SHUT_OUT: &str = "
    DO $$ BEGIN
      EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC, keyward_app', current_database());
    END $$;
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'keyward_app'";

const LET_IN: &str = "
    DO $$ BEGIN
      EXECUTE format('GRANT CONNECT ON DATABASE %I TO keyward_app', current_database());
    END $$";

/// Asks until the answer has this status, a tenth of a second of the node's own time each.
async fn until(node: &TestNode, caller: &Actor, status: u16) {
    let asking = async {
        while caller.get("/v1/reports").await.status != status {
            node.clock.advance_ms(100);
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap();
}

#[tokio::test]
async fn a_node_without_its_store_refuses_and_comes_back_with_the_truth() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let node = TestNode::start(database, &Setup::default()).await;
    let (kept, revoked) =
        (node.minted(&["reports:read"]).await, node.minted(&["reports:read"]).await);
    let (kept_caller, revoked_caller) = (node.bearer(&kept.secret), node.bearer(&revoked.secret));
    revoked_caller.get("/v1/reports").await.is(200);

    node.database.behind(SHUT_OUT).await;
    until(&node, &kept_caller, 503).await;
    kept_caller.get("/v1/reports").await.refused(503, "unavailable");
    node.operator().get("/v1/whoami").await.refused(503, "unavailable");
    let ready = node.anonymous().at(&node.internal).get("/readyz").await;
    assert_eq!(ready.status, 503);

    // another process had the store meanwhile, and revoked a key
    let change = format!(
        "UPDATE keyward.api_keys SET revoked_at = 1 WHERE key_id = '{id}';
         UPDATE keyward.authority SET epoch = epoch + 1;
         INSERT INTO keyward.changes (tenant_id, epoch, position, kind, subject, at)
           SELECT k.tenant_id, a.epoch, 0, 'key', k.key_id, 1
           FROM keyward.api_keys k, keyward.authority a WHERE k.key_id = '{id}'",
        id = revoked.id
    );
    node.database.behind(&change).await;
    node.database.behind(LET_IN).await;
    until(&node, &kept_caller, 200).await;
    revoked_caller.get("/v1/reports").await.refused(401, "unauthorized");
    node.stop().await;
}
