//! What a call must bring to pass: the right key, for a public route, within role and scope.

use serde_json::json;

use crate::harness::{KURAMO_HEALTH, LAGOS_PAY, node_on_every_engine};

#[tokio::test]
async fn ak1_a_key_belongs_to_one_workspace_and_is_sent_as_bearer() {
    node_on_every_engine(async |node| {
        let ours = node.key(&["reports:read"]).await;
        assert!(ours.secret().starts_with("asiri_live_"));
        let here = ours.get("/v1/reports").await.is(200);
        let there = node.demo_key(KURAMO_HEALTH).get("/v1/reports").await.is(200);
        let ids = |page: &serde_json::Value| -> Vec<String> {
            let rows = page["data"].as_array().unwrap().iter();
            rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
        };
        assert!(!ids(&here).is_empty() && !ids(&there).is_empty());
        assert!(ids(&here).iter().all(|id| !ids(&there).contains(id)));

        let nobody = node.anonymous().at(&node.gateways[0]);
        let got = nobody.get("/v1/reports").await;
        let error = got.refused_at(401, "missing_api_key", "credential");
        assert!(error["message"].as_str().unwrap().contains("Authorization: Bearer"));
        assert_eq!(got.header("www-authenticate"), Some("Bearer realm=\"api\""));
        // other ways to send a key are not this product's
        for (name, value) in [
            ("x-api-key", ours.secret().to_owned()),
            ("authorization", format!("ApiKey {}", ours.secret())),
            ("authorization", format!("Basic {}", ours.secret())),
        ] {
            let got = nobody.with(name, &value).get("/v1/reports").await;
            assert_eq!(got.status, 401, "{name}: {}", got.text);
            got.envelope();
        }
        let twice = ours.with("authorization", &format!("Bearer {}", ours.secret()));
        twice.get("/v1/reports").await.refused(401, "ambiguous_api_key");
        let in_url = format!("/v1/reports?api_key={}", ours.secret());
        nobody.get(&in_url).await.refused(400, "credential_in_url");
        // an admin token opens nothing of the product
        let admin = node.operator().at(&node.gateways[0]);
        admin.get("/v1/reports").await.refused(401, "invalid_api_key");
        // and a key nothing of Keyward's own API
        node.admin(ours.secret()).get("/v1/whoami").await.refused(401, "invalid_api_key");
    })
    .await;
}

#[tokio::test]
async fn ak3_each_refusal_says_which_check_failed() {
    node_on_every_engine(async |node| {
        let member = node.member(LAGOS_PAY, "analyst").await;
        let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["ownerId"] = json!(member);
        let key = node.bearer(&node.mint(LAGOS_PAY, body).await.secret);
        key.get("/v1/reports").await.is(200);
        // (a) the allowlist
        for target in ["/v1/internal/settings", "/v1", "/", "/v1/reports/rep_lp_0024/secret"] {
            key.get(target).await.refused_at(403, "forbidden", "route");
        }
        let got = key.delete("/v1/reports").await;
        got.refused_at(405, "method_not_allowed", "route");
        assert_eq!(got.header("allow"), Some("GET"));
        // (b) the role of who made it
        let error = key.get("/v1/evidence/items").await.refused_at(403, "rbac_denied", "role");
        assert_eq!(error["details"]["role"], "analyst");
        // (c) the scope
        let got = key.post("/v1/reports/build", json!({})).await;
        let error = got.refused_at(403, "forbidden", "scope");
        assert_eq!(error["details"]["requiredScopes"], json!([["reports:write"]]));
        assert_eq!(error["details"]["grantedScopes"], json!(["reports:read"]));
    })
    .await;
}

#[tokio::test]
async fn ak3_a_change_of_role_counts_from_the_next_request() {
    node_on_every_engine(async |node| {
        let member = node.member(LAGOS_PAY, "developer").await;
        let mut body = node.key_body(LAGOS_PAY, &["evidence:read", "reports:read"]).await;
        body["ownerId"] = json!(member);
        let key = node.mint(LAGOS_PAY, body).await;
        let caller = node.bearer(&key.secret);
        let path = node.path(LAGOS_PAY, &format!("/members/{member}"));
        for _ in 0..5 {
            caller.get("/v1/evidence/items").await.is(200);
            let answer = node.operator().patch(&path, json!({ "role": "auditor" })).await.is(200);
            assert_eq!(answer["fence"]["status"], "effective");
            caller.get("/v1/evidence/items").await.refused_at(403, "rbac_denied", "role");
            caller.get("/v1/reports").await.is(200);
            let question = json!({ "key": key.secret, "scopes": ["evidence:read"] });
            assert_eq!(node.verify(question).await["code"], "rbac_denied");
            node.operator().patch(&path, json!({ "role": "developer" })).await.is(200);
        }
        // whoever left has no role at all
        let heir = json!({ "keys": "rehome", "rehomeTo": node.member(LAGOS_PAY, "owner").await });
        node.operator().post(&format!("{path}/offboard"), heir).await.is(200);
        caller.get("/v1/evidence/items").await.is(200);
    })
    .await;
}
