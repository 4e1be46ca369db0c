//! The document's own example against a product whose requests name their organization.

use std::process::Stdio;

use keyward_core::Clock as _;
use keyward_testkit::command;
use serde_json::{Value, json};
use tokio::process::Command;

use super::other::{ASTERI, other_product};
use crate::harness::{Actor, DAY_MS, TestNode};

const BRIGHTWATER: &str = "brightwater-plumbing";
const SUMMIT: &str = "summit-heating";
const CUSTOMERS: &str = "/api/public/v1/customers";
/// As the product's documentation has it.
const EXAMPLE: &str = r#"
curl -X GET \
http://localhost:3000/api/public/v1/openapi.json \
-H "x-api-key: ast_live_your_key" \
-H "x-organization-id: ${ORG_ID}"
"#;

async fn key(node: &TestNode, more: Value) -> String {
    let owner = node.member_with(BRIGHTWATER, "owner").await;
    let mut body = json!({
        "name": node.fresh("partner"), "environment": "live", "scopes": ["customers:read"],
        "ownerId": owner,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.mint(BRIGHTWATER, body).await.secret
}

fn with(node: &TestNode, secret: &str, organization: &str) -> Actor {
    let nobody = node.anonymous().at(&node.gateways[0]);
    nobody.with("x-api-key", secret).with("x-organization-id", organization)
}

/// Runs the example in a shell; what curl wrote.
async fn run_example(gateway: &str, key: &str, organization: &str) -> String {
    let script =
        EXAMPLE.replace("http://localhost:3000", gateway).replace("ast_live_your_key", key);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("ORG_ID", organization).env("no_proxy", "*");
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

#[tokio::test]
async fn as3_the_curl_example_gets_the_products_document() {
    if command("curl").is_none() {
        return;
    }
    other_product(ASTERI, async |node| {
        let secret = key(node, json!({})).await;
        assert!(secret.starts_with("ast_live_"), "the prefix of the product");
        let organization = node.tenant(BRIGHTWATER);
        let printed = run_example(&node.gateways[0], &secret, &organization).await;
        let document: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(document["info"]["title"], "Asteri Public API");
        assert!(document["paths"][CUSTOMERS].is_object());
        assert!(!printed.contains("x-sandbox"), "what only the sandbox reads stays inside");
        for organization in [node.tenant(SUMMIT), String::new()] {
            let printed = run_example(&node.gateways[0], &secret, &organization).await;
            let refusal: Value = serde_json::from_str(&printed).unwrap();
            assert_eq!(refusal["error"]["code"], "tenant_mismatch", "{organization:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn as3_a_missing_or_foreign_organization_is_refused() {
    other_product(ASTERI, async |node| {
        let secret = key(node, json!({})).await;
        with(node, &secret, &node.tenant(BRIGHTWATER)).get(CUSTOMERS).await.is(200);
        with(node, &secret, BRIGHTWATER).get(CUSTOMERS).await.is(200);
        for foreign in [node.tenant(SUMMIT), SUMMIT.to_owned(), "ten_x".to_owned()] {
            let got = with(node, &secret, &foreign).get(CUSTOMERS).await;
            let error = got.refused_at(403, "tenant_mismatch", "tenant");
            assert!(!error.to_string().contains(&node.tenant(BRIGHTWATER)), "{error}");
        }
        let two = with(node, &secret, BRIGHTWATER).with("x-organization-id", SUMMIT);
        two.get(CUSTOMERS).await.refused(400, "invalid_request");
        let none = node.anonymous().at(&node.gateways[0]).with("x-api-key", &secret);
        let got = none.get(CUSTOMERS).await;
        let error = got.refused_at(403, "tenant_mismatch", "tenant");
        assert!(error["message"].as_str().unwrap().contains("x-organization-id"), "{error}");
        // what is wrong with the key is said first
        let unknown = node.anonymous().at(&node.gateways[0]).with("x-api-key", "ast_live_x");
        unknown.get(CUSTOMERS).await.refused_at(401, "invalid_api_key", "credential");
    })
    .await;
}

#[tokio::test]
async fn as4_each_refusal_tells_what_to_fix() {
    other_product(ASTERI, async |node| {
        let said = |error: &Value, words: &str| {
            assert!(error["message"].as_str().unwrap().contains(words), "{words}: {error}");
        };
        let secret = key(node, json!({})).await;
        let nobody = node.anonymous().at(&node.gateways[0]);
        let nobody = nobody.with("x-organization-id", BRIGHTWATER);
        // the wrong header
        let bearer = nobody.with("authorization", &format!("Bearer {secret}"));
        let error = bearer.get(CUSTOMERS).await.refused_at(401, "missing_api_key", "credential");
        said(&error, "x-api-key");
        // the wrong environment
        let test = key(node, json!({ "environment": "test" })).await;
        let error = with(node, &test, BRIGHTWATER).get(CUSTOMERS).await;
        let error = error.refused_at(401, "environment_mismatch", "environment");
        said(&error, "test");
        // a scope that is missing, by name
        let got = with(node, &secret, BRIGHTWATER).get("/api/public/v1/invoices").await;
        let error = got.refused_at(403, "forbidden", "scope");
        assert_eq!(error["details"]["requiredScopes"], json!([["invoices:read"]]));
        assert_eq!(got.header("keyward-accepted-scopes"), Some("invoices:read"));
        // expired
        let soon = node.clock.now().plus_ms(DAY_MS);
        let short = key(node, json!({ "expiresAt": soon })).await;
        with(node, &short, BRIGHTWATER).get(CUSTOMERS).await.is(200);
        node.clock.advance_ms(DAY_MS + 1);
        let error = with(node, &short, BRIGHTWATER).get(CUSTOMERS).await;
        said(&error.refused_at(401, "expired_api_key", "state"), "expired");
        // wrong altogether, then too often
        let wrong = with(node, "ast_live_nonsense", BRIGHTWATER);
        let error = wrong.get(CUSTOMERS).await.refused_at(401, "invalid_api_key", "credential");
        said(&error, "API key");
        for _ in 0..keyward_gateway::FAILURE_BURST {
            wrong.get(CUSTOMERS).await;
        }
        let held = with(node, &secret, BRIGHTWATER).get(CUSTOMERS).await;
        let error = held.refused_at(429, "rate_limited", "failed_caller");
        assert_eq!(error["details"]["reason"], "too_many_failures");
        let seconds: i64 = held.header("retry-after").expect("when to retry").parse().unwrap();
        node.clock.advance_ms(seconds * 1_000);
        with(node, &secret, BRIGHTWATER).get(CUSTOMERS).await.is(200);
    })
    .await;
}

#[tokio::test]
async fn as3_every_documented_read_answers() {
    other_product(ASTERI, async |node| {
        let scopes = ["customers", "appointments", "estimates", "invoices", "payments"];
        let scopes: Vec<String> = scopes.iter().map(|area| format!("{area}:read")).collect();
        let caller = with(node, &key(node, json!({ "scopes": scopes })).await, BRIGHTWATER);
        for (list, row) in [
            ("customers", "cus_bw_001"),
            ("appointments", "apt_bw_001"),
            ("estimates", "est_bw_001"),
            ("invoices", "inv_bw_001"),
            ("payments", "pay_bw_001"),
        ] {
            let page = caller.get(&format!("/api/public/v1/{list}")).await.is(200);
            assert!(!page["data"].as_array().unwrap().is_empty(), "{list}");
            caller.get(&format!("/api/public/v1/{list}/{row}")).await.is(200);
        }
    })
    .await;
}
