//! Members, service accounts, and what becomes of keys.

use keyward_core::id::{KeyId, TenantId};
use serde_json::{Value, json};

use super::{author, every, id};

#[tokio::test]
async fn a_person_joins_by_address_and_changes_role() {
    for control in every().await {
        let tenant = control.tenant("acme").await;
        let path = format!("/v1/tenants/{tenant}/members");
        let wrong = json!({ "email": "a@b.example", "name": "A", "role": "boss" });
        let text = control.post(&path, wrong).await.refused(422, "validation_failed");
        assert!(text.contains("auditor") && text.contains("owner"), "{text}");
        let ada = control.member(&tenant, "Ada@Example.com", "owner").await;
        let again = json!({ "email": "ada@example.com", "name": "Ada", "role": "auditor" });
        control.post(&path, again).await.refused(409, "conflict");
        // the same person in another tenant is the same user
        let other = control.tenant("other").await;
        assert_eq!(control.member(&other, "ada@example.com", "auditor").await, ada);

        control.key(&tenant, &ada, &["reports:read"]).await;
        let details = control.get(&format!("{path}/{ada}")).await.ok();
        assert_eq!(details["ownedKeys"]["active"], 1);
        let member = format!("{path}/{ada}");
        let changed = control
            .call(&control.operator, "PATCH", &member, json!({ "role": "auditor" }))
            .await
            .ok();
        assert_eq!(changed["member"]["role"], "auditor");
        assert_eq!(changed["fence"]["status"], "effective");
        let expected = ["member.role_changed", "api_key.created", "member.added", "tenant.created"];
        assert_eq!(control.actions(&tenant).await, expected);
        let nobody = format!("{path}/usr_0000000000000000000007");
        control.get(&nobody).await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn a_tenant_gives_no_role_beyond_the_callers_and_sees_no_strangers() {
    for control in every().await {
        let tenant = control.tenant("acme").await;
        let owner = control.member(&tenant, "ada@example.com", "owner").await;
        let stranger = control
            .post("/v1/users", json!({ "email": "bo@example.com", "name": "Bo" }))
            .await
            .ok();
        let own = control.token(&tenant, "admin", &["members:write", "members:read"]).await;
        let path = format!("/v1/tenants/{tenant}/members");
        let add = |body: Value| control.call(&own, "POST", &path, body);
        let promoted = json!({ "email": "c@example.com", "name": "C", "role": "owner" });
        add(promoted).await.refused(403, "rbac_denied");
        let member = format!("{path}/{owner}");
        let demoted = control.call(&own, "PATCH", &member, json!({ "role": "auditor" })).await;
        demoted.refused(403, "rbac_denied");
        let known = json!({ "userId": stranger["id"], "role": "auditor" });
        add(known.clone()).await.refused(422, "validation_failed");
        assert_eq!(control.post(&path, known).await.status, 201);
        add(json!({ "email": "c@example.com", "name": "C", "role": "auditor" })).await.ok();
    }
}

#[tokio::test]
async fn a_service_account_stays_in_its_tenant() {
    for control in every().await {
        let (tenant, other) = (control.tenant("acme").await, control.tenant("other").await);
        let path = format!("/v1/tenants/{tenant}/service-accounts");
        let body = json!({ "name": "billing worker", "role": "developer" });
        let first = control.post_once("k1", &path, body.clone()).await;
        let account = first.ok();
        assert_eq!(control.post_once("k1", &path, body).await.ok(), account);
        assert_eq!(control.get(&path).await.ok()["data"], json!([account]));
        let elsewhere = format!("/v1/tenants/{other}/members");
        let moved = json!({ "userId": account["id"], "role": "developer" });
        control.post(&elsewhere, moved).await.refused(422, "validation_failed");
        control.key(&tenant, &id(&account["id"]), &["reports:read"]).await;
    }
}

#[tokio::test]
async fn who_leaves_takes_their_keys_along() {
    for control in every().await {
        let tenant = control.tenant("acme").await;
        let ada = control.member(&tenant, "ada@example.com", "owner").await;
        let keys = [
            control.key(&tenant, &ada, &["reports:read"]).await,
            control.key(&tenant, &ada, &["controls:read"]).await,
        ];
        let path = format!("/v1/tenants/{tenant}/members/{ada}/offboard");
        let left = control.post(&path, json!({ "keys": "revoke" })).await.ok();
        assert_eq!((&left["revokedKeys"], &left["rehomedKeys"]), (&json!(2), &json!(0)));
        assert_ne!(left["member"]["offboardedAt"], Value::Null);
        assert_eq!(left["fence"]["status"], "effective");
        for key in keys {
            let key = control.get(&format!("/v1/tenants/{tenant}/keys/{key}")).await.ok();
            assert_eq!(
                (&key["state"], &key["revokeReason"]),
                (&json!("revoked"), &json!("offboarding"))
            );
        }
        control.post(&path, json!({ "keys": "revoke" })).await.refused(404, "not_found");
        // the list still shows them, and they may come back
        let members = control.get(&format!("/v1/tenants/{tenant}/members")).await.ok();
        assert_ne!(members["data"][0]["offboardedAt"], Value::Null);
        assert_eq!(control.member(&tenant, "ada@example.com", "auditor").await, ada);
    }
}

#[tokio::test]
async fn rehomed_keys_get_the_new_owners_ceiling() {
    for control in every().await {
        let tenant = control.tenant("acme").await;
        let ada = control.member(&tenant, "ada@example.com", "owner").await;
        let bo = control.member(&tenant, "bo@example.com", "auditor").await;
        let key = control.key(&tenant, &ada, &["reports:read", "controls:read"]).await;
        let path = format!("/v1/tenants/{tenant}/members/{ada}/offboard");
        let to = |user: &str| json!({ "keys": "rehome", "rehomeTo": user });
        control.post(&path, to(&ada)).await.refused(422, "validation_failed");
        let left = control.post(&path, to(&bo)).await.ok();
        assert_eq!((&left["revokedKeys"], &left["rehomedKeys"]), (&json!(0), &json!(1)));
        let narrowed = json!([{ "keyId": key, "stoppedScopes": ["controls:read"] }]);
        assert_eq!(left["narrowedKeys"], narrowed);
        let key = control.get(&format!("/v1/tenants/{tenant}/keys/{key}")).await.ok();
        assert_eq!((&key["ownerId"], &key["state"]), (&json!(bo), &json!("active")));
        assert_eq!(control.actions(&tenant).await[0], "member.offboarded");
    }
}

#[tokio::test]
async fn the_keys_of_one_offboarding_are_bounded() {
    let control = super::Control::start(keyward_testkit::TestDatabase::sqlite()).await;
    let tenant = control.tenant("acme").await;
    let ada = control.member(&tenant, "ada@example.com", "owner").await;
    let key: KeyId = control.key(&tenant, &ada, &["reports:read"]).await.parse().unwrap();
    let typed: TenantId = tenant.parse().unwrap();
    let mut tx = control.store.write(typed, author()).await.unwrap();
    let first = tx.find_key(key).await.unwrap().unwrap();
    for _ in 0..1_000 {
        let kind = keyward_core::key::SecretKind::Api(first.environment);
        let minted = control.keyring.mint(kind, &*control.clock);
        let copy =
            keyward_core::key::ApiKey { id: KeyId::from_bits(minted.id_bits), ..first.clone() };
        tx.insert_key(&copy, &minted.hash, minted.pepper_version).await.unwrap();
    }
    let entry = keyward_core::audit::AuditEntry {
        action: "api_key.created",
        target_kind: "api_key",
        target_id: "many".to_owned(),
        outcome: keyward_core::audit::AuditOutcome::Succeeded,
        details: json!({}),
    };
    tx.finish(keyward_store::Change::new((), entry)).await.unwrap();
    let path = format!("/v1/tenants/{tenant}/members/{ada}");
    let body = json!({ "keys": "revoke" });
    let refused = control.post(&format!("{path}/offboard"), body.clone()).await;
    assert!(refused.refused(409, "conflict").contains("1000"));
    // nothing of a refused write stays
    let member = control.get(&path).await.ok();
    assert_eq!(member["member"]["offboardedAt"], Value::Null);
    assert_eq!(member["ownedKeys"]["active"], 1_001);
    control
        .post(&format!("/v1/tenants/{tenant}/keys/{key}/revoke"), json!({ "reason": "unused" }))
        .await
        .ok();
    let left = control.post(&format!("{path}/offboard"), body).await.ok();
    assert_eq!(left["revokedKeys"], 1_000);
}
