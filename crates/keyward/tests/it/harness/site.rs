//! A started product as its callers see it: addresses, and actors to call them.

use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::Client;
use reqwest::redirect::Policy;
use serde_json::{Value, json};

use super::actor::{Actor, Got};

/// The tenant that most tests work in.
pub(crate) const LAGOS_PAY: &str = "lagos-pay";
/// A tenant that has nothing to do with it.
pub(crate) const KURAMO_HEALTH: &str = "kuramo-health";

/// The eleven scopes of the product.
pub(crate) const SCOPES: [&str; 11] = [
    "audit:read",
    "controls:read",
    "controls:write",
    "evidence:read",
    "evidence:write",
    "files:read",
    "files:write",
    "reports:read",
    "reports:write",
    "webhooks:read",
    "webhooks:write",
];

/// A product that runs, in this process or in another.
pub(crate) struct Site {
    pub(crate) gateways: Vec<String>,
    pub(crate) control: String,
    pub(crate) internal: String,
    pub(crate) sandbox: String,
    tenants: Value,
    admin_token: String,
    client: Client,
    next: AtomicU32,
}

/// A key that was just made.
pub(crate) struct Minted {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) record: Value,
}

impl Site {
    /// From what `keyward dev --json` prints.
    pub(crate) fn new(ready: &Value) -> Self {
        let text = |name: &str| ready[name].as_str().unwrap().to_owned();
        let gateways = ready["gateways"].as_array().unwrap().iter();
        let client = Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
        Self {
            gateways: gateways.map(|url| url.as_str().unwrap().to_owned()).collect(),
            control: text("control"),
            internal: text("internal"),
            sandbox: text("sandbox"),
            tenants: ready["tenants"].clone(),
            admin_token: text("adminToken"),
            client,
            next: AtomicU32::new(1),
        }
    }

    /// The operator, with every scope of Keyward's own API.
    pub(crate) fn operator(&self) -> Actor {
        self.admin(&self.admin_token)
    }

    /// The bearer of an admin token.
    pub(crate) fn admin(&self, token: &str) -> Actor {
        Actor::new(&self.client, &self.control, Some(token))
    }

    /// Nobody in particular, at the control plane.
    pub(crate) fn anonymous(&self) -> Actor {
        Actor::new(&self.client, &self.control, None)
    }

    /// The bearer of an API key, at the first gateway.
    pub(crate) fn bearer(&self, secret: &str) -> Actor {
        Actor::new(&self.client, &self.gateways[0], Some(secret))
    }

    fn seeded(&self, slug: &str) -> &Value {
        let mut tenants = self.tenants.as_array().unwrap().iter();
        tenants.find(|tenant| tenant["slug"] == slug).expect("a demo tenant")
    }

    /// The id of a demo tenant.
    pub(crate) fn tenant(&self, slug: &str) -> String {
        self.seeded(slug)["id"].as_str().unwrap().to_owned()
    }

    /// The bearer of a demo tenant's live key, which carries every scope.
    pub(crate) fn demo_key(&self, slug: &str) -> Actor {
        self.bearer(self.seeded(slug)["keys"]["live"].as_str().unwrap())
    }

    /// A path of Keyward's own API below a demo tenant.
    pub(crate) fn path(&self, slug: &str, rest: &str) -> String {
        format!("/v1/tenants/{}{rest}", self.tenant(slug))
    }

    /// A word that was not used before.
    pub(crate) fn fresh(&self, word: &str) -> String {
        format!("{word}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A new member of a tenant.
    pub(crate) async fn member(&self, slug: &str, role: &str) -> String {
        let email = format!("{}@{slug}.example", self.fresh("member"));
        let body = json!({ "email": email, "name": "Somebody", "role": role });
        let member = self.operator().post(&self.path(slug, "/members"), body).await.is(201);
        member["userId"].as_str().unwrap().to_owned()
    }

    /// The first member of a tenant with a role.
    pub(crate) async fn member_with(&self, slug: &str, role: &str) -> String {
        let members = self.operator().all(&self.path(slug, "/members")).await;
        let found = members.iter().find(|member| member["role"] == role).expect("such a member");
        found["userId"].as_str().unwrap().to_owned()
    }

    /// What a request for a live key of the tenant's owner looks like.
    pub(crate) async fn key_body(&self, slug: &str, scopes: &[&str]) -> Value {
        let owner = self.member_with(slug, "owner").await;
        let name = self.fresh("worker");
        json!({ "name": name, "environment": "live", "scopes": scopes, "ownerId": owner })
    }

    /// A new key from a whole request.
    pub(crate) async fn mint(&self, slug: &str, body: Value) -> Minted {
        minted(&self.operator().post(&self.path(slug, "/keys"), body).await)
    }

    /// A new live key of the owner of Lagos Pay.
    pub(crate) async fn minted(&self, scopes: &[&str]) -> Minted {
        self.mint(LAGOS_PAY, self.key_body(LAGOS_PAY, scopes).await).await
    }

    /// The bearer of a new live key of the owner of Lagos Pay.
    pub(crate) async fn key(&self, scopes: &[&str]) -> Actor {
        self.bearer(&self.minted(scopes).await.secret)
    }

    /// The path of a key of Lagos Pay.
    pub(crate) fn key_path(&self, id: &str, rest: &str) -> String {
        self.path(LAGOS_PAY, &format!("/keys/{id}{rest}"))
    }

    /// The record of a key of Lagos Pay as it is now.
    pub(crate) async fn record(&self, id: &str) -> Value {
        self.operator().get(&self.key_path(id, "")).await.is(200)
    }

    /// Revokes a key of Lagos Pay.
    pub(crate) async fn revoke(&self, id: &str) -> Value {
        let body = json!({ "reason": "leaked", "comment": "found in a log" });
        self.operator().post(&self.key_path(id, "/revoke"), body).await.is(200)
    }

    /// The bearer of a new admin token: the operator's, or one tenant's with a role.
    pub(crate) async fn admin_token(&self, scopes: &[&str], at: Option<(&str, &str)>) -> Actor {
        let mut body = json!({ "name": self.fresh("token"), "scopes": scopes });
        if let Some((slug, role)) = at {
            body["tenantId"] = json!(self.tenant(slug));
            body["role"] = json!(role);
        }
        let made = self.operator().post("/v1/admin-tokens", body).await.is(201);
        self.admin(made["secret"].as_str().unwrap())
    }

    /// Asks whether a key may do something.
    pub(crate) async fn verify(&self, question: Value) -> Value {
        self.operator().at(&self.internal).post("/v1/verify", question).await.is(200)
    }

    /// The audit trail of a tenant, newest first.
    pub(crate) async fn audit(&self, slug: &str, query: &str) -> Vec<Value> {
        self.operator().all(&self.path(slug, &format!("/audit-events{query}"))).await
    }
}

/// The key in the answer to a creation, a rotation or a re-issue.
#[track_caller]
pub(crate) fn minted(got: &Got) -> Minted {
    assert!(got.status == 200 || got.status == 201, "{}: {}", got.status, got.text);
    let body: Value = serde_json::from_str(&got.text).unwrap();
    let record = body["key"].clone();
    Minted {
        id: record["id"].as_str().unwrap().to_owned(),
        secret: body["secret"].as_str().expect("a secret").to_owned(),
        record,
    }
}
