//! Keys that came where others may have seen them: refused, and their record says so.

use keyward_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::harness::{TestNode, node_on_every_engine};

/// What the record of a key says of its exposure, once that is written.
async fn exposure(node: &TestNode, id: &str) -> (Value, Value) {
    node.note_usage().await;
    let record = node.record(id).await;
    (record["exposedAt"].clone(), record["exposedBy"].clone())
}

#[tokio::test]
async fn an4_a_key_that_was_exposed_says_so_on_its_record() {
    node_on_every_engine(async |node| {
        let (page, address) =
            (node.minted(&["reports:read"]).await, node.minted(&["reports:read"]).await);
        for key in [&page, &address] {
            node.bearer(&key.secret).get("/v1/reports").await.is(200);
            assert_eq!(exposure(node, &key.id).await, (Value::Null, Value::Null));
        }
        let caller = node.bearer(&page.secret).with("origin", "https://a.example");
        caller.get("/v1/reports").await.refused(403, "browser_origin_refused");
        let nobody = node.anonymous().at(&node.gateways[0]);
        let path = format!("/v1/reports?key={}", address.secret);
        nobody.get(&path).await.refused(400, "credential_in_url");
        let first = node.clock.now();
        assert_eq!(exposure(node, &page.id).await, (json!(first), json!("browser")));
        assert_eq!(exposure(node, &address.id).await, (json!(first), json!("url")));
        // the first time is what counts, and the key works on
        node.clock.advance_ms(60_000);
        let path = format!("/v1/reports?key={}", page.secret);
        nobody.get(&path).await.refused(400, "credential_in_url");
        assert_eq!(exposure(node, &page.id).await, (json!(first), json!("browser")));
        node.bearer(&page.secret).get("/v1/reports").await.is(200);
    })
    .await;
}

#[tokio::test]
async fn an3_whoever_asks_verify_can_say_that_a_key_was_exposed() {
    node_on_every_engine(async |node| {
        for (way, code) in [
            ("clear_text", "tls_required"),
            ("url", "credential_in_url"),
            ("browser", "browser_origin_refused"),
        ] {
            let key = node.minted(&["reports:read"]).await;
            let told = node.verify(json!({"key": key.secret, "exposure": way})).await;
            assert_eq!((&told["valid"], &told["code"]), (&json!(false), &json!(code)));
            let now = node.clock.now();
            assert_eq!(exposure(node, &key.id).await, (json!(now), json!(way)));
            assert_eq!(node.verify(json!({"key": key.secret})).await["valid"], true);
        }
    })
    .await;
}
