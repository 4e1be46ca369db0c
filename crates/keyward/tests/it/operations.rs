//! The operations beside keys: what they refuse, and what follows from them at once.

use keyward_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::harness::request::setup_link;
use crate::harness::{DAY_MS, KURAMO_HEALTH, LAGOS_PAY, node_on_every_engine};

#[tokio::test]
async fn what_is_unique_is_taken_once() {
    node_on_every_engine(async |node| {
        let operator = node.operator();
        let tenant = json!({ "slug": "acme-inc", "name": "Acme" });
        operator.post("/v1/tenants", tenant.clone()).await.is(201);
        let error = operator.post("/v1/tenants", tenant).await.refused(409, "conflict");
        assert_eq!(error["details"]["field"], "slug");
        for slug in ["", "Acme", "1a", "a b", "a_b"] {
            let body = json!({ "slug": slug, "name": "x" });
            operator.post("/v1/tenants", body).await.refused(422, "validation_failed");
        }
        let user = json!({ "email": "Eve@Example.com", "name": "Eve" });
        let eve = operator.post("/v1/users", user).await.is(201);
        assert_eq!(eve["email"], "eve@example.com");
        let again = json!({ "email": "EVE@example.com", "name": "Eve" });
        let error = operator.post("/v1/users", again).await.refused(409, "conflict");
        assert_eq!(error["details"]["field"], "email");
        let members = node.path(LAGOS_PAY, "/members");
        let member = json!({ "userId": eve["id"], "role": "analyst" });
        operator.post(&members, member.clone()).await.is(201);
        operator.post(&members, member).await.refused(409, "conflict");
        // the same person may be somebody else in another tenant
        let elsewhere = json!({ "email": "eve@example.com", "name": "Eve", "role": "owner" });
        let elsewhere = operator.post(&node.path(KURAMO_HEALTH, "/members"), elsewhere).await;
        assert_eq!(elsewhere.is(201)["userId"], eve["id"]);
    })
    .await;
}

#[tokio::test]
async fn who_left_may_come_back_without_the_old_keys() {
    node_on_every_engine(async |node| {
        let operator = node.operator();
        let member = node.member(LAGOS_PAY, "developer").await;
        let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["ownerId"] = json!(member);
        let key = node.mint(LAGOS_PAY, body).await;
        let path = node.path(LAGOS_PAY, &format!("/members/{member}/offboard"));
        operator.post(&path, json!({ "keys": "revoke" })).await.is(200);
        let back = json!({ "userId": member, "role": "owner" });
        operator.post(&node.path(LAGOS_PAY, "/members"), back).await.is(201);
        node.bearer(&key.secret).get("/v1/reports").await.refused(401, "unauthorized");
        let stranger = json!({ "userId": node.member(KURAMO_HEALTH, "owner").await,
            "role": "analyst" });
        // a tenant's own administrator is told of nobody outside it
        let own = node.admin_token(&["members:write"], Some((LAGOS_PAY, "owner"))).await;
        let got = own.post(&node.path(LAGOS_PAY, "/members"), stranger).await;
        got.refused(422, "validation_failed");
    })
    .await;
}

#[tokio::test]
async fn an_admin_token_works_like_a_key() {
    node_on_every_engine(async |node| {
        let operator = node.operator();
        let body = json!({ "name": "deploy", "scopes": ["keys:read"], "expiresInDays": 1 });
        let made = operator.post("/v1/admin-tokens", body).await.is(201);
        let secret = made["secret"].as_str().unwrap();
        assert!(secret.starts_with("asiri_adm_"));
        let token = node.admin(secret);
        let who = token.get("/v1/whoami").await.is(200);
        assert_eq!(who["scopes"], json!(["keys:read"]));
        assert_eq!(who["expiresAt"], json!(node.clock.now().plus_ms(DAY_MS)));
        assert!(!operator.get("/v1/admin-tokens").await.text.contains(secret));
        let id = made["adminToken"]["id"].as_str().unwrap();
        let revoke = format!("/v1/admin-tokens/{id}/revoke");
        let answer = operator.post(&revoke, json!({})).await.is(200);
        assert_eq!(answer["fence"]["status"], "effective");
        token.get("/v1/whoami").await.refused(401, "unauthorized");
        // nobody gives what they have not got
        let maker = node.admin_token(&["admin-tokens:write"], None).await;
        let body = json!({ "name": "more", "scopes": ["keys:write"] });
        let error = maker.post("/v1/admin-tokens", body).await.refused(403, "forbidden");
        assert_eq!(error["details"]["scope"], "keys:write");
        for wrong in [
            json!({ "name": "x", "scopes": [] }),
            json!({ "name": "x", "scopes": ["reports:read"] }),
            json!({ "name": "x", "scopes": ["*"] }),
            json!({ "name": "x", "scopes": ["keys:read"], "role": "owner" }),
            json!({ "name": "x", "scopes": ["keys:read"], "expiresInDays": 366 }),
        ] {
            operator.post("/v1/admin-tokens", wrong).await.refused(422, "validation_failed");
        }
    })
    .await;
}

#[tokio::test]
async fn a_setup_link_works_once_and_for_a_while() {
    node_on_every_engine(async |node| {
        let nobody = node.anonymous();
        let body = |token: &str| {
            json!({ "token": token, "email": "first@example.com", "name": "First",
                "password": "correct horse battery staple" })
        };
        nobody.post("/v1/setup", body("guess")).await.refused(410, "gone");
        let late = setup_link(node).await;
        node.clock.advance_ms(DAY_MS);
        nobody.post("/v1/setup", body(&late)).await.refused(410, "gone");
        let link = setup_link(node).await;
        let mut short = body(&link);
        short["password"] = json!("short");
        nobody.post("/v1/setup", short).await.refused(422, "validation_failed");
        let both = tokio::join!(
            nobody.post("/v1/setup", body(&link)),
            nobody.post("/v1/setup", body(&link))
        );
        let (first, second) =
            if both.0.status == 201 { (both.0, both.1) } else { (both.1, both.0) };
        let made = first.is(201);
        second.refused(410, "gone");
        nobody.post("/v1/setup", body(&link)).await.refused(410, "gone");
        let administrator = node.admin(made["secret"].as_str().unwrap());
        let who = administrator.get("/v1/whoami").await.is(200);
        assert_eq!(who["tenantId"], Value::Null);
        administrator.get("/v1/tenants").await.is(200);
    })
    .await;
}

#[tokio::test]
async fn the_catalogue_suggests_the_fewest_scopes() {
    node_on_every_engine(async |node| {
        let ask = async |calls: Value| {
            node.operator().post("/v1/catalog/suggest-scopes", json!({ "calls": calls })).await
        };
        let told = ask(json!(["GET /v1/reports", "POST /v1/reports/build"])).await.is(200);
        assert_eq!(told["scopes"], json!(["reports:read", "reports:write"]));
        let told = ask(json!(["GET /v1/webhooks/deliveries", "GET /v1/audit/events"])).await;
        assert_eq!(told.is(200)["scopes"], json!(["audit:read"]));
        for wrong in [json!([]), json!(["GET /v1/nowhere"]), json!(["/v1/reports"])] {
            ask(wrong).await.refused(422, "validation_failed");
        }
        let routes = node.operator().get("/v1/catalog/routes?scope=files:write").await.is(200);
        let routes = routes["data"].as_array().unwrap();
        let wants = json!([["files:write"]]);
        assert!(!routes.is_empty() && routes.iter().all(|it| it["requiredScopes"] == wants));
    })
    .await;
}
