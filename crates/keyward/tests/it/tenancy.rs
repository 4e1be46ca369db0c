//! A stranger at every door: through the gateway, through Keyward's own API, and with raw SQL.

use keyward_store::{Context, Engine, Statement};
use keyward_testkit::TestDatabase;
use serde_json::{Value, json};

use crate::harness::{
    Actor, KURAMO_HEALTH, LAGOS_PAY, SCOPES, Setup, TestNode, node_on_every_engine,
};

/// Records of Lagos Pay, and what a stranger could try with each.
const OBJECTS: [(&str, &str); 8] = [
    ("GET", "/v1/reports/rep_lp_0024"),
    ("POST", "/v1/reports/rep_lp_0024/export"),
    ("GET", "/v1/controls/ctl_lp_iam02"),
    ("GET", "/v1/evidence/items/evi_lp_0001"),
    ("GET", "/v1/evidence/sources/src_lp_identity"),
    ("POST", "/v1/evidence/sources/src_lp_identity/retire"),
    ("GET", "/v1/files/fil_lp_0003"),
    ("DELETE", "/v1/files/fil_lp_0003"),
];

#[tokio::test]
async fn ai3_a_stranger_reaches_nothing_through_the_gateway() {
    node_on_every_engine(async |node| {
        let owner = node.demo_key(LAGOS_PAY);
        let stranger = node.mint(KURAMO_HEALTH, node.key_body(KURAMO_HEALTH, &SCOPES).await).await;
        let stranger = node.bearer(&stranger.secret);
        let tenant = node.tenant(LAGOS_PAY);
        for (method, target) in OBJECTS {
            let method: http::Method = method.parse().unwrap();
            let own =
                if method == http::Method::GET { Some(owner.get(target).await) } else { None };
            own.map(|got| got.is(200));
            // saying that one is somebody else is believed by nobody
            for caller in [
                stranger.clone(),
                stranger.with("keyward-tenant", &tenant),
                stranger.with("x-organization-id", &tenant),
                stranger.with("keyward-assertion", "e30.e30.e30"),
            ] {
                let body = Some(json!({ "recipient": "auditor" }));
                let body = body.filter(|_| target.ends_with("/export"));
                let got = caller.send(method.clone(), target, body).await;
                got.refused_by_product(404, "not_found");
                assert!(!got.text.contains("Lagos"), "{}", got.text);
            }
        }
        for list in ["/v1/reports", "/v1/controls", "/v1/evidence/items", "/v1/files"] {
            let (ours, theirs) = (owner.all(list).await, stranger.all(list).await);
            assert!(!ours.is_empty(), "{list}");
            assert!(theirs.iter().all(|row| !ours.contains(row)), "{list}");
        }
        let trail = stranger.all("/v1/audit/events").await;
        let own = json!(node.tenant(KURAMO_HEALTH));
        assert!(!trail.is_empty() && trail.iter().all(|event| event["tenantId"] == own));
        // what the stranger could not do was not done
        owner.get("/v1/files/fil_lp_0003").await.is(200);
    })
    .await;
}

#[tokio::test]
async fn ai3_not_even_a_tenants_administrator_reaches_another_tenant() {
    node_on_every_engine(async |node| {
        let all: Vec<_> =
            keyward_api::scope::ManagementScope::ALL.iter().map(|scope| scope.as_str()).collect();
        let stranger = node.admin_token(&all, Some((KURAMO_HEALTH, "owner"))).await;
        let key = node.minted(&["reports:read"]).await;
        let before = everything(node).await;
        for (method, rest, body) in [
            ("GET", "", Value::Null),
            ("GET", "/keys", Value::Null),
            ("GET", "/members", Value::Null),
            ("GET", "/service-accounts", Value::Null),
            ("GET", "/audit-events", Value::Null),
            ("GET", "/audit-events/verify", Value::Null),
            ("POST", "/keys", node.key_body(LAGOS_PAY, &["reports:read"]).await),
            (
                "POST",
                "/members",
                json!({ "email": "eve@x.example", "name": "Eve", "role": "owner" }),
            ),
            ("POST", "/service-accounts", json!({ "name": "eve", "role": "developer" })),
        ] {
            call(&stranger, method, &node.path(LAGOS_PAY, rest), body).await;
        }
        // the key by its id, below the tenant it belongs to and below the stranger's own
        for slug in [LAGOS_PAY, KURAMO_HEALTH] {
            for (method, rest, body) in [
                ("GET", "", Value::Null),
                ("DELETE", "", Value::Null),
                ("PATCH", "", json!({ "name": "mine" })),
                ("POST", "/revoke", json!({ "reason": "other" })),
                ("POST", "/rotate", json!({})),
                ("POST", "/reissue", json!({})),
                ("POST", "/end-overlap", json!({})),
                ("POST", "/narrow-scopes", json!({ "remove": ["reports:read"] })),
                ("POST", "/explain", json!({ "method": "GET", "path": "/v1/reports" })),
            ] {
                let path = node.path(slug, &format!("/keys/{}{rest}", key.id));
                call(&stranger, method, &path, body).await;
            }
        }
        let owner = key.record["ownerId"].as_str().unwrap();
        let path = node.path(KURAMO_HEALTH, &format!("/members/{owner}"));
        call(&stranger, "GET", &path, Value::Null).await;
        call(&stranger, "PATCH", &path, json!({ "role": "analyst" })).await;
        // owning a key of another tenant is no way in either
        let body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        let got = stranger.post(&node.path(KURAMO_HEALTH, "/keys"), body).await;
        got.refused(422, "validation_failed");
        assert_eq!(everything(node).await, before);
        node.bearer(&key.secret).get("/v1/reports").await.is(200);
    })
    .await;
}

async fn call(who: &Actor, method: &str, path: &str, body: Value) {
    let body = Some(body).filter(|body| !body.is_null());
    who.send(method.parse().unwrap(), path, body).await.refused(404, "not_found");
}

/// Keys, members and audit trail of Lagos Pay.
async fn everything(node: &TestNode) -> Vec<Vec<Value>> {
    let operator = node.operator();
    let mut found = Vec::new();
    for rest in ["/keys?includeDeleted=true", "/members", "/audit-events"] {
        found.push(operator.all(&node.path(LAGOS_PAY, rest)).await);
    }
    found
}

static KEYS: Statement = Statement::shared("keys_of_all", "SELECT tenant_id FROM api_keys");
static MEMBERS: Statement =
    Statement::shared("members_of_all", "SELECT tenant_id FROM memberships");
static EVENTS: Statement = Statement::shared("events_of_all", "SELECT tenant_id FROM audit_events");
static TENANTS: Statement = Statement::shared("all_tenants", "SELECT tenant_id FROM tenants");
static REVOKE: Statement = Statement::shared("revoke_all", "UPDATE api_keys SET revoked_at = 0");

#[tokio::test]
async fn ai3_raw_sql_as_the_application_sees_one_tenant() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let node = TestNode::start(database, &Setup::default()).await;
    let (ours, theirs) = (node.tenant(LAGOS_PAY), node.tenant(KURAMO_HEALTH));
    let (database, _) = node.stop().await;
    let engine = Engine::open(&database.config()).await.unwrap();
    for statement in [&KEYS, &MEMBERS, &EVENTS, &TENANTS] {
        let mut conn = engine.begin_read(Context::Tenant(&ours)).await.unwrap();
        let rows = conn.query(statement, &[]).await.unwrap();
        assert!(!rows.is_empty());
        assert!(rows.iter().all(|row| row.text(0).unwrap() == ours));
    }
    let mut conn = engine.begin_write(Context::Tenant(&ours)).await.unwrap();
    conn.execute(&REVOKE, &[]).await.unwrap();
    conn.commit().await.unwrap();
    let left = "SELECT COUNT(*) FROM api_keys WHERE revoked_at IS NULL AND tenant_id = ";
    assert_eq!(database.number(&format!("{left}'{ours}'")).await, 0);
    assert!(database.number(&format!("{left}'{theirs}'")).await > 0, "theirs are untouched");
    engine.close().await;

    // without a context, or with one made up, raw SQL sees nothing at all
    let (client, connection) =
        tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for context in ["", "SET keyward.context = '", "SET keyward.context = '*"] {
        let set = match context {
            "" => String::new(),
            some => format!("{some}{ours}';"),
        };
        let said = client.simple_query(&format!("{set} SELECT * FROM keyward.api_keys")).await;
        let said = said.unwrap_err().as_db_error().unwrap().message().to_owned();
        assert!(said.contains("tenant context"), "{said}");
    }
}
