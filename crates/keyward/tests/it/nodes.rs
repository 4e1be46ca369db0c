//! Several nodes on one PostgreSQL: what one of them answers holds on all.

use keyward_testkit::TestDatabase;
use serde_json::{Value, json};

use crate::harness::{Beside, DAY_MS, LAGOS_PAY, Setup, TestNode, minted};

/// A node that never answers: it renewed once, and nobody knows when it will decide again.
const SILENT_NODE: &str = "INSERT INTO keyward.nodes
    (node_id, roles, version, renewals, applied_epoch, hold_ms, started_at, renewed_at)
    VALUES ('nod_0000000000000000000007', 'gateway', '0.0.0', 1, 0, 2000, 0, 0)";

async fn two_nodes() -> Option<(TestNode, Beside)> {
    let database = TestDatabase::postgres().await?;
    let one = TestNode::start(database, &Setup::default()).await;
    let other = one.beside().await;
    Some((one, other))
}

fn effective(answer: &Value) {
    assert_eq!(answer["fence"]["status"], "effective", "{answer}");
    assert_eq!(answer["fence"]["nodes"], 2, "{answer}");
    assert_eq!(answer["fence"]["unconfirmedNodes"], 0, "{answer}");
}

#[tokio::test]
async fn a_revocation_holds_on_every_node_when_it_answers() {
    let Some((one, other)) = two_nodes().await else { return };
    for round in 0..20 {
        let (here, there): (&crate::harness::Site, &crate::harness::Site) =
            if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let key = here.minted(&["reports:read"]).await;
        there.bearer(&key.secret).get("/v1/reports").await.is(200);
        here.bearer(&key.secret).get("/v1/reports").await.is(200);
        effective(&here.revoke(&key.id).await);
        there.bearer(&key.secret).get("/v1/reports").await.refused(401, "unauthorized");
        let told = there.verify(json!({ "key": key.secret })).await;
        assert_eq!(told["code"], "unauthorized");
    }
    other.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn whatever_lowers_authority_is_fenced() {
    let Some((one, other)) = two_nodes().await else { return };
    let operator = one.operator();
    let lowered = async |path: &str, body: Value, refused: (u16, &str)| {
        let owner = one.member(LAGOS_PAY, "developer").await;
        let mut asked = one.key_body(LAGOS_PAY, &["reports:read", "reports:write"]).await;
        asked["ownerId"] = json!(owner);
        let key = one.mint(LAGOS_PAY, asked).await;
        let caller = other.bearer(&key.secret);
        caller.get("/v1/reports").await.is(200);
        let path = path.replace("{key}", &key.id).replace("{owner}", &owner);
        let path = one.path(LAGOS_PAY, &path);
        let answer = match path.rsplit('/').next() {
            Some(last) if last.starts_with("key_") => operator.patch(&path, body).await,
            _ => operator.post(&path, body).await,
        };
        effective(&answer.is(200));
        caller.get("/v1/reports").await.refused(refused.0, refused.1);
    };
    let no_scope = json!({ "remove": ["reports:read"] });
    lowered("/keys/{key}/narrow-scopes", no_scope, (403, "forbidden")).await;
    let elsewhere = json!({ "ipAllowlist": ["192.0.2.0/24"] });
    lowered("/keys/{key}", elsewhere, (403, "ip_not_allowed")).await;
    lowered("/members/{owner}/offboard", json!({ "keys": "revoke" }), (401, "unauthorized")).await;
    lowered("/suspend", json!({ "reason": "unpaid" }), (401, "unauthorized")).await;
    other.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn what_is_new_works_on_every_node_at_once() {
    let Some((one, other)) = two_nodes().await else { return };
    let slug = one.fresh("tenant");
    let tenant = json!({ "name": "New", "slug": slug });
    let tenant = one.operator().post("/v1/tenants", tenant).await.is(201);
    let base = format!("/v1/tenants/{}", tenant["id"].as_str().unwrap());
    let robot = json!({ "name": "robot", "role": "developer" });
    let robot = one.operator().post(&format!("{base}/service-accounts"), robot).await.is(201);
    let body = json!({
        "name": "fresh", "environment": "live", "scopes": ["reports:read"],
        "ownerId": robot["id"],
    });
    let key = minted(&one.operator().post(&format!("{base}/keys"), body).await);
    other.bearer(&key.secret).get("/v1/reports").await.is(200);
    let token = other.admin_token(&["keys:read"], None).await;
    token.at(&one.control).get(&format!("{base}/keys")).await.is(200);
    other.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn a_rotation_refuses_nobody_within_its_overlap() {
    let Some((one, other)) = two_nodes().await else { return };
    for _ in 0..10 {
        let old = one.minted(&["reports:read"]).await;
        let rotate = one.key_path(&old.id, "/rotate");
        let new = minted(&one.operator().post(&rotate, json!({})).await);
        for secret in [&old.secret, &new.secret] {
            other.bearer(secret).get("/v1/reports").await.is(200);
        }
        let end = one.key_path(&old.id, "/end-overlap");
        effective(&one.operator().post(&end, json!({})).await.is(200));
        other.bearer(&old.secret).get("/v1/reports").await.refused(401, "unauthorized");
        other.bearer(&new.secret).get("/v1/reports").await.is(200);
    }
    other.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_waited_for_until_its_lease_is_over() {
    let Some((one, other)) = two_nodes().await else { return };
    one.database.behind(SILENT_NODE).await;
    let key = one.minted(&["reports:read"]).await;
    let hasty = one.operator().with("prefer", "wait=0");
    let revoke = one.key_path(&key.id, "/revoke");
    let answer = hasty.post(&revoke, json!({ "reason": "leaked" })).await.is(202);
    let fence = &answer["fence"];
    assert_eq!((&fence["status"], &fence["effectiveAt"]), (&json!("propagating"), &Value::Null));
    assert!(fence["effectiveBy"].is_string(), "{fence}");
    let poll = fence["poll"].as_str().unwrap();
    let asked = one.operator().get(poll).await.is(200);
    assert_eq!(asked["status"], "propagating");
    assert!(asked["unconfirmedNodes"].as_u64() >= Some(1), "{asked}");
    // on the nodes that answer it holds already
    other.bearer(&key.secret).get("/v1/reports").await.refused(401, "unauthorized");
    one.clock.advance_ms(2_060);
    let asked = one.operator().get(poll).await.is(200);
    assert_eq!(asked["status"], "effective", "{asked}");
    let everywhere = format!("/v1/changes/{}", fence["epoch"]);
    assert_eq!(other.operator().get(&everywhere).await.is(200)["status"], "effective");
    other.operator().get("/v1/changes/999999").await.refused(404, "not_found");
    let elsewhere = poll.replace(&one.tenant(LAGOS_PAY), &one.tenant("kuramo-health"));
    one.operator().get(&elsewhere).await.refused(404, "not_found");
    other.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_costs_its_owner_alone() {
    for database in TestDatabase::every().await {
        let node = TestNode::start(database, &Setup::default()).await;
        let (kept, spoilt) =
            (node.minted(&["reports:read"]).await, node.minted(&["reports:read"]).await);
        let sql = format!("UPDATE api_keys SET scopes = 'no list' WHERE key_id = '{}'", spoilt.id);
        node.database.behind(&sql).await;
        let node = node.restart(&Setup::default()).await;
        node.bearer(&kept.secret).get("/v1/reports").await.is(200);
        node.bearer(&spoilt.secret).get("/v1/reports").await.refused(401, "invalid_api_key");
        node.stop().await;
    }
}

#[tokio::test]
async fn a_repeated_rotation_says_how_far_it_has_reached_by_then() {
    let Some((one, other)) = two_nodes().await else { return };
    one.database.behind(SILENT_NODE).await;
    let old = one.minted(&["reports:read"]).await;
    let rotate = one.key_path(&old.id, "/rotate");
    let patient = one.operator().with("idempotency-key", &one.fresh("rotate"));
    let hasty = patient.with("prefer", "wait=0");
    for round in 0..3 {
        let got = hasty.post(&rotate, json!({})).await;
        assert_eq!(got.header("idempotency-replayed").is_some(), round > 0);
        let fence = got.is(202)["fence"].clone();
        assert_eq!(fence["status"], "propagating", "{fence}");
        if round == 1 {
            // the next renewal shows that the row is there
            one.clock.advance_ms(2_060);
        }
    }
    one.clock.advance_ms(2_060);
    let answer = patient.post(&rotate, json!({})).await.is(201);
    assert_eq!(answer["fence"]["status"], "effective", "{answer}");
    other.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn nodes_come_and_go() {
    let Some((one, other)) = two_nodes().await else { return };
    let listed = async || one.operator().get("/v1/nodes").await.is(200)["nodes"].clone();
    let nodes = listed().await;
    assert_eq!(nodes.as_array().unwrap().len(), 2, "{nodes}");
    assert_eq!(nodes[0]["roles"], json!(["gateway", "control", "worker"]));
    other.stop().await;
    let nodes = listed().await;
    assert_eq!(nodes.as_array().unwrap().len(), 1, "a node that stops says so: {nodes}");
    let key = one.minted(&["reports:read"]).await;
    let answer = one.revoke(&key.id).await;
    assert_eq!(
        (&answer["fence"]["status"], &answer["fence"]["nodes"]),
        (&json!("effective"), &json!(1))
    );
    one.clock.advance_ms(DAY_MS);
    one.demo_key(LAGOS_PAY).get("/v1/reports").await.is(200);
    one.stop().await;
}
