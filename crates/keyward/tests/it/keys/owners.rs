//! Keys and the people behind them: suspension, roles, offboarding, and the trail of it all.

use serde_json::{Value, json};

use crate::harness::{KURAMO_HEALTH, LAGOS_PAY, TestNode, node_on_every_engine};

#[tokio::test]
async fn suspending_a_tenant_stops_its_keys_and_resuming_brings_them_back() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let revoked = node.minted(&["reports:read"]).await;
        node.revoke(&revoked.id).await;
        let caller = node.bearer(&key.secret);
        let suspend = node.path(LAGOS_PAY, "/suspend");
        let reason = json!({ "reason": "Payment is three months overdue" });
        let answer = node.operator().post(&suspend, reason).await.is(200);
        assert_eq!(answer["tenant"]["state"], "suspended");
        assert_eq!(answer["fence"]["status"], "effective");
        let error = caller.get("/v1/reports").await.refused_at(401, "unauthorized", "state");
        assert_eq!(error["details"]["reason"], "tenant_suspended");
        node.demo_key(KURAMO_HEALTH).get("/v1/reports").await.is(200);
        assert_eq!(node.verify(json!({ "key": key.secret })).await["code"], "unauthorized");
        let told = node.operator().post(&suspend, json!({ "reason": " " })).await;
        told.refused(422, "validation_failed");
        let resume = node.path(LAGOS_PAY, "/resume");
        let tenant = node.operator().post(&resume, json!({})).await.is(200);
        assert_eq!((&tenant["state"], &tenant["suspendReason"]), (&json!("active"), &Value::Null));
        caller.get("/v1/reports").await.is(200);
        node.bearer(&revoked.secret).get("/v1/reports").await.refused(401, "unauthorized");
    })
    .await;
}

#[tokio::test]
async fn offboarding_revokes_the_keys_of_who_leaves() {
    node_on_every_engine(async |node| {
        let (leaver, keys) = leaver(node, "developer").await;
        let member = node.path(LAGOS_PAY, &format!("/members/{leaver}"));
        let details = node.operator().get(&member).await.is(200);
        assert_eq!(details["ownedKeys"]["active"], 2, "how far it reaches is shown before");
        let path = format!("{member}/offboard");
        let answer = node.operator().post(&path, json!({ "keys": "revoke" })).await.is(200);
        assert_eq!((&answer["revokedKeys"], &answer["rehomedKeys"]), (&json!(2), &json!(0)));
        assert_eq!(answer["fence"]["status"], "effective");
        for (id, secret) in &keys {
            node.bearer(secret).get("/v1/reports").await.refused(401, "unauthorized");
            assert_eq!(node.record(id).await["revokeReason"], "offboarding");
        }
        node.operator().post(&path, json!({ "keys": "revoke" })).await.refused(404, "not_found");
        let body = json!({ "name": "late", "environment": "live", "scopes": ["reports:read"],
            "ownerId": leaver });
        let late = node.operator().post(&node.path(LAGOS_PAY, "/keys"), body).await;
        late.refused(422, "validation_failed");
    })
    .await;
}

#[tokio::test]
async fn offboarding_gives_the_keys_another_owner() {
    node_on_every_engine(async |node| {
        let (leaver, keys) = leaver(node, "developer").await;
        let path = node.path(LAGOS_PAY, &format!("/members/{leaver}/offboard"));
        let stranger = node.member(KURAMO_HEALTH, "owner").await;
        for wrong in [
            json!({ "keys": "rehome" }),
            json!({ "keys": "rehome", "rehomeTo": leaver }),
            json!({ "keys": "rehome", "rehomeTo": stranger }),
            json!({ "keys": "revoke", "rehomeTo": stranger }),
            json!({ "keys": "keep" }),
        ] {
            node.operator().post(&path, wrong).await.refused(422, "validation_failed");
        }
        // an auditor sees reports and nothing of evidence
        let heir = node.member(LAGOS_PAY, "auditor").await;
        let body = json!({ "keys": "rehome", "rehomeTo": heir });
        let answer = node.operator().post(&path, body).await.is(200);
        assert_eq!((&answer["revokedKeys"], &answer["rehomedKeys"]), (&json!(0), &json!(2)));
        let narrowed = answer["narrowedKeys"].as_array().unwrap();
        assert_eq!(narrowed.len(), 2);
        assert!(narrowed.iter().all(|key| key["stoppedScopes"] == json!(["evidence:read"])));
        for (id, secret) in &keys {
            assert_eq!(node.record(id).await["ownerId"], json!(heir));
            node.bearer(secret).get("/v1/reports").await.is(200);
            let evidence = node.bearer(secret).get("/v1/evidence/items").await;
            evidence.refused_at(403, "rbac_denied", "role");
        }
    })
    .await;
}

/// A member with two keys for reports and evidence.
async fn leaver(node: &TestNode, role: &str) -> (String, Vec<(String, String)>) {
    let member = node.member(LAGOS_PAY, role).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut body = node.key_body(LAGOS_PAY, &["reports:read", "evidence:read"]).await;
        body["ownerId"] = json!(member);
        let key = node.mint(LAGOS_PAY, body).await;
        node.bearer(&key.secret).get("/v1/reports").await.is(200);
        keys.push((key.id, key.secret));
    }
    (member, keys)
}

#[tokio::test]
async fn a_caller_gives_no_role_beyond_its_own() {
    node_on_every_engine(async |node| {
        let scopes = ["members:write", "members:read", "keys:write", "keys:read"];
        let admin = node.admin_token(&scopes, Some((LAGOS_PAY, "admin"))).await;
        let owner = node.member_with(LAGOS_PAY, "owner").await;
        let analyst = node.member(LAGOS_PAY, "analyst").await;
        let path = |user: &str| node.path(LAGOS_PAY, &format!("/members/{user}"));
        let promote = json!({ "role": "owner" });
        let got = admin.patch(&path(&analyst), promote).await;
        got.refused_at(403, "rbac_denied", "role");
        let demote = json!({ "role": "analyst" });
        let got = admin.patch(&path(&owner), demote.clone()).await;
        got.refused_at(403, "rbac_denied", "role");
        admin.patch(&path(&analyst), json!({ "role": "developer" })).await.is(200);
        let unknown = admin.patch(&path(&analyst), json!({ "role": "chief" })).await;
        unknown.refused(422, "validation_failed");

        // a key is no way around the role of who makes it
        let developer = node.admin_token(&["keys:write"], Some((LAGOS_PAY, "developer"))).await;
        let body = node.key_body(LAGOS_PAY, &["audit:read"]).await;
        let got = developer.post(&node.path(LAGOS_PAY, "/keys"), body).await;
        got.refused_at(403, "rbac_denied", "role");
    })
    .await;
}

#[tokio::test]
async fn a_tampered_audit_trail_is_found_out() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        node.revoke(&key.id).await;
        let verify = node.path(LAGOS_PAY, "/audit-events/verify");
        let whole = node.operator().get(&verify).await.is(200);
        assert_eq!((&whole["valid"], whole.get("firstBroken")), (&json!(true), None));
        let events = node.audit(LAGOS_PAY, "").await;
        assert_eq!(whole["events"], json!(events.len()));
        assert_eq!(whole["headHash"], events[0]["hash"]);
        let target = &events[1];
        let id = target["id"].as_str().unwrap();
        for (column, value) in [
            ("actor_name", "'somebody else'"),
            ("action", "'api_key.updated'"),
            ("details", "'{}'"),
            ("at", "at + 1"),
            ("target_id", "'key_other'"),
            ("outcome", "'denied'"),
        ] {
            let all = "actor_name, action, details, CAST(at AS TEXT), target_id, outcome";
            let sql = format!("SELECT {all} FROM audit_events WHERE audit_event_id = '{id}'");
            let before = node.database.behind(&sql).await.remove(0);
            let set = format!("{column} = {value}");
            let tamper = format!("UPDATE audit_events SET {set} WHERE audit_event_id = '{id}'");
            node.database.behind(&tamper).await;
            let told = node.operator().get(&verify).await.is(200);
            assert_eq!(
                (&told["valid"], &told["firstBroken"]),
                (&json!(false), &json!(id)),
                "{set}"
            );
            let cell = |at: usize| before[at].as_deref().unwrap().replace('\'', "''");
            let restore =
                format!(
                "UPDATE audit_events SET actor_name = '{}', action = '{}', details = '{}', at = {},
                    target_id = '{}', outcome = '{}' WHERE audit_event_id = '{id}'",
                cell(0), cell(1), cell(2), cell(3), cell(4), cell(5),
            );
            node.database.behind(&restore).await;
            assert_eq!(node.operator().get(&verify).await.is(200), whole);
        }
        // an event that was taken out, from the middle or from the end
        let last = events[0]["id"].as_str().unwrap();
        for gone in [last, id] {
            let delete = format!("DELETE FROM audit_events WHERE audit_event_id = '{gone}'");
            node.database.behind(&delete).await;
            assert_eq!(node.operator().get(&verify).await.is(200)["valid"], false);
        }
        let other = node.path(KURAMO_HEALTH, "/audit-events/verify");
        assert_eq!(node.operator().get(&other).await.is(200)["valid"], true);
    })
    .await;
}

#[tokio::test]
async fn a_caller_gets_nothing_through_a_member_with_a_stronger_role() {
    node_on_every_engine(async |node| {
        let theirs = node.minted(&["reports:read"]).await;
        let scopes = ["keys:write", "keys:read", "members:write"];
        let developer = node.admin_token(&scopes, Some((LAGOS_PAY, "developer"))).await;
        let body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        let keys = node.path(LAGOS_PAY, "/keys");
        developer.post(&keys, body).await.refused_at(403, "rbac_denied", "role");
        for (rest, body) in [("/reissue", json!({})), ("/rotate", json!({ "overlapSeconds": 0 }))] {
            let got = developer.post(&node.key_path(&theirs.id, rest), body).await;
            got.refused_at(403, "rbac_denied", "role");
        }
        let wider = json!({ "ipAllowlist": [] });
        let got = developer.patch(&node.key_path(&theirs.id, ""), wider).await;
        got.refused_at(403, "rbac_denied", "role");
        node.bearer(&theirs.secret).get("/v1/reports").await.is(200);

        // what one may do for oneself, one may do for a peer
        let mut own = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        own["ownerId"] = json!(node.member(LAGOS_PAY, "developer").await);
        developer.post(&keys, own).await.is(201);
        // and stopping a key is open to whoever manages keys
        let revoke = node.key_path(&theirs.id, "/revoke");
        developer.post(&revoke, json!({ "reason": "leaked" })).await.is(200);
    })
    .await;
}

#[tokio::test]
async fn a_reissue_that_is_repeated_leaves_the_first_secret_alone() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read"]).await;
        let reissue = node.key_path(&key.id, "/reissue");
        let caller = node.operator().with("idempotency-key", "again-1");
        let first = caller.post(&reissue, json!({})).await.is(200);
        let secret = first["secret"].as_str().unwrap();
        let second = caller.post(&reissue, json!({})).await.is(200);
        assert_eq!(
            (&second["secret"], &second["secretNotReplayable"]),
            (&Value::Null, &json!(true))
        );
        node.bearer(secret).get("/v1/reports").await.is(200);
        node.bearer(&key.secret).get("/v1/reports").await.refused(401, "invalid_api_key");
    })
    .await;
}
