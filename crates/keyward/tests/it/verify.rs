//! Verify: the gateway's decision for callers that forward requests themselves.

use keyward_api::verify::VALID;
use serde_json::{Value, json};

use crate::harness::{DAY_MS, KURAMO_HEALTH, LAGOS_PAY, node_on_every_engine};

/// The checks in the order in which they are made.
const CHECKS: [&str; 14] = [
    "credential",
    "failed_caller",
    "lookup",
    "state",
    "environment",
    "ip",
    "browser_origin",
    "tenant",
    "route",
    "role",
    "scope",
    "rate_limit",
    "quota",
    "idempotency",
];

#[tokio::test]
async fn a_valid_key_is_told_in_full() {
    node_on_every_engine(async |node| {
        let mut body = node.key_body(LAGOS_PAY, &["reports:read", "audit:read"]).await;
        body["expiresInDays"] = json!(90);
        let key = node.mint(LAGOS_PAY, body).await;
        let told = node.verify(json!({ "key": key.secret })).await;
        for (member, value) in [
            ("valid", json!(true)),
            ("code", json!(VALID)),
            ("keyId", json!(key.id)),
            ("name", key.record["name"].clone()),
            ("tenantId", json!(node.tenant(LAGOS_PAY))),
            ("environment", json!("live")),
            ("role", json!("owner")),
            ("actor", key.record["ownerId"].clone()),
            ("expiresAt", key.record["expiresAt"].clone()),
            ("scopes", json!(["audit:read", "reports:read"])),
        ] {
            assert_eq!(told[member], value, "{member}");
        }
        assert!(told["epoch"].as_u64().unwrap() > 0);
        assert!(told.get("failed").is_none() && told.get("trace").is_none());
    })
    .await;
}

#[tokio::test]
async fn every_code_has_its_question() {
    node_on_every_engine(async |node| {
        let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["ownerId"] = json!(node.member(LAGOS_PAY, "analyst").await);
        body["ipAllowlist"] = json!(["192.0.2.0/24"]);
        body["expiresInDays"] = json!(1);
        let key = node.mint(LAGOS_PAY, body).await;
        let revoked = node.minted(&["reports:read"]).await;
        node.revoke(&revoked.id).await;
        let lost = node.minted(&["reports:read"]).await;
        node.operator().post(&node.key_path(&lost.id, "/reissue"), json!({})).await.is(200);
        let other = node.tenant(KURAMO_HEALTH);
        let ip = "192.0.2.7";
        let secret = &key.secret;
        let call = |method: &str, path: &str| {
            json!({ "key": secret, "ip": ip, "method": method, "path": path })
        };
        let questions = [
            (json!({ "key": secret, "ip": ip }), VALID, Value::Null),
            (call("GET", "/v1/reports"), VALID, Value::Null),
            (json!({ "key": "asiri_live_x" }), "invalid_api_key", json!("credential")),
            (json!({ "key": lost.secret }), "invalid_api_key", json!("lookup")),
            (json!({ "key": revoked.secret }), "unauthorized", json!("state")),
            (json!({ "key": secret }), "ip_not_allowed", json!("ip")),
            (json!({ "key": secret, "ip": "198.51.100.1" }), "ip_not_allowed", json!("ip")),
            (
                json!({ "key": secret, "ip": ip, "environment": "test" }),
                "environment_mismatch",
                json!("environment"),
            ),
            (
                json!({ "key": secret, "ip": ip, "tenantId": other }),
                "tenant_mismatch",
                json!("tenant"),
            ),
            (call("GET", "/v1/nowhere"), "forbidden", json!("route")),
            (call("DELETE", "/v1/reports"), "method_not_allowed", json!("route")),
            (call("GET", "/v1/files"), "rbac_denied", json!("role")),
            (call("POST", "/v1/reports/build"), "forbidden", json!("scope")),
            (
                json!({ "key": secret, "ip": ip, "scopes": ["controls:read"] }),
                "forbidden",
                json!("scope"),
            ),
            (
                json!({ "key": secret, "ip": ip, "scopes": ["files:read"] }),
                "rbac_denied",
                json!("role"),
            ),
        ];
        for (mut question, code, failed) in questions {
            let told = node.verify(question.clone()).await;
            assert_eq!(told["code"], code, "{question}: {told}");
            assert_eq!(told["valid"], json!(code == VALID), "{question}");
            assert_eq!(told.get("failed").cloned().unwrap_or_default(), failed, "{question}");
            question["explain"] = json!(true);
            explained(&node.verify(question).await, &failed);
        }
        node.clock.advance_ms(DAY_MS);
        let told = node.verify(json!({ "key": secret, "ip": ip })).await;
        assert_eq!((&told["code"], &told["failed"]), (&json!("expired_api_key"), &json!("state")));
    })
    .await;
}

/// Every check in its order: passed up to the one that failed, and none made behind it.
fn explained(told: &Value, failed: &Value) {
    let trace = told["trace"].as_array().unwrap();
    let checks: Vec<_> = trace.iter().map(|step| step["check"].as_str().unwrap()).collect();
    assert_eq!(checks, CHECKS);
    let position = CHECKS.iter().position(|check| failed == check).unwrap_or(CHECKS.len());
    for (at, step) in trace.iter().enumerate() {
        let outcome = match at.cmp(&position) {
            std::cmp::Ordering::Less => "passed",
            std::cmp::Ordering::Equal => "failed",
            std::cmp::Ordering::Greater => "skipped",
        };
        assert_eq!(step["outcome"], outcome, "{told}");
    }
}

#[tokio::test]
async fn a_tenants_token_is_told_of_no_other_tenants_key() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let ask = async |slug: &str, secret: &str| {
            let token = node.admin_token(&["verify"], Some((slug, "owner"))).await;
            token.at(&node.internal).post("/v1/verify", json!({ "key": secret })).await.is(200)
        };
        let lost = node.minted(&["reports:read"]).await;
        node.operator().post(&node.key_path(&lost.id, "/reissue"), json!({})).await.is(200);
        assert_eq!(ask(LAGOS_PAY, &key.secret).await["valid"], true);
        let token = node.admin_token(&["verify"], Some((KURAMO_HEALTH, "owner"))).await;
        let token = token.at(&node.internal);
        let foreign = async |secret: &str| {
            token.post("/v1/verify", json!({ "key": secret, "explain": true })).await.is(200)
        };
        // a key of another tenant looks like one that nobody has
        let nobodys = foreign(&lost.secret).await;
        let foreign = foreign(&key.secret).await;
        assert_eq!(foreign, nobodys);
        assert_eq!(foreign["code"], "invalid_api_key");
        for member in ["keyId", "name", "tenantId", "environment", "role", "actor", "expiresAt"] {
            assert_eq!(foreign[member], Value::Null, "{member}");
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_questions_are_refused_without_repeating_the_key() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let operator = node.operator().at(&node.internal);
        for (question, status) in [
            (json!({ "key": key.secret, "scopes": ["reports:none"] }), 422),
            (json!({ "key": key.secret, "ip": "here" }), 422),
            (json!({ "key": key.secret, "cost": 0 }), 422),
            (json!({ "key": key.secret, "path": "/v1/reports" }), 422),
            (json!({ "key": key.secret, "method": "GET", "path": "/v1//reports" }), 400),
            (json!({ "key": key.secret, "tenantId": "ten_none" }), 400),
            (json!({ "key": key.secret, "kye": "x" }), 400),
            (json!([key.secret]), 400),
        ] {
            let got = operator.post("/v1/verify", question.clone()).await;
            assert_eq!(got.status, status, "{question}: {}", got.text);
            got.envelope();
            assert!(!got.text.contains(&key.secret), "{}", got.text);
        }
    })
    .await;
}
