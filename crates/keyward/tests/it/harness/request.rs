//! One good request for every operation of Keyward's own API.

use keyward_api::Operation;
use keyward_api::operation::Plane;
use keyward_core::clock::Clock as _;
use serde_json::{Value, json};

use super::actor::{Actor, Got};
use super::node::{DAY_MS, TestNode};
use super::site::{LAGOS_PAY, minted};

/// What to send, apart from the method.
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
}

impl Request {
    /// Sends it as somebody, to the listener that serves the operation.
    pub(crate) async fn send(&self, node: &TestNode, who: &Actor, operation: &Operation) -> Got {
        let base = match operation.plane {
            Plane::Control => &node.control,
            Plane::Internal => &node.internal,
        };
        let method = operation.method.as_str().parse().unwrap();
        who.at(base).send(method, &self.path, self.body.clone()).await
    }
}

fn read(path: impl Into<String>) -> Request {
    Request { path: path.into(), body: None }
}

fn with_body(path: impl Into<String>, body: Value) -> Request {
    Request { path: path.into(), body: Some(body) }
}

/// A request that the operation answers with success, on records made for it alone. `None` for an
/// operation that nobody has written a request for.
pub(crate) async fn request(node: &TestNode, operation: &Operation) -> Option<Request> {
    let id = operation.id;
    if let Some(found) = of_tenants(node, id).await {
        return Some(found);
    }
    if let Some(found) = of_people(node, id).await {
        return Some(found);
    }
    if let Some(found) = of_keys(node, id).await {
        return Some(found);
    }
    of_the_rest(node, id).await
}

async fn of_tenants(node: &TestNode, id: &str) -> Option<Request> {
    let new = || json!({ "slug": node.fresh("tenant"), "name": "A tenant" });
    let found = match id {
        "createTenant" => with_body("/v1/tenants", new()),
        "listTenants" => read("/v1/tenants"),
        "getTenant" => read(node.path(LAGOS_PAY, "")),
        "suspendTenant" | "resumeTenant" => {
            let tenant = node.operator().post("/v1/tenants", new()).await.is(201);
            let path = |rest| format!("/v1/tenants/{}/{rest}", tenant["id"].as_str().unwrap());
            let reason = json!({ "reason": "unpaid" });
            if id == "suspendTenant" {
                return Some(with_body(path("suspend"), reason));
            }
            node.operator().post(&path("suspend"), reason).await.is(200);
            read(path("resume"))
        }
        _ => return None,
    };
    Some(found)
}

async fn of_people(node: &TestNode, id: &str) -> Option<Request> {
    let person = || json!({ "email": format!("{}@example.com", node.fresh("p")), "name": "Ada" });
    let members = node.path(LAGOS_PAY, "/members");
    let found = match id {
        "createUser" => with_body("/v1/users", person()),
        "listUsers" => read("/v1/users"),
        "getUser" => {
            let user = node.operator().post("/v1/users", person()).await.is(201);
            read(format!("/v1/users/{}", user["id"].as_str().unwrap()))
        }
        "addMember" => {
            let mut body = person();
            body["role"] = json!("analyst");
            with_body(members, body)
        }
        "listMembers" => read(members),
        "getMember" | "changeMemberRole" | "offboardMember" => {
            let path = format!("{members}/{}", node.member(LAGOS_PAY, "analyst").await);
            match id {
                "getMember" => read(path),
                "changeMemberRole" => with_body(path, json!({ "role": "developer" })),
                _ => with_body(format!("{path}/offboard"), json!({ "keys": "revoke" })),
            }
        }
        "createServiceAccount" => {
            let body = json!({ "name": node.fresh("robot"), "role": "developer" });
            with_body(node.path(LAGOS_PAY, "/service-accounts"), body)
        }
        "listServiceAccounts" => read(node.path(LAGOS_PAY, "/service-accounts")),
        _ => return None,
    };
    Some(found)
}

async fn of_keys(node: &TestNode, id: &str) -> Option<Request> {
    let call = json!({ "method": "GET", "path": "/v1/reports" });
    match id {
        "createKey" => {
            let body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
            return Some(with_body(node.path(LAGOS_PAY, "/keys"), body));
        }
        "listKeys" => return Some(read(node.path(LAGOS_PAY, "/keys"))),
        "getKey" | "updateKey" | "deleteKey" | "narrowKeyScopes" | "rotateKey"
        | "endKeyOverlap" | "revokeKey" | "reissueKey" | "explainKey" | "identifyKey"
        | "confirmKey" | "confirmKeys" | "verifyKey" => {}
        _ => return None,
    }
    let key = node.minted(&["reports:read", "audit:read"]).await;
    let path = |rest| node.key_path(&key.id, rest);
    let found = match id {
        "updateKey" => with_body(path(""), json!({ "name": "renamed" })),
        "narrowKeyScopes" => with_body(path("/narrow-scopes"), json!({ "remove": ["audit:read"] })),
        "rotateKey" => with_body(path("/rotate"), json!({})),
        "endKeyOverlap" => {
            minted(&node.operator().post(&path("/rotate"), json!({})).await);
            read(path("/end-overlap"))
        }
        "revokeKey" => with_body(path("/revoke"), json!({ "reason": "unused" })),
        "confirmKey" | "confirmKeys" => {
            let sql = format!("UPDATE api_keys SET suspect_since = 1 WHERE key_id = '{}'", key.id);
            node.database.behind(&sql).await;
            match id {
                "confirmKey" => read(path("/confirm")),
                _ => read(node.path(LAGOS_PAY, "/keys/confirm")),
            }
        }
        "reissueKey" => read(path("/reissue")),
        "explainKey" => with_body(path("/explain"), call),
        "identifyKey" => with_body("/v1/keys/identify", json!({ "secret": key.secret })),
        "verifyKey" => with_body("/v1/verify", json!({ "key": key.secret })),
        _ => read(path("")),
    };
    Some(found)
}

async fn of_the_rest(node: &TestNode, id: &str) -> Option<Request> {
    let events = node.path(LAGOS_PAY, "/audit-events");
    // no more than the maker of a token may carry
    let token = || json!({ "name": node.fresh("token"), "scopes": ["admin-tokens:write"] });
    let found = match id {
        "listScopes" => read("/v1/catalog/scopes"),
        "listRoutes" => read("/v1/catalog/routes"),
        "listRoles" => read("/v1/catalog/roles"),
        "suggestScopes" => {
            with_body("/v1/catalog/suggest-scopes", json!({ "calls": ["GET /v1/reports"] }))
        }
        "listAuditEvents" => read(events),
        "verifyAuditChain" => read(format!("{events}/verify")),
        "getAuditEvent" => {
            let page = node.operator().get(&format!("{events}?limit=1")).await.is(200);
            read(format!("{events}/{}", page["data"][0]["id"].as_str().unwrap()))
        }
        "createAdminToken" => with_body("/v1/admin-tokens", token()),
        "listAdminTokens" => read("/v1/admin-tokens"),
        "revokeAdminToken" => {
            let made = node.operator().post("/v1/admin-tokens", token()).await.is(201);
            let id = made["adminToken"]["id"].as_str().unwrap();
            read(format!("/v1/admin-tokens/{id}/revoke"))
        }
        "listNodes" => read("/v1/nodes"),
        "getChange" => read("/v1/changes/1"),
        "getTenantChange" => {
            let key = node.minted(&["reports:read"]).await;
            let epoch = node.revoke(&key.id).await["fence"]["epoch"].clone();
            read(node.path(LAGOS_PAY, &format!("/changes/{epoch}")))
        }
        "exportRevocations" => read("/v1/revocations"),
        "whoami" => read("/v1/whoami"),
        "getOpenapi" => read("/v1/openapi.json"),
        "completeSetup" => {
            let token = setup_link(node).await;
            let email = format!("{}@example.com", node.fresh("first"));
            let password = "correct horse battery staple";
            let body = json!({
                "token": token, "email": email, "name": "Ada", "password": password,
            });
            with_body("/v1/setup", body)
        }
        _ => return None,
    };
    Some(found)
}

/// Plants a link to set up the first administrator, in a deployment that has none any more.
pub(crate) async fn setup_link(node: &TestNode) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    let token = node.fresh("link");
    let hash = digest(&SHA256, token.as_bytes());
    let hash: String = hash.as_ref().iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
    let hash = match node.database.superuser_url() {
        Some(_) => format!("decode('{hash}', 'hex')"),
        None => format!("X'{hash}'"),
    };
    let now = node.clock.now().as_millis();
    let until = now + DAY_MS;
    let sql = format!(
        "UPDATE users SET administrator = 0;
        DELETE FROM setup_links;
        INSERT INTO setup_links (setup_link_id, hash, created_at, expires_at)
            VALUES ('stp_0000000000000000000001', {hash}, {now}, {until})"
    );
    node.database.behind(&sql).await;
    token
}
