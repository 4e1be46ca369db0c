//! From rotation to revocation, as callers see it.

use std::sync::atomic::{AtomicBool, Ordering};

use keyward_api::operation::OPERATIONS;
use keyward_core::clock::Clock as _;
use keyward_testkit::Wire;
use serde_json::{Value, json};

use crate::harness::{DAY_MS, LAGOS_PAY, minted, node_on_every_engine};

#[tokio::test]
async fn ak9_rotation_without_downtime() {
    node_on_every_engine(async |node| {
        let old = node.minted(&["reports:read", "audit:read"]).await;
        let rotate = node.key_path(&old.id, "/rotate");
        let new = minted(&node.operator().post(&rotate, json!({})).await);
        assert_eq!(new.record["scopes"], old.record["scopes"]);
        let call = async |secret: &str, agent: &str| {
            let caller = node.bearer(secret).with("user-agent", agent);
            caller.get("/v1/reports").await.is(200);
        };
        call(&old.secret, "billing/1").await;
        call(&new.secret, "billing/2").await;
        node.note_usage().await;
        let first_use = node.clock.now();
        node.clock.advance_ms(60_000);
        // one service still uses the old key, and that can be seen
        call(&old.secret, "reports/7").await;
        node.note_usage().await;
        let (was, now) = (node.record(&old.id).await, node.record(&new.id).await);
        assert_eq!(was["lastUsedAt"], json!(node.clock.now()));
        assert_eq!(was["lastUsedAgent"], "reports/7");
        assert_eq!(now["lastUsedAt"], json!(first_use));
        assert_eq!(now["lastUsedAgent"], "billing/2");
        assert_eq!(now["lastUsedIp"], "127.0.0.1");
        node.revoke(&old.id).await;
        node.bearer(&old.secret).get("/v1/reports").await.refused(401, "unauthorized");
        call(&new.secret, "billing/2").await;
    })
    .await;
}

#[tokio::test]
async fn ak10_a_revoked_key_is_refused_on_every_request_sent_afterwards() {
    node_on_every_engine(async |node| {
        for _ in 0..3 {
            let key = node.minted(&["reports:read"]).await;
            let head = format!(
                "GET /v1/reports?limit=1 HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {}\r\n\r\n",
                key.secret
            );
            let mut open = Vec::new();
            for _ in 0..8 {
                let mut wire = Wire::connect(&node.gateways[0]).await;
                wire.write(head.as_bytes()).await;
                assert_eq!(wire.answer().await.unwrap().status, 200);
                open.push(wire);
            }
            let answer = node.revoke(&key.id).await;
            assert_eq!(answer["fence"]["status"], "effective");
            for wire in &mut open {
                wire.write(head.as_bytes()).await;
                let refused = wire.answer().await.unwrap();
                assert_eq!(refused.status, 401, "{refused:?}");
                assert_eq!(refused.json()["error"]["code"], "unauthorized");
                assert_eq!(refused.json()["error"]["details"]["reason"], "revoked");
            }
            let told = node.verify(json!({ "key": key.secret })).await;
            assert_eq!((&told["valid"], &told["code"]), (&json!(false), &json!("unauthorized")));
            assert_eq!(told["epoch"], answer["fence"]["epoch"]);
        }
    })
    .await;
}

#[tokio::test]
async fn ak10_no_request_under_way_slips_past_the_revocation() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let revoked = AtomicBool::new(false);
        let caller = node.bearer(&key.secret);
        let hammer = async || {
            let (mut before, mut after) = (0, 0);
            while after < 10 {
                // read before the first byte is sent
                let sent_after = revoked.load(Ordering::SeqCst);
                let got = caller.get("/v1/reports?limit=1").await;
                if sent_after {
                    got.refused(401, "unauthorized");
                    after += 1;
                } else if got.status == 200 {
                    before += 1;
                }
            }
            before
        };
        let revoke = async {
            for _ in 0..5 {
                node.bearer(&key.secret).get("/v1/reports?limit=1").await.is(200);
            }
            node.revoke(&key.id).await;
            revoked.store(true, Ordering::SeqCst);
        };
        let (a, b, c, ()) = tokio::join!(hammer(), hammer(), hammer(), revoke);
        assert!(a + b + c > 0, "some passed before");
    })
    .await;
}

#[tokio::test]
async fn ak10_the_audit_log_names_who_revoked_and_when() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        node.clock.advance_ms(DAY_MS);
        let who = node.admin_token(&["keys:write"], Some((LAGOS_PAY, "owner"))).await;
        let who = who.with("user-agent", "console/1");
        let body = json!({ "reason": "leaked", "comment": "found in a log" });
        let got = who.post(&node.key_path(&key.id, "/revoke"), body).await;
        got.is(200);
        let events = node.audit(LAGOS_PAY, &format!("?targetId={}", key.id)).await;
        let event = &events[0];
        assert_eq!(event["action"], "api_key.revoked");
        assert_eq!(event["at"], json!(node.clock.now()));
        assert_eq!(event["actor"]["kind"], "admin_token");
        assert_eq!(event["actor"]["role"], "owner");
        assert!(event["actor"]["id"].as_str().unwrap().starts_with("adm_"));
        assert_eq!(event["target"], json!({ "kind": "api_key", "id": key.id }));
        assert_eq!(event["requestId"].as_str(), got.header("x-request-id"));
        assert_eq!((&event["ip"], &event["userAgent"]), (&json!("127.0.0.1"), &json!("console/1")));
        assert_eq!(event["details"]["reason"], "leaked");
        assert_eq!(event["details"]["comment"], "found in a log");
        let path =
            node.path(LAGOS_PAY, &format!("/audit-events/{}", event["id"].as_str().unwrap()));
        assert_eq!(node.operator().get(&path).await.is(200), *event);
        // the tenant's own services read the same trail through the gateway
        let reader = node.key(&["audit:read"]).await;
        let page = reader.get("/v1/audit/events?action=api_key.revoked").await.is(200);
        assert!(page["data"].as_array().unwrap().contains(event));
    })
    .await;
}

#[tokio::test]
async fn ak10_there_is_no_pause() {
    node_on_every_engine(async |node| {
        for word in ["pause", "disable", "enable", "unrevoke", "reactivate", "restore"] {
            let found = OPERATIONS.iter().find(|operation| {
                operation.id.to_lowercase().contains(word) || operation.path.contains(word)
            });
            assert!(found.is_none(), "{found:?}");
        }
        let key = node.minted(&["reports:read"]).await;
        let path = node.key_path(&key.id, "");
        for body in [json!({ "state": "paused" }), json!({ "enabled": false })] {
            node.operator().patch(&path, body).await.refused(422, "validation_failed");
        }
        node.revoke(&key.id).await;
        for body in [json!({ "revokedAt": Value::Null }), json!({ "name": "back again" })] {
            let got = node.operator().patch(&path, body).await;
            assert!(got.status == 409 || got.status == 422, "{}", got.text);
        }
        let reissue = node.key_path(&key.id, "/reissue");
        node.operator().post(&reissue, json!({})).await.refused(409, "conflict");
        node.bearer(&key.secret).get("/v1/reports").await.refused(401, "unauthorized");
    })
    .await;
}

#[tokio::test]
async fn ai1_states_follow_from_instants() {
    node_on_every_engine(async |node| {
        let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["expiresInDays"] = json!(20);
        let key = node.mint(LAGOS_PAY, body).await;
        let caller = node.bearer(&key.secret);
        node.clock.advance_ms(20 * DAY_MS - 1);
        caller.get("/v1/reports").await.is(200);
        assert_eq!(node.record(&key.id).await["state"], "active");
        node.clock.advance_ms(1);
        let error = caller.get("/v1/reports").await.refused_at(401, "expired_api_key", "state");
        assert_eq!(error["details"]["expiredAt"], key.record["expiresAt"]);
        assert_eq!(node.record(&key.id).await["state"], "expired");
    })
    .await;
}

#[tokio::test]
async fn ai1_revocation_is_immediate_and_permanent() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        node.revoke(&key.id).await;
        let caller = node.bearer(&key.secret);
        caller.get("/v1/reports").await.refused(401, "unauthorized");
        // revoked stays revoked, also past the expiry it once had
        node.clock.advance_ms(400 * DAY_MS);
        caller.get("/v1/reports").await.refused(401, "unauthorized");
    })
    .await;
}
