//! Keys as they are made: created, rotated, issued again.

use keyward_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::harness::{DAY_MS, LAGOS_PAY, minted, node_on_every_engine};

const HOUR_MS: i64 = 60 * 60 * 1_000;

#[tokio::test]
async fn create_ok() {
    node_on_every_engine(async |node| {
        let mut body = node.key_body(LAGOS_PAY, &["reports:read", "audit:read"]).await;
        body["description"] = json!("Reads reports at night");
        body["expiresInDays"] = json!(90);
        body["ipAllowlist"] = json!(["127.0.0.0/8", "2001:db8::/32"]);
        body["rateLimit"] = json!({ "limit": 100, "windowSeconds": 60 });
        let got = node.operator().post(&node.path(LAGOS_PAY, "/keys"), body.clone()).await;
        assert_eq!(got.header("cache-control"), Some("no-store"));
        let key = minted(&got);
        let record = &key.record;
        for member in ["name", "description", "environment", "ownerId", "ipAllowlist"] {
            assert_eq!(record[member], body[member], "{member}");
        }
        assert_eq!(record["rateLimit"]["limit"], 100);
        assert_eq!(record["scopes"], json!(["audit:read", "reports:read"]));
        assert_eq!(record["state"], "active");
        assert_eq!(record["tenantId"], json!(node.tenant(LAGOS_PAY)));
        assert_eq!(record["lineageId"], record["id"]);
        assert_eq!(record["createdBy"], "keyward dev");
        assert_eq!(record["createdAt"], json!(node.clock.now()));
        assert_eq!(record["expiresAt"], json!(node.clock.now().plus_ms(90 * DAY_MS)));
        for member in ["revokedAt", "revokeReason", "deletedAt", "lastUsedAt", "replacedBy"] {
            assert_eq!(record[member], Value::Null, "{member}");
        }
        assert!(key.secret.ends_with(record["hint"].as_str().unwrap()));
        assert_eq!(node.record(&key.id).await, *record);
        node.bearer(&key.secret).get("/v1/reports").await.is(200);
    })
    .await;
}

#[tokio::test]
async fn create_invalid_422() {
    node_on_every_engine(async |node| {
        let path = node.path(LAGOS_PAY, "/keys");
        let good = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        let stranger = node.member("kuramo-health", "owner").await;
        let past = node.clock.now().plus_ms(-1);
        let far = node.clock.now().plus_ms(366 * DAY_MS);
        for (member, value, field) in [
            ("name", json!(""), "name"),
            ("name", json!("x".repeat(65)), "name"),
            ("name", json!("line\nbreak"), "name"),
            ("description", json!("x".repeat(5_000)), "description"),
            ("environment", json!("production"), ""),
            ("scopes", json!([]), "scopes"),
            ("scopes", json!(vec!["reports:read"; 65]), "scopes"),
            ("ownerId", json!("usr_none"), ""),
            ("ownerId", json!(stranger), "ownerId"),
            ("ownerId", Value::Null, "ownerId"),
            ("expiresAt", json!(past), "expiresAt"),
            ("expiresAt", json!(far), "expiresAt"),
            ("expiresAt", json!("tomorrow"), ""),
            ("expiresInDays", json!(0), "expiresInDays"),
            ("ipAllowlist", json!(["somewhere"]), "ipAllowlist"),
            ("ipAllowlist", json!(vec!["127.0.0.1"; 1_000]), "ipAllowlist"),
            ("rateLimit", json!({ "limit": 0, "windowSeconds": 60 }), "rateLimit.limit"),
            ("scope", json!(["reports:read"]), "scope"),
        ] {
            let mut body = good.clone();
            body[member] = value.clone();
            let got = node.operator().post(&path, body).await;
            assert_eq!(got.status, 422, "{member}: {value}: {}", got.text);
            let error = got.refused(422, "validation_failed");
            if !field.is_empty() {
                assert_eq!(error["details"]["field"], field, "{member}: {value}: {}", got.text);
            }
        }
        let mut misspelt = good.clone();
        misspelt["descripton"] = json!("x");
        let error = node.operator().post(&path, misspelt).await.refused(422, "validation_failed");
        assert!(error["message"].as_str().unwrap().contains("did you mean \"description\""));
        let both = json!({ "expiresAt": node.clock.now(), "expiresInDays": 1 });
        let mut body = good;
        body.as_object_mut().unwrap().extend(both.as_object().unwrap().clone());
        node.operator().post(&path, body).await.refused(422, "validation_failed");
    })
    .await;
}

#[tokio::test]
async fn create_twice_at_once_has_one_effect() {
    node_on_every_engine(async |node| {
        let path = node.path(LAGOS_PAY, "/keys");
        for _ in 0..5 {
            let body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
            let operator = node.operator().with("idempotency-key", &node.fresh("burst"));
            let call = || operator.post(&path, body.clone());
            let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
            let mut secrets = 0;
            for got in [&a, &b, &c, &d] {
                if got.status == 201 {
                    secrets += usize::from(got.is(201)["secret"].is_string());
                } else {
                    got.refused(409, "idempotency_in_progress");
                    assert!(got.header("retry-after").is_some());
                }
            }
            assert_eq!(secrets, 1, "the secret leaves once");
            let keys = node.operator().all(&path).await;
            let made = keys.iter().filter(|key| key["name"] == body["name"]);
            assert_eq!(made.count(), 1);
            let replayed = operator.post(&path, body.clone()).await;
            assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
        }
    })
    .await;
}

#[tokio::test]
async fn rotate_ok() {
    node_on_every_engine(async |node| {
        let old = node.minted(&["reports:read", "audit:read"]).await;
        let rotate = node.key_path(&old.id, "/rotate");
        let body = json!({ "overlapSeconds": 3_600, "scopes": ["reports:read"], "name": "next" });
        let got = node.operator().post(&rotate, body).await;
        let answer = got.is(201);
        let new = minted(&got);
        let ends = json!(node.clock.now().plus_ms(HOUR_MS));
        assert_eq!((&answer["overlapEndsAt"], &answer["old"]["expiresAt"]), (&ends, &ends));
        assert_eq!(answer["fence"]["status"], "effective");
        assert_eq!(answer["old"]["replacedBy"], json!(new.id));
        assert_eq!(new.record["rotatedFrom"], json!(old.id));
        assert_eq!(new.record["lineageId"], json!(old.id));
        assert_eq!(
            (&new.record["name"], &new.record["scopes"]),
            (&json!("next"), &json!(["reports:read"]))
        );
        assert_eq!(new.record["ownerId"], old.record["ownerId"]);
        for secret in [&old.secret, &new.secret] {
            node.bearer(secret).get("/v1/reports").await.is(200);
        }
        node.clock.advance_ms(HOUR_MS);
        node.bearer(&old.secret).get("/v1/reports").await.refused_at(
            401,
            "expired_api_key",
            "state",
        );
        node.bearer(&new.secret).get("/v1/reports").await.is(200);
        assert_eq!(node.record(&old.id).await["state"], "expired");
    })
    .await;
}

#[tokio::test]
async fn rotate_never_extends_the_old_key_and_zero_overlap_revokes_it() {
    node_on_every_engine(async |node| {
        let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["expiresInDays"] = json!(1);
        let old = node.mint(LAGOS_PAY, body).await;
        let rotate = node.key_path(&old.id, "/rotate");
        let month = json!({ "overlapSeconds": 30 * 86_400 });
        let answer = node.operator().post(&rotate, month).await.is(201);
        assert_eq!(answer["old"]["expiresAt"], old.record["expiresAt"]);
        assert_eq!(answer["overlapEndsAt"], old.record["expiresAt"]);

        let old = node.minted(&["reports:read"]).await;
        let rotate = node.key_path(&old.id, "/rotate");
        let answer = node.operator().post(&rotate, json!({ "overlapSeconds": 0 })).await.is(201);
        assert_eq!(answer["old"]["state"], "revoked");
        assert_eq!(answer["old"]["revokeReason"], "rotated");
        node.bearer(&old.secret).get("/v1/reports").await.refused_at(401, "unauthorized", "state");
    })
    .await;
}

#[tokio::test]
async fn rotate_invalid_422_conflict_409() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let rotate = node.key_path(&key.id, "/rotate");
        for body in [
            json!({ "overlapSeconds": 30 * 86_400 + 1 }),
            json!({ "overlapSeconds": -1 }),
            json!({ "scopes": ["audit:read"] }),
            json!({ "scopes": [] }),
            json!({ "name": "" }),
            json!({ "overlap": 5 }),
        ] {
            node.operator().post(&rotate, body).await.refused(422, "validation_failed");
        }
        let new = minted(&node.operator().post(&rotate, json!({})).await);
        let error = node.operator().post(&rotate, json!({})).await.refused(409, "conflict");
        assert_eq!(error["details"]["replacedBy"], json!(new.id));
        node.revoke(&new.id).await;
        let path = node.key_path(&new.id, "/rotate");
        node.operator().post(&path, json!({})).await.refused(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn end_overlap_revokes_the_old_key_before_its_time() {
    node_on_every_engine(async |node| {
        let old = node.minted(&["reports:read"]).await;
        let end = node.key_path(&old.id, "/end-overlap");
        node.operator().post(&end, json!({})).await.refused(409, "conflict");
        let rotate = node.key_path(&old.id, "/rotate");
        let new = minted(&node.operator().post(&rotate, json!({})).await);
        let ended = node.operator().post(&end, json!({})).await.is(200);
        assert_eq!(ended["key"]["state"], "revoked");
        assert_eq!(ended["key"]["revokeReason"], "rotated");
        assert_eq!(ended["fence"]["status"], "effective");
        node.bearer(&old.secret).get("/v1/reports").await.refused(401, "unauthorized");
        node.bearer(&new.secret).get("/v1/reports").await.is(200);
        node.operator().post(&end, json!({})).await.refused(409, "conflict");
        // the replacement is in no overlap of its own
        let end = node.key_path(&new.id, "/end-overlap");
        node.operator().post(&end, json!({})).await.refused(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn reissue_gives_a_never_used_key_a_new_secret_for_an_hour() {
    node_on_every_engine(async |node| {
        let first = node.minted(&["reports:read"]).await;
        let path = node.key_path(&first.id, "/reissue");
        let again = minted(&node.operator().post(&path, json!({})).await);
        assert_eq!(again.id, first.id);
        assert_ne!(again.secret, first.secret);
        assert_ne!(again.record["hint"], Value::Null);
        let gone = node.bearer(&first.secret).get("/v1/reports").await;
        gone.refused_at(401, "invalid_api_key", "lookup");
        node.bearer(&again.secret).get("/v1/reports").await.is(200);
        node.note_usage().await;
        node.operator().post(&path, json!({})).await.refused(409, "conflict");

        let late = node.minted(&["reports:read"]).await;
        node.clock.advance_ms(HOUR_MS + 1);
        let path = node.key_path(&late.id, "/reissue");
        node.operator().post(&path, json!({})).await.refused(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn reissue_right_after_the_first_use_is_refused() {
    node_on_every_engine(async |node| {
        // a use that is in memory and not yet in the store
        let key = node.minted(&["reports:read"]).await;
        node.bearer(&key.secret).get("/v1/reports").await.is(200);
        let path = node.key_path(&key.id, "/reissue");
        node.operator().post(&path, json!({})).await.refused(409, "conflict");
        node.bearer(&key.secret).get("/v1/reports").await.is(200);
    })
    .await;
}
