//! Tenants, the people in them, and the trail of who did what with which credential.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{LAGOS_PAY, node_on_every_engine};

#[tokio::test]
async fn ap1_each_environment_and_service_has_its_own_key_and_the_audit_names_the_caller() {
    node_on_every_engine(async |node| {
        let services = ["billing", "reports", "nightly-export"];
        let mut secrets = BTreeSet::new();
        for environment in ["development", "staging", "live"] {
            for service in services {
                let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
                body["name"] = json!(service);
                body["environment"] = json!(environment);
                let key = node.mint(LAGOS_PAY, body).await;
                node.bearer(&key.secret).get("/v1/reports").await.is(200);
                let told = node.verify(json!({ "key": key.secret })).await;
                assert_eq!(
                    (&told["name"], &told["environment"]),
                    (&json!(service), &json!(environment))
                );
                secrets.insert(key.secret);
            }
        }
        assert_eq!(secrets.len(), 9);
        // two callers, two names in the trail
        for role in ["owner", "developer"] {
            let who = node.admin_token(&["keys:write"], Some((LAGOS_PAY, role))).await;
            let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
            body["ownerId"] = json!(node.member(LAGOS_PAY, role).await);
            let made = who.post(&node.path(LAGOS_PAY, "/keys"), body).await.is(201);
            let id = made["key"]["id"].as_str().unwrap();
            let events = node.audit(LAGOS_PAY, &format!("?targetId={id}")).await;
            assert_eq!(events.len(), 1);
            assert_eq!(events[0]["actor"]["name"], made["key"]["createdBy"]);
            assert_eq!(events[0]["actor"]["role"], role);
            let actor = events[0]["actor"]["id"].as_str().unwrap();
            let by_actor = node.audit(LAGOS_PAY, &format!("?actorId={actor}")).await;
            assert_eq!(by_actor, events);
        }
    })
    .await;
}

#[tokio::test]
async fn ap1_separate_environments_hold_separate_data() {
    node_on_every_engine(async |node| {
        let mut keys = Vec::new();
        for environment in ["live", "staging", "development"] {
            let mut body = node.key_body(LAGOS_PAY, &["files:read", "files:write"]).await;
            body["environment"] = json!(environment);
            let key = node.bearer(&node.mint(LAGOS_PAY, body).await.secret);
            let before = key.all("/v1/files").await;
            keys.push((key, before));
        }
        let (development, before) = keys.pop().unwrap();
        let file = json!({ "fileName": "a.csv", "contentType": "text/csv", "sizeBytes": 3 });
        let made = development.post("/v1/files/presign", file).await.is(201);
        let path = format!("/v1/files/{}", made["id"].as_str().unwrap());
        development.get(&path).await.is(200);
        assert_eq!(development.all("/v1/files").await.len(), before.len() + 1);
        for (other, before) in keys {
            other.get(&path).await.refused_by_product(404, "not_found");
            assert_eq!(other.all("/v1/files").await, before);
        }
    })
    .await;
}

#[tokio::test]
async fn ai7_keys_are_tied_to_the_roles_of_the_organization() {
    node_on_every_engine(async |node| {
        let catalog = node.operator().get("/v1/catalog/roles").await.is(200);
        for role in catalog["data"].as_array().unwrap() {
            let name = role["name"].as_str().unwrap();
            let member = node.member(LAGOS_PAY, name).await;
            let has = |area: &str| role["areas"].as_array().unwrap().contains(&json!(area));
            for (scope, area) in [("audit:read", "audit"), ("files:write", "files")] {
                let mut body = node.key_body(LAGOS_PAY, &[scope]).await;
                body["ownerId"] = json!(member);
                let got = node.operator().post(&node.path(LAGOS_PAY, "/keys"), body).await;
                if has(area) {
                    got.is(201);
                } else {
                    got.refused_at(403, "rbac_denied", "role");
                }
            }
            // what the role may do on Keyward's own API
            let token =
                node.admin_token(&["keys:read", "keys:write"], Some((LAGOS_PAY, name))).await;
            let may = |operation: &str| {
                role["operations"].as_array().unwrap().contains(&json!(operation))
            };
            let list = token.get(&node.path(LAGOS_PAY, "/keys")).await;
            let area = role["areas"][0].as_str().unwrap();
            let mut body = node.key_body(LAGOS_PAY, &[&format!("{area}:read")]).await;
            body["ownerId"] = json!(member);
            let create = token.post(&node.path(LAGOS_PAY, "/keys"), body).await;
            for (got, operation) in [(list, "keys:read"), (create, "keys:write")] {
                if may(operation) {
                    assert!(got.status < 300, "{name} {operation}: {}", got.text);
                } else {
                    got.refused_at(403, "rbac_denied", "role");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an1_a_tenant_has_several_active_keys_and_can_delete_each() {
    node_on_every_engine(async |node| {
        let mut keys = Vec::new();
        for _ in 0..4 {
            keys.push(node.minted(&["reports:read"]).await);
        }
        let tenant = json!(node.tenant(LAGOS_PAY));
        for key in &keys {
            assert_eq!(
                (&key.record["tenantId"], &key.record["state"]),
                (&tenant, &json!("active"))
            );
            node.bearer(&key.secret).get("/v1/reports").await.is(200);
        }
        let deleted = keys.pop().unwrap();
        let path = node.key_path(&deleted.id, "");
        let answer = node.operator().delete(&path).await.is(200);
        assert_eq!(answer["key"]["state"], "revoked");
        node.bearer(&deleted.secret).get("/v1/reports").await.refused(401, "unauthorized");
        let listed = node.operator().all(&node.path(LAGOS_PAY, "/keys")).await;
        assert!(listed.iter().all(|key| key["id"] != json!(deleted.id)));
        for key in &keys {
            assert!(listed.iter().any(|listed| listed["id"] == json!(key.id)));
            node.bearer(&key.secret).get("/v1/reports").await.is(200);
        }
        // the trail keeps what the list hides
        let events = node.audit(LAGOS_PAY, &format!("?keyId={}", deleted.id)).await;
        let actions: Vec<_> =
            events.iter().map(|event| event["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["api_key.deleted", "api_key.created"]);
    })
    .await;
}
