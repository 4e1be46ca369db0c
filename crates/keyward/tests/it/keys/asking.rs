//! Questions about keys: whose is it, and what may it do?

use serde_json::{Value, json};

use crate::harness::{DAY_MS, KURAMO_HEALTH, LAGOS_PAY, node_on_every_engine};

#[tokio::test]
async fn explain_tells_what_the_gateway_then_does() {
    node_on_every_engine(async |node| {
        let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["ownerId"] = json!(node.member(LAGOS_PAY, "developer").await);
        body["ipAllowlist"] = json!(["127.0.0.0/8"]);
        let key = node.mint(LAGOS_PAY, body).await;
        let path = node.key_path(&key.id, "/explain");
        let explain = async |question: Value| node.operator().post(&path, question).await.is(200);
        let calls = [
            ("GET", "/v1/reports", Value::Null, Value::Null),
            ("GET", "/v1/reports/rep_lp_0024", Value::Null, Value::Null),
            ("POST", "/v1/reports/build", json!("forbidden"), json!("scope")),
            ("GET", "/v1/audit/events", json!("rbac_denied"), json!("role")),
            ("GET", "/v1/internal", json!("forbidden"), json!("route")),
            ("DELETE", "/v1/reports", json!("method_not_allowed"), json!("route")),
        ];
        for (method, target, code, failed) in calls {
            let question = json!({ "method": method, "path": target, "ip": "127.0.0.1" });
            let told = explain(question).await;
            assert_eq!((&told["code"], &told["failed"]), (&code, &failed), "{told}");
            assert_eq!(told["allowed"], json!(code.is_null()));
            assert_eq!(told["role"], "developer");
            let got = node.bearer(&key.secret).send(method.parse().unwrap(), target, None).await;
            if code.is_null() {
                assert_eq!(got.status, 200, "{}", got.text);
            } else {
                let error = got.envelope();
                assert_eq!((&error["code"], &error["message"]), (&code, &told["message"]));
            }
        }
        let steps = explain(json!({ "method": "POST", "path": "/v1/reports/build" })).await;
        assert_eq!(steps["requiredScopes"], json!([["reports:write"]]));
        assert_eq!(steps["route"], "POST /v1/reports/build");
        let trace: Vec<_> = steps["trace"].as_array().unwrap().iter().collect();
        let last = json!({ "check": "scope", "outcome": "failed" });
        assert_eq!(**trace.last().unwrap(), last);
        assert!(trace[..trace.len() - 1].iter().all(|step| step["outcome"] == "passed"));
    })
    .await;
}

#[tokio::test]
async fn explain_supposes_another_caller_and_another_time() {
    node_on_every_engine(async |node| {
        let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["ipAllowlist"] = json!(["192.0.2.0/24"]);
        body["expiresInDays"] = json!(30);
        let key = node.mint(LAGOS_PAY, body).await;
        let path = node.key_path(&key.id, "/explain");
        let late = keyward_core::clock::Clock::now(&*node.clock).plus_ms(31 * DAY_MS);
        for (more, code) in [
            (json!({}), Value::Null),
            (json!({ "ip": "192.0.2.7" }), Value::Null),
            (json!({ "ip": "198.51.100.7" }), json!("ip_not_allowed")),
            (json!({ "environment": "test" }), json!("environment_mismatch")),
            (json!({ "browserOrigin": "https://example.com" }), json!("browser_origin_refused")),
            (json!({ "at": late }), json!("expired_api_key")),
        ] {
            let mut question = json!({ "method": "GET", "path": "/v1/reports" });
            question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let told = node.operator().post(&path, question).await.is(200);
            assert_eq!(told["code"], code, "{more}");
        }
        let wrong = json!({ "method": "GET", "path": "/v1/reports", "ip": "here" });
        node.operator().post(&path, wrong).await.refused(422, "validation_failed");
        node.operator().post(&path, json!({ "path": "/" })).await.refused(422, "validation_failed");
        node.note_usage().await;
        assert_eq!(node.record(&key.id).await["lastUsedAt"], Value::Null, "nothing is counted");
    })
    .await;
}

#[tokio::test]
async fn identify_tells_whose_key_it_is() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let ask = |secret: &str| json!({ "secret": secret });
        let path = "/v1/keys/identify";
        let told = node.operator().post(path, ask(&key.secret)).await.is(200);
        assert_eq!((&told["key"], &told["tenantSlug"]), (&key.record, &json!(LAGOS_PAY)));
        assert_eq!(told["ownerName"], "Ada Obi");
        node.revoke(&key.id).await;
        let told = node.operator().post(path, ask(&key.secret)).await.is(200);
        assert_eq!(told["key"]["state"], "revoked");

        let (front, end) = key.secret.split_at(key.secret.len() - 1);
        let torn = format!("{front}{}", if end == "x" { "y" } else { "x" });
        for wrong in [torn.as_str(), "", "hello", node.operator().secret()] {
            let got = node.operator().post(path, ask(wrong)).await;
            got.refused(422, "validation_failed");
            assert!(wrong.is_empty() || !got.text.contains(wrong), "{}", got.text);
        }
        // a secret that was replaced is nobody's
        let lost = node.minted(&["reports:read"]).await;
        let reissue = node.key_path(&lost.id, "/reissue");
        node.operator().post(&reissue, json!({})).await.is(200);
        node.operator().post(path, ask(&lost.secret)).await.refused(404, "not_found");

        let scopes = ["keys:read"];
        let own = node.admin_token(&scopes, Some((LAGOS_PAY, "owner"))).await;
        own.post(path, ask(&key.secret)).await.is(200);
        let stranger = node.admin_token(&scopes, Some((KURAMO_HEALTH, "owner"))).await;
        stranger.post(path, ask(&key.secret)).await.refused(404, "not_found");
    })
    .await;
}
