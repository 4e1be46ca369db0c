//! Every step of the decision, with the exact status, code and particulars a caller sees.

use serde_json::json;

use keyward_core::authority::TenantAuthority;
use keyward_core::environment::Environment;
use keyward_core::id::KeyId;
use keyward_core::ip::IpAllowlist;
use keyward_core::time::Timestamp;

use crate::support::*;

fn expect(code: (u16, &str, &str)) -> (u16, String, String) {
    (code.0, code.1.to_owned(), code.2.to_owned())
}

#[tokio::test]
async fn the_right_key_passes_in_every_carrier() {
    let stage = stage().await;
    let token = &stage.world.token;
    for carrier in [
        format!("Authorization: Bearer {token}\r\n"),
        format!("authorization: bearer {token}\r\n"),
        format!("Authorization: ApiKey {token}\r\n"),
        format!("X-Api-Key: {token}\r\n"),
    ] {
        let answer = stage.send_bare("GET", "/v1/reports?limit=2", &carrier).await;
        assert_eq!(answer.told()["target"], "/v1/reports?limit=2", "{carrier}");
        assert_eq!(answer.header("keyward-accepted-scopes"), Some("reports:read"));
    }
}

#[tokio::test]
async fn no_key_two_keys_and_texts_that_are_no_keys() {
    let stage = stage().await;
    let token = stage.world.token.clone();
    let missing = stage.send_bare("GET", "/v1/reports", "").await;
    assert_eq!(missing.refusal(), expect((401, "missing_api_key", "credential")));
    assert_eq!(missing.header("www-authenticate"), Some(r#"Bearer realm="api""#));
    assert!(missing.body.contains("Authorization: Bearer"));
    let two = format!("x-api-key: {token}\r\n");
    let two = stage.send("GET", "/v1/reports", &two).await;
    assert_eq!(two.refusal(), expect((401, "ambiguous_api_key", "credential")));
    let mut torn = token.clone();
    torn.pop();
    let swapped = token.replace("_live_", "_test_");
    for text in ["nonsense", torn.as_str(), swapped.as_str(), "acme_live_"] {
        let headers = format!("authorization: Bearer {text}\r\n");
        let answer = stage.send_bare("GET", "/v1/reports", &headers).await;
        assert_eq!(answer.refusal(), expect((401, "invalid_api_key", "credential")), "{text}");
        assert_eq!(answer.details()["reason"], "malformed");
        let challenge = r#"Bearer realm="api", error="invalid_token""#;
        assert_eq!(answer.header("www-authenticate"), Some(challenge));
        assert!(!answer.body.contains(text), "the text is not told back");
    }
}

#[tokio::test]
async fn states_of_a_key() {
    let stage = stage().await;
    let now = Timestamp::from_millis(START_MS);
    stage.world.change_key(|key| key.expires_at = Some(now.plus_ms(1)));
    stage.send("GET", "/v1/reports", "").await.told();
    stage.world.change_key(|key| key.expires_at = Some(now));
    let expired = stage.send("GET", "/v1/reports", "").await;
    assert_eq!(expired.refusal(), expect((401, "expired_api_key", "state")));
    assert_eq!(expired.details()["expiredAt"], now.to_string());
    stage.world.change_key(|key| key.revoked_at = Some(now));
    let revoked = stage.send("GET", "/v1/reports", "").await;
    assert_eq!(revoked.refusal(), expect((401, "unauthorized", "state")));
    assert_eq!(revoked.details()["reason"], "revoked");
    assert_eq!(revoked.details()["revokedAt"], now.to_string());
    stage.world.change_key(|key| key.suspect_since = Some(now));
    let suspect = stage.send("GET", "/v1/reports", "").await;
    assert_eq!(suspect.refusal(), expect((401, "unauthorized", "state")));
    assert_eq!(suspect.details()["reason"], "suspect");
    stage.world.change_key(|_| ());
    stage.world.keys.replace_tenant(TenantAuthority {
        id: TENANT,
        slug: "lagos-pay".to_owned(),
        suspended: true,
    });
    let suspended = stage.send("GET", "/v1/reports", "").await;
    assert_eq!(suspended.refusal(), expect((401, "unauthorized", "state")));
    assert_eq!(suspended.details()["reason"], "tenant_suspended");
    stage.world.keys.remove_key(KeyId::from_bits(stage.world.authority.id.bits()));
    let unknown = stage.send("GET", "/v1/reports", "").await;
    assert_eq!(unknown.refusal(), expect((401, "invalid_api_key", "lookup")));
    assert_eq!(stage.upstream.requests(), 1);
}

#[tokio::test]
async fn a_key_of_another_environment() {
    let stage = stage().await;
    let token = stage.world.key_of(Environment::Test);
    let headers = format!("authorization: Bearer {token}\r\n");
    let answer = stage.send_bare("GET", "/v1/reports", &headers).await;
    assert_eq!(answer.refusal(), expect((401, "environment_mismatch", "environment")));
    assert_eq!(answer.details()["keyEnvironment"], "test");
    assert_eq!(answer.details()["servedEnvironments"], json!(["live"]));
}

#[tokio::test]
async fn addresses_and_browsers() {
    let stage = stage().await;
    let list = |networks: &[&str]| IpAllowlist::parse(networks).unwrap();
    stage.world.change_key(|key| key.ip_allowlist = list(&["127.0.0.0/8"]));
    stage.send("GET", "/v1/reports", "").await.told();
    stage.world.change_key(|key| key.ip_allowlist = list(&["203.0.113.0/24"]));
    let spoofed = "x-forwarded-for: 203.0.113.9\r\n";
    let answer = stage.refused("GET", "/v1/reports", spoofed).await;
    assert_eq!(answer, expect((403, "ip_not_allowed", "ip")));
    stage.world.change_key(|_| ());
    for mark in ["origin: https://acme.example", "origin: null", "sec-fetch-site: cross-site"] {
        let answer = stage.send("GET", "/v1/reports", &format!("{mark}\r\n")).await;
        assert_eq!(answer.refusal(), expect((403, "browser_origin_refused", "browser_origin")));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let preflight = "origin: https://acme.example\r\naccess-control-request-method: GET\r\n";
    let answer = stage.send_bare("OPTIONS", "/v1/reports", preflight).await;
    assert_eq!(answer.refusal(), expect((401, "missing_api_key", "credential")));
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn the_tenant_header() {
    let stage = stage_with(|_| {}, Some("x-workspace")).await;
    let missing = stage.send("GET", "/v1/reports", "").await;
    assert_eq!(missing.refusal(), expect((403, "tenant_mismatch", "tenant")));
    assert_eq!(missing.details()["reason"], "tenant_header_missing");
    for good in ["lagos-pay".to_owned(), TENANT.to_string()] {
        let answer = stage.send("GET", "/v1/reports", &format!("X-Workspace: {good}\r\n")).await;
        assert_eq!(answer.told()["headers"].get("x-workspace"), None);
    }
    let both = "x-workspace: lagos-pay\r\nx-workspace: accra-pay\r\n";
    assert_eq!(stage.send("GET", "/v1/reports", both).await.status, 400);
    let other = format!("x-workspace: {OTHER_TENANT}\r\n");
    for bad in ["x-workspace: accra-pay\r\n", "x-workspace: \r\n", &other] {
        let answer = stage.send("GET", "/v1/reports", bad).await;
        assert_eq!(answer.refusal(), expect((403, "tenant_mismatch", "tenant")), "{bad:?}");
        assert_eq!(answer.details()["reason"], "tenant_header_differs");
    }
}

#[tokio::test]
async fn the_three_conditions_of_a_route() {
    let stage = stage().await;
    let closed = stage.refused("GET", "/v1/admin", "").await;
    assert_eq!(closed, expect((403, "forbidden", "route")));
    let trailing = stage.refused("GET", "/v1/reports/", "").await;
    assert_eq!(trailing, expect((403, "forbidden", "route")));
    let upper = stage.refused("GET", "/V1/reports", "").await;
    assert_eq!(upper, expect((403, "forbidden", "route")));
    let method = stage.send("PATCH", "/v1/reports", "").await;
    assert_eq!(method.refusal(), expect((405, "method_not_allowed", "route")));
    assert_eq!(method.header("allow"), Some("GET, HEAD, POST"));
    let scope = stage.send("GET", "/v1/audit", "").await;
    assert_eq!(scope.refusal(), expect((403, "forbidden", "scope")));
    assert_eq!(scope.details()["requiredScopes"], json!([["audit:read"]]));
    assert_eq!(scope.details()["grantedScopes"], json!(["reports:read", "reports:write"]));
    assert_eq!(scope.header("keyward-accepted-scopes"), Some("audit:read"));
    let challenge = r#"Bearer realm="api", error="insufficient_scope", scope="audit:read""#;
    assert_eq!(scope.header("www-authenticate"), Some(challenge));
    stage.world.set_role("auditor");
    let role = stage.send("GET", "/v1/reports", "").await;
    assert_eq!(role.refusal(), expect((403, "rbac_denied", "role")));
    assert_eq!(role.details()["role"], "auditor");
    stage.world.keys.remove_member(TENANT, OWNER);
    let left = stage.send("GET", "/v1/reports", "").await;
    assert_eq!(left.refusal(), expect((403, "rbac_denied", "role")));
    assert_eq!(left.details()["reason"], "owner_left");
    stage.world.set_role("admin");
    stage.send("GET", "/v1/reports", "").await.told();
}

#[tokio::test]
async fn callers_that_keep_failing_are_held_back() {
    let stage = stage().await;
    // a whole key of this deployment whose record is gone
    let wrong = stage.world.token.clone();
    stage.world.keys.remove_key(stage.world.authority.id);
    let headers = format!("authorization: Bearer {wrong}\r\n");
    for _ in 0..=keyward_gateway::FAILURE_BURST {
        let answer = stage.send_bare("GET", "/v1/reports", &headers).await;
        assert_eq!(answer.refusal(), expect((401, "invalid_api_key", "lookup")));
    }
    stage.world.change_key(|_| ());
    let held = stage.send("GET", "/v1/reports", "").await;
    assert_eq!(held.refusal(), expect((429, "rate_limited", "failed_caller")));
    assert_eq!(held.header("retry-after"), Some("2"));
    let clock = &stage.world.clock.ms;
    clock.fetch_add(2_000, std::sync::atomic::Ordering::SeqCst);
    stage.send("GET", "/v1/reports", "").await.told();
}

#[tokio::test]
async fn built_in_operations_are_answered_here() {
    let stage = stage().await;
    let answer = stage.send("GET", "/v1/openapi.json?x=1", "").await;
    assert_eq!(answer.body, format!("openapi /v1/openapi.json {TENANT}"));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(stage.upstream.requests(), 0);
}

#[tokio::test]
async fn usage_counts_what_passed_and_what_did_not() {
    let stage = stage().await;
    stage.send("GET", "/v1/reports", "user-agent: probe/1\r\n").await.told();
    stage.send("GET", "/v1/audit", "").await.refusal();
    stage.send_bare("GET", "/v1/reports", "").await.refusal();
    let rows = stage.plane.drain_usage(10);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].permitted, rows[0].refused), (1, 1));
    assert_eq!(rows[0].key, stage.world.authority.id);
    let last = rows[0].last.as_ref().unwrap();
    assert_eq!(last.agent.as_deref(), Some("probe/1"));
    assert_eq!(last.at, Timestamp::from_millis(START_MS));
}

#[tokio::test]
async fn a_fault_of_ours_is_answered_and_concerns_no_other_request() {
    let stage = stage().await;
    let (status, code, _) = stage.refused("GET", "/v1/openapi.json?faulty", "").await;
    assert_eq!((status, code.as_str()), (500, "internal"));
    let answer = stage.send("GET", "/v1/openapi.json?x", "").await;
    assert_eq!(answer.status, 200);
}
