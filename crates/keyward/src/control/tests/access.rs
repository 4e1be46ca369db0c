//! Admin tokens, and who is calling.

use keyward_api::OPERATIONS;
use serde_json::{Value, json};

use super::every;

#[tokio::test]
async fn a_token_is_shown_once_listed_and_revoked() {
    for control in every().await {
        let path = "/v1/admin-tokens";
        let body = json!({ "name": "pipeline", "scopes": ["keys:read"], "expiresInDays": 1 });
        let made = control.post_once("k1", path, body.clone()).await.ok();
        let secret = super::id(&made["secret"]);
        let replay = control.post_once("k1", path, body).await;
        assert!(!replay.text.contains(&secret));
        let replay = replay.ok();
        assert_eq!(
            (&replay["secret"], &replay["secretNotReplayable"]),
            (&Value::Null, &json!(true))
        );
        assert_eq!(replay["adminToken"], made["adminToken"]);
        let id = super::id(&made["adminToken"]["id"]);
        let listed = control.get(path).await;
        assert!(listed.text.contains(&id) && !listed.text.contains(&secret));

        let whoami = || control.call(&secret, "GET", "/v1/whoami", Value::Null);
        assert_eq!(whoami().await.ok()["scopes"], json!(["keys:read"]));
        let revoke = format!("{path}/{id}/revoke");
        let revoked = control.post(&revoke, Value::Null).await.ok();
        assert_eq!(revoked["adminToken"]["state"], "revoked");
        whoami().await.refused(401, "unauthorized");
        control.clock.advance_ms(1_000);
        let again = control.post(&revoke, Value::Null).await.ok();
        assert_eq!(again["adminToken"]["revokedAt"], revoked["adminToken"]["revokedAt"]);
        let other =
            control.post(path, json!({ "name": "x", "scopes": ["keys:read"], "expiresInDays": 1 }));
        let other = super::id(&other.await.ok()["secret"]);
        control.clock.advance_ms(86_400_000);
        let late = control.call(&other, "GET", "/v1/whoami", Value::Null).await;
        late.refused(401, "expired_api_key");
    }
}

#[tokio::test]
async fn a_token_has_known_scopes_and_none_its_maker_lacks() {
    for control in every().await {
        let path = "/v1/admin-tokens";
        let misspelt = json!({ "name": "x", "scopes": ["key:read"] });
        let text = control.post(path, misspelt).await.refused(422, "validation_failed");
        assert!(text.contains("did you mean keys:read?"), "{text}");
        let product = json!({ "name": "x", "scopes": ["reports:read"] });
        control.post(path, product).await.refused(422, "validation_failed");
        let narrow = json!({ "name": "x", "scopes": ["admin-tokens:write", "keys:read"] });
        let narrow = super::id(&control.post(path, narrow).await.ok()["secret"]);
        let wide = json!({ "name": "x", "scopes": ["keys:write"] });
        control.call(&narrow, "POST", path, wide).await.refused(403, "forbidden");
        let tenant = control.tenant("acme").await;
        let role =
            json!({ "name": "x", "scopes": ["keys:read"], "tenantId": tenant, "role": "boss" });
        control.post(path, role).await.refused(422, "validation_failed");
        let nobody = "ten_0000000000000000000007";
        let tenant =
            json!({ "name": "x", "scopes": ["keys:read"], "tenantId": nobody, "role": "owner" });
        assert!(
            control.post(path, tenant).await.refused(422, "validation_failed").contains("tenant")
        );
    }
}

#[tokio::test]
async fn a_tenants_token_is_bound_to_tenant_and_role() {
    for control in every().await {
        let (tenant, other) = (control.tenant("acme").await, control.tenant("other").await);
        let token = control.token(&tenant, "auditor", &["audit:read", "keys:write"]).await;
        let whoami = control.call(&token, "GET", "/v1/whoami", Value::Null).await.ok();
        // the role of an auditor makes no keys, whatever the token carries
        assert_eq!(whoami["scopes"], json!(["audit:read"]));
        assert_eq!(
            (&whoami["tenantId"], &whoami["tenantLabel"]),
            (&json!(tenant), &json!("Workspace"))
        );
        let trail = |tenant: &str| format!("/v1/tenants/{tenant}/audit-events");
        let get = |path: String| {
            let token = token.clone();
            let control = &control;
            async move { control.call(&token, "GET", &path, Value::Null).await }
        };
        get(trail(&tenant)).await.ok();
        get(trail(&other)).await.refused(404, "not_found");
        get("/v1/catalog/scopes".to_owned()).await.refused(403, "forbidden");
        get("/v1/tenants".to_owned()).await.refused(403, "rbac_denied");
        get(format!("/v1/tenants/{tenant}")).await.refused(403, "forbidden");
    }
}

#[tokio::test]
async fn the_document_is_served_to_everybody_and_all_else_to_nobody() {
    let control = super::Control::start(keyward_testkit::TestDatabase::sqlite()).await;
    let document = control.call("", "GET", "/v1/openapi.json", Value::Null).await.ok();
    assert_eq!(document, keyward_api::openapi::document());
    let nobody = "00000000000000000000007";
    for operation in OPERATIONS.iter().filter(|o| o.plane == keyward_api::operation::Plane::Control)
    {
        if operation.access == keyward_api::operation::Access::Public {
            continue;
        }
        let path = operation.path.replace("{tenantId}", &format!("ten_{}", &nobody[1..]));
        let answer = control.call("", operation.method.as_str(), &path, Value::Null).await;
        answer.refused(401, "missing_api_key");
    }
}
