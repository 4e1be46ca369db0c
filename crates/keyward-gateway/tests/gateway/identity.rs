//! What the upstream is told about the caller, and what nobody else can tell it.

use keyward_core::assertion;
use keyward_core::time::Timestamp;

use crate::support::*;

#[tokio::test]
async fn identity_headers_are_always_set_and_always_ours() {
    let stage = stage().await;
    let forged = "Keyward-Tenant: evil\r\nkeyward_tenant: evil\r\nX-Tenant-Id: evil\r\n\
                  x_organization_id: evil\r\nX-User-Email: evil\r\nx-forwarded-for: 1.2.3.4\r\n\
                  Forwarded: for=1.2.3.4\r\nx-real-ip: 1.2.3.4\r\nx-request-id: evil\r\n\
                  keyward-future: evil\r\nKeyward-Assertion: evil\r\nx_forwarded_host: evil\r\n\
                  x-http-method-override: DELETE\r\nx-original-url: /v1/admin\r\n\
                  cookie: session=evil\r\nproxy-authorization: evil\r\n";
    let answer = stage.send("GET", "/v1/reports/rep_1?x=y", forged).await;
    let told = answer.told();
    let headers = &told["headers"];
    assert!(!told.to_string().contains("evil"), "{told}");
    assert!(!told.to_string().contains("1.2.3.4"), "{told}");
    assert!(!told.to_string().contains(&stage.world.token), "the key ends here");
    let key = &stage.world.authority;
    for (name, value) in [
        ("keyward-tenant", TENANT.to_string()),
        ("keyward-environment", "live".to_owned()),
        ("keyward-key-id", key.id.to_string()),
        ("keyward-key-name", "N%C3%A4chtlich 1%25".to_owned()),
        ("keyward-scopes", "reports:read reports:write".to_owned()),
        ("keyward-role", "admin".to_owned()),
        ("keyward-actor", OWNER.to_string()),
        ("x-forwarded-for", "127.0.0.1".to_owned()),
        ("x-forwarded-proto", "http".to_owned()),
        ("x-forwarded-host", "api.test".to_owned()),
        ("host", stage.upstream.address.to_string()),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let request_id = answer.header("x-request-id").unwrap();
    assert_eq!(headers["keyward-request-id"], request_id);
    assert_eq!(headers["x-request-id"], request_id);
    assert_eq!(told["target"], "/v1/reports/rep_1?x=y");
    let token = headers["keyward-assertion"].as_str().unwrap();
    let now = Timestamp::from_millis(START_MS);
    let verified = assertion::verify(token, &verify_key(), AUDIENCE, now).unwrap();
    let claims = verified.claims().unwrap();
    assert_eq!(claims.tenant, TENANT.to_string());
    assert_eq!(claims.sub, key.id.to_string());
    assert_eq!((claims.method, claims.path.as_ref()), ("GET", "/v1/reports/rep_1"));
    assert_eq!(claims.request_id, request_id);
    assert_eq!(claims.scopes, ["reports:read", "reports:write"]);
}

#[tokio::test]
async fn answers_carry_our_id_and_invite_no_browser() {
    let stage = stage().await;
    let answer = stage.send("GET", "/v1/reports", "").await;
    assert_ne!(answer.header("x-request-id"), Some("forged"));
    for gone in ["keyward-tenant", "access-control-allow-origin", "x-once"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(answer.header("x-upstream"), Some("told"));
}

#[tokio::test]
async fn hop_by_hop_headers_end_here() {
    let stage = stage().await;
    let hop = "Connection: x-once, keep-alive\r\nx-once: 1\r\nkeep-alive: timeout=5\r\n\
               te: gzip\r\nupgrade: websocket\r\nhttp2-settings: AAAA\r\nx-kept: 1\r\n";
    let told = stage.send("GET", "/v1/reports", hop).await.told();
    for gone in ["connection", "x-once", "keep-alive", "te", "upgrade", "http2-settings"] {
        assert_eq!(told["headers"].get(gone), None, "{gone}");
    }
    assert_eq!(told["headers"]["x-kept"], "1");
}

#[tokio::test]
async fn a_connection_header_cannot_take_ours_away() {
    let stage = stage().await;
    for named in ["keyward-tenant", "x-forwarded-for", "host", "x_user_id", "content-length"] {
        let answer = stage.send("GET", "/v1/reports", &format!("connection: {named}\r\n")).await;
        let (status, code, _) = answer.refusal();
        assert_eq!((status, code.as_str()), (400, "invalid_request"), "{named}");
    }
    let twice = "content-type: a/b\r\ncontent-type: a/c\r\n";
    assert_eq!(stage.send("GET", "/v1/reports", twice).await.status, 400);
    assert_eq!(stage.upstream.requests(), 0);
}

#[tokio::test]
async fn traces_pass_through_or_begin_here() {
    let stage = stage().await;
    let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let more = format!("traceparent: {sent}\r\ntracestate: a=b\r\n");
    let told = stage.send("GET", "/v1/reports", &more).await.told();
    assert_eq!(told["headers"]["traceparent"], sent);
    assert_eq!(told["headers"]["tracestate"], "a=b");
    for more in ["", "traceparent: 00-zz-zz-zz\r\n"] {
        let told = stage.send("GET", "/v1/reports", more).await.told();
        let begun = told["headers"]["traceparent"].as_str().unwrap();
        assert!(begun.starts_with("00-") && begun.len() == 55, "{begun}");
    }
}
