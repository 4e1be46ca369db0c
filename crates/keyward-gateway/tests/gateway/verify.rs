//! `POST /v1/verify` decides as the gateway does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use keyward_core::lease::Lease;
use keyward_gateway::{
    BoxedBody, ConnectionLimits, DataPlane, Fallback, InternalServer, Networks, PlanePolicy,
    Protocols, RuntimeShape,
};

use crate::support::*;

struct Verify {
    world: World,
    plane: Arc<DataPlane>,
    server: InternalServer,
    caller: String,
}

fn verify_with(policy: PlanePolicy) -> Verify {
    verify_within(policy, ConnectionLimits::default())
}

fn verify_within(policy: PlanePolicy, limits: ConnectionLimits) -> Verify {
    let world = World::new();
    let plane = world.plane_with(Vec::new(), policy, None);
    let fallback: Fallback = Arc::new(|request: http::Request<keyward_gateway::ArrivingBody>| {
        Box::pin(async move {
            let text = Bytes::from(format!("elsewhere: {}", request.uri().path()));
            let body: BoxedBody = BoxedBody::new(Full::from(text).map_err(|never| match never {}));
            Response::new(body)
        })
    });
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let decides = Arc::clone(&plane);
    let server = InternalServer::bind(
        &[any],
        decides,
        fallback,
        limits,
        Protocols::default(),
        RuntimeShape::Shared,
    );
    let caller = world.admin_token(&["verify"], None);
    Verify { plane, server: server.unwrap(), caller, world }
}

impl Verify {
    async fn post(&self, caller: &str, body: &str) -> Answer {
        let auth = if caller.is_empty() {
            String::new()
        } else {
            format!("authorization: Bearer {caller}\r\n")
        };
        let request = format!(
            "POST /v1/verify HTTP/1.1\r\nhost: internal\r\n{auth}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        raw(self.server.local_addr(), request.as_bytes()).await
    }

    async fn ask(&self, mut question: Value) -> Value {
        if question.get("key").is_none() {
            question["key"] = json!(self.world.token);
        }
        let answer = self.post(&self.caller, &question.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.json()
    }
}

#[tokio::test]
async fn a_valid_call() {
    let verify = verify_with(PlanePolicy::default());
    let answer = verify.ask(json!({"method": "GET", "path": "/v1/reports?x=1"})).await;
    let key = &verify.world.authority;
    let expected = json!({
        "valid": true, "code": "valid", "keyId": key.id.to_string(), "name": key.name,
        "tenantId": TENANT.to_string(), "environment": "live",
        "scopes": ["reports:read", "reports:write"], "role": "admin", "actor": OWNER.to_string(),
        "expiresAt": null, "rateLimits": [], "quota": null, "epoch": 0,
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn every_refusal_is_a_200_with_the_code_of_the_gateway() {
    let verify = verify_with(PlanePolicy::default());
    for (question, code, failed) in [
        (json!({"key": "nonsense"}), "invalid_api_key", "credential"),
        (json!({"environment": "test"}), "environment_mismatch", "environment"),
        (json!({"tenantId": OTHER_TENANT.to_string()}), "tenant_mismatch", "tenant"),
        (json!({"method": "GET", "path": "/v1/admin"}), "forbidden", "route"),
        (json!({"method": "PATCH", "path": "/v1/reports"}), "method_not_allowed", "route"),
        (json!({"method": "GET", "path": "/v1/audit"}), "forbidden", "scope"),
        (json!({"scopes": ["audit:read"]}), "forbidden", "scope"),
    ] {
        let answer = verify.ask(question.clone()).await;
        assert_eq!(answer["valid"], false, "{question}");
        assert_eq!((&answer["code"], &answer["failed"]), (&json!(code), &json!(failed)));
    }
    assert_eq!(verify.ask(json!({"scopes": ["reports:read"]})).await["valid"], true);
    assert_eq!(verify.ask(json!({"tenantId": TENANT.to_string()})).await["valid"], true);
    verify.world.set_role("auditor");
    let answer = verify.ask(json!({"scopes": ["reports:read"]})).await;
    assert_eq!((&answer["code"], &answer["failed"]), (&json!("rbac_denied"), &json!("role")));
    verify.world.keys.remove_member(TENANT, OWNER);
    let answer = verify.ask(json!({})).await;
    assert_eq!((&answer["code"], &answer["role"]), (&json!("rbac_denied"), &Value::Null));
    verify.world.change_key(|key| key.revoked_at = Some(keyward_core::Timestamp::from_millis(1)));
    let answer = verify.ask(json!({})).await;
    assert_eq!((&answer["code"], &answer["failed"]), (&json!("unauthorized"), &json!("state")));
}

#[tokio::test]
async fn addresses_are_checked_when_they_are_told() {
    let verify = verify_with(PlanePolicy::default());
    let list = keyward_core::ip::IpAllowlist::parse(&["203.0.113.0/24"]).unwrap();
    verify.world.change_key(|key| key.ip_allowlist = list);
    assert_eq!(verify.ask(json!({"ip": "203.0.113.9"})).await["valid"], true);
    for question in [json!({"ip": "198.51.100.1"}), json!({})] {
        assert_eq!(verify.ask(question).await["code"], "ip_not_allowed");
    }
}

#[tokio::test]
async fn an_explanation_lists_every_check_in_order() {
    let verify = verify_with(PlanePolicy::default());
    let question = json!({"method": "GET", "path": "/v1/audit", "explain": true});
    let answer = verify.ask(question).await;
    let trace = answer["trace"].as_array().unwrap();
    let outcome = |check: &str| {
        let step = trace.iter().find(|step| step["check"] == check).unwrap();
        step["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(trace[0]["check"], "credential");
    assert_eq!(outcome("role"), "passed");
    assert_eq!(outcome("scope"), "failed");
    assert_eq!(outcome("rate_limit"), "skipped");
}

#[tokio::test]
async fn only_admitted_callers_are_answered() {
    let verify = verify_with(PlanePolicy::default());
    let body = json!({"key": verify.world.token}).to_string();
    let refused = async |caller: &str| {
        let (status, code, _) = verify.post(caller, &body).await.refusal();
        (status, code)
    };
    assert_eq!(refused("").await, (401, "missing_api_key".to_owned()));
    assert_eq!(refused("nonsense").await, (401, "invalid_api_key".to_owned()));
    assert_eq!(refused(&verify.world.token).await, (401, "invalid_api_key".to_owned()));
    let other = verify.world.admin_token(&["keys:read"], None);
    assert_eq!(refused(&other).await, (403, "forbidden".to_owned()));
    let policy = PlanePolicy {
        verify_callers: Networks::new(vec!["127.0.0.0/8".parse().unwrap()]),
        ..PlanePolicy::default()
    };
    let declared = verify_with(policy);
    let body = json!({"key": declared.world.token}).to_string();
    assert_eq!(declared.post("", &body).await.json()["valid"], true);
}

#[tokio::test]
async fn a_key_of_a_tenant_the_caller_may_not_see_does_not_exist() {
    let verify = verify_with(PlanePolicy::default());
    let body = json!({"key": verify.world.token}).to_string();
    let own = verify.world.admin_token(&["verify"], Some(TENANT));
    assert_eq!(verify.post(&own, &body).await.json()["valid"], true);
    let foreign = verify.world.admin_token(&["verify"], Some(OTHER_TENANT));
    let answer = verify.post(&foreign, &body).await.json();
    assert_eq!((&answer["code"], &answer["failed"]), (&json!("invalid_api_key"), &json!("lookup")));
    assert_eq!((&answer["keyId"], &answer["tenantId"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn bad_questions_are_explained_without_telling_the_key() {
    let verify = verify_with(PlanePolicy::default());
    let token = verify.world.token.clone();
    for (body, code) in [
        ("{".to_owned(), "invalid_request"),
        (format!(r#"{{"key":"{token}","colour":1}}"#), "invalid_request"),
        (format!(r#"{{"{token}":1}}"#), "invalid_request"),
        (format!(r#"{{"key":"{token}","path":"/v1"}}"#), "validation_failed"),
        (format!(r#"{{"key":"{token}","scopes":["nope:read"]}}"#), "validation_failed"),
        (format!(r#"{{"key":"{token}","ip":"home"}}"#), "validation_failed"),
        (format!(r#"{{"key":"{token}","method":"GET","path":"/v1//x"}}"#), "invalid_path"),
        (format!(r#"{{"key":"{}"}}"#, "k".repeat(20_000)), "payload_too_large"),
    ] {
        let answer = verify.post(&verify.caller, &body).await;
        assert_eq!(answer.refusal().1, code, "{body}");
        assert!(!answer.body.contains(&token));
    }
    let get = format!(
        "GET /v1/verify HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
        verify.caller
    );
    let answer = raw(verify.server.local_addr(), get.as_bytes()).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let plain = format!(
        "POST /v1/verify HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
         content-length: 2\r\n\r\n{{}}",
        verify.caller
    );
    assert_eq!(raw(verify.server.local_addr(), plain.as_bytes()).await.status, 415);
}

#[tokio::test]
async fn everything_else_is_the_binarys() {
    let verify = verify_with(PlanePolicy::default());
    let answer = raw(verify.server.local_addr(), b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer.body, "elsewhere: /livez");
    let bad = raw(verify.server.local_addr(), b"GET /livez HTTP/1.1\r\n\r\n").await;
    assert_eq!(bad.refusal().1, "invalid_request");
}

impl Verify {
    /// A request whose head was taken and whose body is waited for.
    async fn begin(&self, length: usize) -> Client {
        let head = format!(
            "POST /v1/verify HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\nexpect: 100-continue\r\n\
             content-length: {length}\r\n\r\n",
            self.caller
        );
        let mut client = Client::connect(self.server.local_addr()).await;
        client.write(head.as_bytes()).await;
        assert!(client.head().await.starts_with("HTTP/1.1 100"));
        client
    }
}

#[tokio::test]
async fn a_node_that_fell_behind_while_it_read_the_question_does_not_answer_it() {
    let verify = verify_with(PlanePolicy::default());
    let question = json!({"key": verify.world.token}).to_string();
    let mut client = verify.begin(question.len()).await;
    verify.plane.lease().grant(Lease::OVER);
    client.write(question.as_bytes()).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (503, "unavailable"));
    verify.plane.lease().grant(FOR_EVER);
    let mut client = verify.begin(question.len()).await;
    client.write(question.as_bytes()).await;
    assert_eq!(client.answer().await.json()["valid"], true);
}

#[tokio::test]
async fn a_question_that_drips_in_is_given_up() {
    let limits = ConnectionLimits {
        whole_body_timeout: Duration::from_millis(100),
        ..ConnectionLimits::default()
    };
    let verify = verify_within(PlanePolicy::default(), limits);
    let mut client = verify.begin(10_000).await;
    for _ in 0..1_000 {
        client.write(b" ").await;
        let pause = tokio::time::timeout(Duration::from_millis(20), client.more()).await;
        if pause.is_ok() {
            break;
        }
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (400, "invalid_request"));
    assert!(answer.body.contains("within 100 ms"), "{}", answer.body);
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn an3_a_key_that_the_caller_saw_exposed_is_refused_and_kept() {
    let verify = verify_with(PlanePolicy::default());
    let exposed = || {
        let rows = verify.plane.drain_exposures();
        assert!(rows.iter().all(|row| row.key == verify.world.authority.id));
        rows.into_iter().map(|row| row.exposed.by.as_str()).collect::<Vec<_>>()
    };
    let of_nobody = verify.world.key_of_nobody();
    for (way, code, failed) in [
        ("clear_text", "tls_required", "credential"),
        ("url", "credential_in_url", "credential"),
        ("browser", "browser_origin_refused", "browser_origin"),
    ] {
        let asked = json!({"exposure": way, "method": "GET", "path": "/v1/reports"});
        let answer = verify.ask(asked).await;
        assert_eq!((&answer["valid"], &answer["code"]), (&json!(false), &json!(code)));
        assert_eq!((&answer["failed"], answer.get("refusal")), (&json!(failed), None));
        assert_eq!(exposed(), [way]);
        let answer = verify.ask(json!({"exposure": way, "explain": true})).await;
        let message = answer["refusal"]["message"].as_str().unwrap();
        assert_ne!(message, "The request was refused");
        assert_eq!(exposed(), [way]);
        // nobody's key is not kept; only in clear text and in addresses it is refused for that
        let answer = verify.ask(json!({"exposure": way, "key": of_nobody})).await;
        let nobodys = if way == "browser" { "invalid_api_key" } else { code };
        assert_eq!((&answer["code"], &answer["keyId"]), (&json!(nobodys), &Value::Null));
        assert_eq!(exposed(), [] as [&str; 0]);
    }
    // who may not see a key does not mark it
    let stranger = verify.world.admin_token(&["verify"], Some(OTHER_TENANT));
    let question = json!({"key": verify.world.token, "exposure": "url"}).to_string();
    let answer = verify.post(&stranger, &question).await.json();
    assert_eq!((&answer["code"], &answer["keyId"]), (&json!("credential_in_url"), &Value::Null));
    assert_eq!(exposed(), [] as [&str; 0]);
    let answer = verify.post(&verify.caller, "{\"key\":\"a\",\"exposure\":\"mail\"}").await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (400, "invalid_request"));
    // a revoked key was exposed all the same, but is not looked at for its browser
    verify.world.change_key(|key| key.revoked_at = Some(keyward_core::Timestamp::from_millis(1)));
    assert_eq!(verify.ask(json!({"exposure": "url"})).await["code"], "credential_in_url");
    assert_eq!(exposed(), ["url"]);
    assert_eq!(verify.ask(json!({"exposure": "browser"})).await["code"], "unauthorized");
    assert_eq!(exposed(), [] as [&str; 0]);
}
