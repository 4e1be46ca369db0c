//! The example compliance API behind Keyward: evidence keeps its origin, and nobody uses what a
//! qualified owner has not reviewed.

use keyward_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::harness::{DAY_MS, KURAMO_HEALTH, LAGOS_PAY, TestNode, node_on_every_engine};

const ITEMS: &str = "/v1/evidence/items";
/// The SHA-256 of the canonical payload below, as anybody can compute it.
const HASH: &str = "sha256:9286e2658615fbf07d746bc9b5109952343586bc38c3a4689cbc2fa180e68d36";

fn item(node: &TestNode, risk: &str) -> Value {
    json!({
        "sourceId": "src_lp_identity",
        "title": "Privileged access review",
        "collectedAt": node.clock.now(),
        "controlMappings": ["ctl_lp_iam02", "ctl_lp_iam03"],
        "riskLevel": risk,
        "rawPayload": { "reviewer": "Yusuf Danjuma", "reviewed": 61, "removed": 3 },
    })
}

#[tokio::test]
async fn ap10_evidence_keeps_source_time_mapping_and_hash() {
    node_on_every_engine(async |node| {
        let collector = node.key(&["evidence:read", "evidence:write"]).await;
        let mut body = item(node, "low");
        let made = collector.post(ITEMS, body.clone()).await.is(201);
        for member in ["sourceId", "collectedAt", "controlMappings", "riskLevel"] {
            assert_eq!(made[member], body[member], "{member}");
        }
        assert_eq!(made["rawPayloadHash"], HASH);
        assert_eq!(
            (&made["freshness"], &made["workflowState"]),
            (&json!("fresh"), &json!("accepted"))
        );
        assert!(made.get("rawPayload").is_none(), "what was collected is not answered");
        // a hash that is sent is checked
        body["rawPayloadHash"] = json!(HASH);
        collector.post(ITEMS, body.clone()).await.is(201);
        body["rawPayload"]["removed"] = json!(4);
        collector.post(ITEMS, body).await.refused_by_product(422, "validation_failed");
        // one tenant's evidence is nobody else's
        let path = format!("{ITEMS}/{}", made["id"].as_str().unwrap());
        assert_eq!(collector.get(&path).await.is(200), made);
        node.demo_key(KURAMO_HEALTH).get(&path).await.refused_by_product(404, "not_found");
        // freshness moves with time
        node.clock.advance_ms(31 * DAY_MS);
        let seen = collector.get(&path).await.is(200);
        assert_eq!(seen["freshness"], "aging");
    })
    .await;
}

#[tokio::test]
async fn ap10_high_risk_evidence_is_unusable_until_a_qualified_owner_reviewed_it() {
    node_on_every_engine(async |node| {
        let scopes = ["evidence:read", "evidence:write", "reports:write"];
        let collector = node.key(&scopes).await;
        let made = collector.post(ITEMS, item(node, "high")).await.is(201);
        assert_eq!(made["workflowState"], "awaiting_review");
        let id = made["id"].as_str().unwrap();
        let path = |rest: &str| format!("{ITEMS}/{id}{rest}");
        let purpose = json!({ "purpose": "auditor_reliance" });
        let approve = json!({ "decision": "approve", "note": "Looked at." });
        collector.post(&path("/use"), purpose.clone()).await.refused_by_product(409, "conflict");
        let build = json!({ "type": "audit_summary", "format": "json", "evidenceIds": [id] });
        collector
            .post("/v1/reports/build", build.clone())
            .await
            .refused_by_product(409, "conflict");

        // the right scope does not make a reviewer: the role of the key's owner does
        let developer = owned_by(node, "developer", &scopes).await;
        developer
            .post(&path("/review"), approve.clone())
            .await
            .refused_by_product(403, "rbac_denied");
        collector.post(&path("/use"), purpose.clone()).await.refused_by_product(409, "conflict");
        let manager = owned_by(node, "compliance-manager", &scopes).await;
        let reviewed = manager.post(&path("/review"), approve).await.is(200);
        assert_eq!(reviewed["workflowState"], "approved");
        let used = collector.post(&path("/use"), purpose).await.is(201);
        assert_eq!(used["rawPayloadHash"], HASH);
        collector.post("/v1/reports/build", build).await.is(202);
    })
    .await;
}

async fn owned_by(node: &TestNode, role: &str, scopes: &[&str]) -> crate::harness::Actor {
    let mut body = node.key_body(LAGOS_PAY, scopes).await;
    body["ownerId"] = json!(node.member(LAGOS_PAY, role).await);
    node.bearer(&node.mint(LAGOS_PAY, body).await.secret)
}
