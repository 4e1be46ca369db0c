//! The operations over the real router and a real store, on every engine at hand.

mod access;
mod members;
mod records;
mod setup;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use keyward_api::scope::ManagementScope;
use keyward_core::Clock;
use keyward_core::audit::{Actor, ActorKind, AuditEntry, AuditOutcome, Origin};
use keyward_core::authority::Invalidation;
use keyward_core::id::AdminTokenId;
use keyward_core::key::{KeyHint, Keyring, Pepper, SecretKind, TagKey};
use keyward_gateway::{
    AdminTokens, Builtins, DataPlane, DataPlaneConfig, KeySet, PlanePolicy, ProductConfig,
};
use keyward_store::{AdminToken, Author, Chain, Change, Store};
use keyward_testkit::{ManualClock, TestDatabase};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::context::ControlState;
use crate::config::Settings;
use crate::node::Followed;
use crate::product::Product;

/// The largest body the test router takes, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A control plane without listeners.
struct Control {
    router: Router,
    store: Store,
    clock: Arc<ManualClock>,
    keyring: Arc<Keyring>,
    /// A token of the operator with every scope.
    operator: String,
    database: TestDatabase,
    _followed: Followed,
}

/// An answer.
#[derive(Debug)]
struct Answered {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The body of a success.
    #[track_caller]
    fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.json()
    }

    /// Checks status and code of an error, and answers its message.
    #[track_caller]
    fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        let body = self.json();
        assert_eq!(body["error"]["code"], code, "{self:?}");
        body["error"]["message"].as_str().unwrap().to_owned()
    }
}

fn author() -> Author {
    let actor = Actor { kind: ActorKind::System, id: "-".into(), name: "test".into(), role: None };
    Author { actor, origin: Origin::default() }
}

/// One control plane for each engine at hand.
async fn every() -> Vec<Control> {
    let mut controls = Vec::new();
    for database in TestDatabase::every().await {
        controls.push(Control::start(database).await);
    }
    controls
}

impl Control {
    async fn start(database: TestDatabase) -> Self {
        let clock = Arc::new(ManualClock::new());
        let store = Store::open(&database.config(), clock.clone()).await.unwrap();
        let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/../../profiles/asiri");
        let product = Arc::new(Product::load(profile.as_ref()).unwrap());
        let keyring = Arc::new(Keyring::new(
            product.profile.token_format(),
            TagKey::new(&[1; 32]),
            Pepper::new(1, &[2; 32]),
            Vec::new(),
        ));
        let plane = Arc::new(plane(&product, &keyring, clock.clone()));
        let followed = Followed::start(&store, &plane, &Settings::default()).await.unwrap();
        let state = ControlState {
            store: store.clone(),
            product,
            keyring: Arc::clone(&keyring),
            plane,
            follower: Arc::clone(&followed.follower),
            clock: clock.clone(),
            max_body: MAX_BODY,
        };
        let router = super::router(Arc::new(state)).unwrap();
        let operator = operator(&store, &keyring, &*clock).await;
        Self { router, store, clock, keyring, operator, database, _followed: followed }
    }

    async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answered { status: parts.status, headers: parts.headers, text }
    }

    /// Calls an operation with a token; `null` sends no body.
    async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answered {
        self.send(request(token, method, path, &body).body(text(&body)).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answered {
        self.call(&self.operator, "GET", path, Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Answered {
        self.call(&self.operator, "POST", path, body).await
    }

    /// The same with an idempotency key.
    async fn post_once(&self, key: &str, path: &str, body: Value) -> Answered {
        let request = request(&self.operator, "POST", path, &body).header("idempotency-key", key);
        self.send(request.body(text(&body)).unwrap()).await
    }

    /// Makes a tenant and answers its id.
    async fn tenant(&self, slug: &str) -> String {
        let made = self.post("/v1/tenants", json!({ "slug": slug, "name": slug })).await.ok();
        id(&made["id"])
    }

    /// Adds a person to a tenant and answers their id.
    async fn member(&self, tenant: &str, email: &str, role: &str) -> String {
        let body = json!({ "email": email, "name": email, "role": role });
        let member = self.post(&format!("/v1/tenants/{tenant}/members"), body).await.ok();
        id(&member["userId"])
    }

    /// Makes a key of a member and answers its id.
    async fn key(&self, tenant: &str, owner: &str, scopes: &[&str]) -> String {
        let body = json!({
            "name": "worker",
            "environment": "live",
            "scopes": scopes,
            "ownerId": owner,
        });
        let made = self.post(&format!("/v1/tenants/{tenant}/keys"), body).await.ok();
        id(&made["key"]["id"])
    }

    /// Makes an admin token of one tenant and answers it whole.
    async fn token(&self, tenant: &str, role: &str, scopes: &[&str]) -> String {
        let body = json!({
            "name": "tenant's own",
            "tenantId": tenant,
            "role": role,
            "scopes": scopes,
        });
        let made = self.post("/v1/admin-tokens", body).await.ok();
        made["secret"].as_str().unwrap().to_owned()
    }

    /// The actions in the tenant's audit trail, newest first.
    async fn actions(&self, tenant: &str) -> Vec<String> {
        let page = self.get(&format!("/v1/tenants/{tenant}/audit-events")).await.ok();
        let events = page["data"].as_array().unwrap();
        events.iter().map(|event| event["action"].as_str().unwrap().to_owned()).collect()
    }
}

fn id(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn request(token: &str, method: &str, path: &str, body: &Value) -> http::request::Builder {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    match body {
        Value::Null => request,
        _ => request.header("content-type", "application/json"),
    }
}

fn text(body: &Value) -> Body {
    match body {
        Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    }
}

/// A data plane that nothing is sent through.
fn plane(product: &Product, keyring: &Arc<Keyring>, clock: Arc<dyn Clock>) -> DataPlane {
    let keys = KeySet::new(Arc::clone(&product.catalog), Arc::clone(keyring));
    let config = DataPlaneConfig {
        clock,
        keys: Arc::new(keys),
        admin_tokens: Arc::new(AdminTokens::new(Arc::clone(keyring))),
        product: ProductConfig {
            catalog: Arc::clone(&product.catalog),
            carriers: product.profile.keys.carriers.clone(),
            tenant_header: product.profile.tenant.header.clone(),
            builtins: Builtins::default(),
            docs_base: "/docs".to_owned(),
        },
        upstreams: Vec::new(),
        policy: PlanePolicy::default(),
    };
    DataPlane::new(config).unwrap()
}

async fn operator(store: &Store, keyring: &Keyring, clock: &dyn Clock) -> String {
    let minted = keyring.mint(SecretKind::Admin, clock);
    let mut tx = store.write_system("a test token", Chain::Operator, author()).await.unwrap();
    let token = AdminToken {
        id: AdminTokenId::from_bits(minted.id_bits),
        name: "operator".to_owned(),
        hint: KeyHint::new(minted.hint).unwrap(),
        tenant: None,
        role: None,
        scopes: ManagementScope::ALL.iter().map(ToString::to_string).collect(),
        created_by: "test".to_owned(),
        created_at: tx.at(),
        expires_at: None,
        revoked_at: None,
    };
    tx.insert_admin_token(&token, &minted.hash, minted.pepper_version).await.unwrap();
    let entry = AuditEntry {
        action: "admin_token.created",
        target_kind: "admin_token",
        target_id: token.id.to_string(),
        outcome: AuditOutcome::Succeeded,
        details: json!({}),
    };
    let touched = [Invalidation::AdminToken(token.id)];
    tx.finish(Change::new((), entry).invalidating(touched)).await.unwrap();
    minted.secret.expose().to_owned()
}
