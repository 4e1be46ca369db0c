//! Tenants, users, the audit trail and the catalogue.

use serde_json::{Value, json};

use super::every;

#[tokio::test]
async fn a_tenant_is_made_once_suspended_and_resumed() {
    for control in every().await {
        let body = json!({ "slug": "acme", "name": "Acme" });
        let first = control.post_once("k1", "/v1/tenants", body.clone()).await;
        assert_eq!(first.status, 201);
        let again = control.post_once("k1", "/v1/tenants", body.clone()).await;
        assert_eq!(again.ok(), first.ok());
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert!(control.post("/v1/tenants", body).await.refused(409, "conflict").contains("acme"));

        let id = super::id(&first.ok()["id"]);
        let path = format!("/v1/tenants/{id}");
        let suspend = format!("{path}/suspend");
        let suspended = control.post(&suspend, json!({ "reason": "Unpaid" })).await.ok();
        assert_eq!(suspended["tenant"]["state"], "suspended");
        assert_eq!(suspended["fence"]["status"], "effective");
        control.clock.advance_ms(1_000);
        let again = control.post(&suspend, json!({ "reason": "Still" })).await;
        assert_eq!(again.ok()["tenant"]["suspendedAt"], suspended["tenant"]["suspendedAt"]);
        let resumed = control.post(&format!("{path}/resume"), Value::Null).await.ok();
        assert_eq!(resumed["state"], "active");
        assert_eq!(resumed, control.get(&path).await.ok());
        let expected = ["tenant.resumed", "tenant.suspended", "tenant.suspended", "tenant.created"];
        assert_eq!(control.actions(&id).await, expected);
    }
}

#[tokio::test]
async fn lists_are_cut_into_pages_newest_first() {
    for control in every().await {
        for slug in ["first", "second", "third"] {
            control.tenant(slug).await;
            control.clock.advance_ms(1);
        }
        let slugs = |page: &Value| -> Vec<String> {
            let tenants = page["data"].as_array().unwrap();
            tenants.iter().map(|tenant| super::id(&tenant["slug"])).collect()
        };
        let page = control.get("/v1/tenants?limit=2").await.ok();
        assert_eq!(slugs(&page), ["third", "second"]);
        let cursor = super::id(&page["nextCursor"]);
        let last = control.get(&format!("/v1/tenants?limit=2&cursor={cursor}")).await.ok();
        assert_eq!(slugs(&last), ["first"]);
        assert_eq!(last["nextCursor"], Value::Null);
        let wrong = control.get("/v1/tenants?cursor=nonsense").await;
        wrong.refused(422, "validation_failed");
    }
}

#[tokio::test]
async fn an_address_belongs_to_one_user_whatever_its_case() {
    for control in every().await {
        let body = json!({ "email": "Ada@Example.com", "name": "Ada" });
        let made = control.post("/v1/users", body).await.ok();
        assert_eq!(made["email"], "ada@example.com");
        let again = json!({ "email": "ada@example.COM", "name": "Ada" });
        control.post("/v1/users", again).await.refused(409, "conflict");
        let id = super::id(&made["id"]);
        assert_eq!(control.get(&format!("/v1/users/{id}")).await.ok(), made);
        assert_eq!(control.get("/v1/users").await.ok()["data"], json!([made]));
        control.get("/v1/users/usr_0000000000000000000007").await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn the_audit_trail_is_filtered_and_shows_a_change_behind_its_back() {
    for control in every().await {
        let tenant = control.tenant("acme").await;
        let owner = control.member(&tenant, "ada@example.com", "owner").await;
        let key = control.key(&tenant, &owner, &["reports:read"]).await;
        let path = format!("/v1/tenants/{tenant}/audit-events");
        let of_key = control.get(&format!("{path}?keyId={key}")).await.ok();
        assert_eq!(of_key["data"].as_array().unwrap().len(), 1);
        let event = of_key["data"][0].clone();
        assert_eq!((&event["action"], &event["sequence"]), (&json!("api_key.created"), &json!(3)));
        let id = super::id(&event["id"]);
        assert_eq!(control.get(&format!("{path}/{id}")).await.ok(), event);
        let page = control.get(&format!("{path}?limit=2")).await.ok();
        assert_eq!(page["nextCursor"], "2");
        let wrong = control.get(&format!("{path}?action=api_key.revokd")).await;
        let text = wrong.refused(422, "validation_failed");
        assert!(text.contains("did you mean api_key.revoked?"), "{text}");

        let whole = control.get(&format!("{path}/verify")).await.ok();
        assert_eq!((&whole["valid"], &whole["events"]), (&json!(true), &json!(3)));
        assert_eq!(whole["headHash"], event["hash"]);
        let forged = "UPDATE audit_events SET actor_name = 'somebody else' WHERE sequence = 2";
        control.database.behind(forged).await;
        let broken = control.get(&format!("{path}/verify")).await.ok();
        assert_eq!((&broken["valid"], &broken["events"]), (&json!(false), &json!(1)));
        let second = control.get(&format!("{path}?action=member.added")).await.ok();
        assert_eq!(broken["firstBroken"], second["data"][0]["id"]);
    }
}

#[tokio::test]
async fn the_catalogue_tells_what_a_call_needs() {
    let control = super::Control::start(keyward_testkit::TestDatabase::sqlite()).await;
    let scopes = control.get("/v1/catalog/scopes").await.ok();
    let names: Vec<&str> =
        scopes["data"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"reports:read"), "{names:?}");
    assert!(!scopes["demoScopes"].as_array().unwrap().is_empty());
    let all = control.get("/v1/catalog/routes").await.ok();
    let some = control.get("/v1/catalog/routes?scope=reports:read").await.ok();
    let (all, some) = (all["data"].as_array().unwrap(), some["data"].as_array().unwrap());
    assert!(!some.is_empty() && some.len() < all.len());
    let wrong = control.get("/v1/catalog/routes?scope=report:read").await;
    assert!(wrong.refused(422, "validation_failed").contains("did you mean reports:read?"));
    let roles = control.get("/v1/catalog/roles").await.ok();
    assert!(roles["data"].as_array().unwrap().iter().any(|role| role["name"] == "auditor"));

    let call =
        |route: &Value| format!("{} {}", super::id(&route["method"]), super::id(&route["path"]));
    let calls: Vec<String> = some.iter().map(call).collect();
    let path = "/v1/catalog/suggest-scopes";
    let suggested = control.post(path, json!({ "calls": calls })).await.ok();
    assert_eq!(suggested["scopes"], json!(["reports:read"]));
    assert!(suggested["roles"].as_array().unwrap().contains(&json!("analyst")));
    let unknown = control.post(path, json!({ "calls": ["GET /v1/nowhere"] })).await;
    assert!(unknown.refused(422, "validation_failed").contains("GET /v1/nowhere"));
    control.post(path, json!({ "calls": ["/v1/x"] })).await.refused(422, "validation_failed");
}
