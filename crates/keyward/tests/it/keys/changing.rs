//! Keys as they change: edited, narrowed, revoked, deleted.

use keyward_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::harness::{DAY_MS, KURAMO_HEALTH, LAGOS_PAY, node_on_every_engine};

#[tokio::test]
async fn update_ok() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let path = node.key_path(&key.id, "");
        let caller = node.bearer(&key.secret);
        let named = json!({ "name": "renamed", "description": "for nights" });
        let answer = node.operator().patch(&path, named).await.is(200);
        assert_eq!(answer["key"]["name"], "renamed");
        assert_eq!(answer["fence"], Value::Null, "nothing was taken away");
        let fenced = json!({ "ipAllowlist": ["192.0.2.0/24"] });
        let answer = node.operator().patch(&path, fenced).await.is(200);
        assert_eq!(answer["fence"]["status"], "effective");
        caller.get("/v1/reports").await.refused_at(403, "ip_not_allowed", "ip");
        let open = json!({ "ipAllowlist": [], "rateLimit": { "limit": 5, "windowSeconds": 60 } });
        let answer = node.operator().patch(&path, open).await.is(200);
        assert_eq!(answer["key"]["rateLimit"]["limit"], 5);
        caller.get("/v1/reports").await.is(200);
        let answer = node.operator().patch(&path, json!({ "rateLimit": null })).await.is(200);
        assert_eq!(answer["key"]["rateLimit"], Value::Null);
        let sooner = node.clock.now().plus_ms(DAY_MS);
        let answer = node.operator().patch(&path, json!({ "expiresAt": sooner })).await.is(200);
        assert_eq!(answer["fence"]["status"], "effective");
        node.clock.advance_ms(DAY_MS);
        caller.get("/v1/reports").await.refused(401, "expired_api_key");
        let late = node.operator().patch(&path, json!({ "name": "late" })).await;
        late.refused(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn update_invalid_422_foreign_404() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let path = node.key_path(&key.id, "");
        let later = node.clock.now().plus_ms(400 * DAY_MS);
        for body in [
            json!({}),
            json!({ "name": " " }),
            json!({ "expiresAt": later }),
            json!({ "expiresAt": node.clock.now() }),
            json!({ "ipAllowlist": ["10.0.0.0/99"] }),
            json!({ "scopes": ["audit:read"] }),
            json!({ "state": "paused" }),
            json!({ "enabled": false }),
        ] {
            node.operator().patch(&path, body).await.refused(422, "validation_failed");
        }
        let foreign = node.path(KURAMO_HEALTH, &format!("/keys/{}", key.id));
        let body = json!({ "name": "mine" });
        node.operator().patch(&foreign, body.clone()).await.refused(404, "not_found");
        let nobody = node.key_path("key_none", "");
        node.operator().patch(&nobody, body).await.refused(404, "not_found");
    })
    .await;
}

#[tokio::test]
async fn narrow_scopes_takes_away_and_never_adds() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read", "audit:read"]).await;
        let path = node.key_path(&key.id, "/narrow-scopes");
        let caller = node.bearer(&key.secret);
        caller.get("/v1/audit/events").await.is(200);
        let remove = |scopes: &[&str]| json!({ "remove": scopes });
        for wrong in [remove(&[]), remove(&["files:read"]), remove(&["reports:read", "audit:read"])]
        {
            node.operator().post(&path, wrong).await.refused(422, "validation_failed");
        }
        let answer = node.operator().post(&path, remove(&["audit:read"])).await.is(200);
        assert_eq!(answer["key"]["scopes"], json!(["reports:read"]));
        assert_eq!(answer["fence"]["status"], "effective");
        caller.get("/v1/audit/events").await.refused_at(403, "forbidden", "scope");
        caller.get("/v1/reports").await.is(200);
        node.revoke(&key.id).await;
        let late = node.operator().post(&path, remove(&["reports:read"])).await;
        late.refused(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn revoke_is_for_ever_and_keeps_its_first_instant() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let first = node.revoke(&key.id).await;
        assert_eq!(first["fence"]["status"], "effective");
        assert_eq!(first["fence"]["revokedAt"], first["key"]["revokedAt"]);
        assert_eq!(first["key"]["revokeReason"], "leaked");
        node.clock.advance_ms(60_000);
        let path = node.key_path(&key.id, "/revoke");
        let again = node.operator().post(&path, json!({ "reason": "unused" })).await.is(200);
        assert_eq!(again["key"], first["key"], "a repetition changes nothing");
        for body in [
            json!({}),
            json!({ "reason": "paused" }),
            json!({ "reason": "deleted" }),
            json!({ "reason": "other", "comment": "x".repeat(5_000) }),
        ] {
            node.operator().post(&path, body).await.refused(422, "validation_failed");
        }
        let foreign = node.path(KURAMO_HEALTH, &format!("/keys/{}/revoke", key.id));
        let got = node.operator().post(&foreign, json!({ "reason": "other" })).await;
        got.refused(404, "not_found");
    })
    .await;
}

#[tokio::test]
async fn delete_revokes_and_hides() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let path = node.key_path(&key.id, "");
        let answer = node.operator().delete(&path).await.is(200);
        assert_eq!(answer["key"]["state"], "revoked");
        assert_eq!(answer["key"]["revokeReason"], "deleted");
        assert_eq!(answer["fence"]["status"], "effective");
        node.bearer(&key.secret).get("/v1/reports").await.refused(401, "unauthorized");
        let listed = async |query: &str| {
            let keys = node.operator().all(&node.path(LAGOS_PAY, &format!("/keys{query}"))).await;
            keys.iter().any(|listed| listed["id"] == json!(key.id))
        };
        assert!(!listed("").await);
        assert!(listed("?includeDeleted=true").await);
        assert_ne!(node.record(&key.id).await["deletedAt"], Value::Null);
        // a deleted key is only there to be looked at
        node.operator().delete(&path).await.refused(404, "not_found");
        let rename = node.operator().patch(&path, json!({ "name": "back" })).await;
        rename.refused(404, "not_found");

        // an expired key keeps saying so
        let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["expiresInDays"] = json!(1);
        let old = node.mint(LAGOS_PAY, body).await;
        node.clock.advance_ms(2 * DAY_MS);
        let answer = node.operator().delete(&node.key_path(&old.id, "")).await.is(200);
        assert_eq!(answer["key"]["state"], "expired");
    })
    .await;
}

#[tokio::test]
async fn list_filters() {
    node_on_every_engine(async |node| {
        let old = node.minted(&["files:read"]).await;
        node.bearer(&old.secret).get("/v1/files").await.is(200);
        node.note_usage().await;
        node.clock.advance_ms(10 * DAY_MS);
        let idle = node.minted(&["files:write"]).await;
        let mut body = node.key_body(LAGOS_PAY, &["files:write"]).await;
        body["environment"] = json!("test");
        body["name"] = json!("Nightly Upload");
        body["ownerId"] = json!(node.member(LAGOS_PAY, "developer").await);
        let test = node.mint(LAGOS_PAY, body.clone()).await;
        node.revoke(&idle.id).await;
        let hint = test.record["hint"].as_str().unwrap();
        let found = async |query: &str| {
            let keys = node.operator().all(&node.path(LAGOS_PAY, &format!("/keys?{query}"))).await;
            let of_ours = |key: &Value| {
                [&old.id, &idle.id, &test.id].iter().position(|id| key["id"] == json!(id))
            };
            let mut found: Vec<_> = keys.iter().filter_map(of_ours).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(found("scope=files:write").await, [1, 2]);
        assert_eq!(found("environment=test").await, [2]);
        assert_eq!(found("state=revoked").await, [1]);
        assert_eq!(found("state=active&scope=files:write").await, [2]);
        assert_eq!(found(&format!("ownerId={}", body["ownerId"].as_str().unwrap())).await, [2]);
        assert_eq!(found("text=nightly").await, [2]);
        assert_eq!(found(&format!("text={hint}")).await, [2]);
        assert_eq!(found("unusedDays=9").await, [0]);
        assert_eq!(found("unusedDays=11").await, [0; 0]);
        assert_eq!(found("text=100%25").await, [0; 0], "a percent sign is no wildcard");
        for wrong in ["state=paused", "environment=prod", "ownerId=ada", "unusedDays=0"] {
            let path = node.path(LAGOS_PAY, &format!("/keys?{wrong}"));
            node.operator().get(&path).await.refused(422, "validation_failed");
        }
    })
    .await;
}
