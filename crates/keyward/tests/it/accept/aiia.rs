//! The document's own example against a product whose keys are sent as `ApiKey`.

use std::path::Path;
use std::process::Stdio;

use keyward_testkit::python_with;
use serde_json::json;
use tokio::process::Command;

use super::other::{AIIA, other_product};
use crate::harness::{Actor, TestNode};

const NORTHWIND: &str = "northwind-bank";
/// As the product's documentation has it, but for the lost indentation.
const EXAMPLE: &str = r#"
import requests

url = "https://aiia.organization.com/api/v1/findings"
headers = {
    "Authorization": "ApiKey your_api_key_here",
    "Accept": "application/json"
}

response = requests.get(url, headers=headers)
if response.status_code == 200:
    findings = response.json()
    print(f"Successfully retrieved {len(findings)} findings.")
"#;

fn with(node: &TestNode, secret: &str) -> Actor {
    let nobody = node.anonymous().at(&node.gateways[0]);
    nobody.with("authorization", &format!("ApiKey {secret}"))
}

async fn key(node: &TestNode, scopes: &[&str]) -> String {
    let owner = node.member_with(NORTHWIND, "administrator").await;
    let name = node.fresh("ServiceNow Integration Key");
    let body = json!({ "name": name, "environment": "live", "scopes": scopes, "ownerId": owner });
    node.mint(NORTHWIND, body).await.secret
}

async fn run_example(python: &Path, gateway: &str, key: &str) -> String {
    let program =
        EXAMPLE.replace("https://aiia.organization.com", gateway).replace("your_api_key_here", key);
    let mut command = Command::new(python);
    command.args(["-c", &program]).env("NO_PROXY", "*").stdin(Stdio::null()).kill_on_drop(true);
    let ended = command.output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

#[tokio::test]
async fn ai5_the_python_example_counts_the_findings_of_a_bare_array() {
    let Some(python) = python_with(&["requests"]) else { return };
    other_product(AIIA, async |node| {
        let secret = key(node, &["read:findings"]).await;
        assert!(secret.starts_with("aiia_key_live_"), "the prefix of the product");
        let printed = run_example(&python, &node.gateways[0], &secret).await;
        assert_eq!(printed, "Successfully retrieved 3 findings.\n");
        // a key without the scope gets no further than the status
        let blind = key(node, &["read:universe"]).await;
        assert_eq!(run_example(&python, &node.gateways[0], &blind).await, "");
    })
    .await;
}

#[tokio::test]
async fn ai5_the_key_is_sent_as_api_key_and_scopes_are_action_first() {
    other_product(AIIA, async |node| {
        let secret = key(node, &["read:findings", "write:findings"]).await;
        let caller = with(node, &secret);
        let findings = caller.get("/api/v1/findings").await.is(200);
        assert_eq!(findings.as_array().unwrap().len(), 3);
        let first = caller.get("/api/v1/findings?limit=2").await;
        assert_eq!(first.is(200).as_array().unwrap().len(), 2);
        let cursor = first.header("x-next-cursor").expect("more to come").to_owned();
        let rest = caller.get(&format!("/api/v1/findings?limit=2&cursor={cursor}")).await;
        assert_eq!(rest.is(200).as_array().unwrap().len(), 1);
        assert_eq!(rest.header("x-next-cursor"), None);
        let error = caller.get("/api/v1/universe").await.refused_at(403, "forbidden", "scope");
        assert_eq!(error["details"]["requiredScopes"], json!([["read:universe"]]));
        let new = json!({ "entityId": "ent_nb_pay", "title": "No second look", "rating": "low" });
        let made = caller.post("/api/v1/findings", new).await.is(201);
        assert_eq!(made["status"], "open");
        // the scheme is the product's, and its name is written as anybody likes
        let nobody = node.anonymous().at(&node.gateways[0]);
        let low = nobody.with("authorization", &format!("apikey {secret}"));
        low.get("/api/v1/findings").await.is(200);
        let bearer = nobody.with("authorization", &format!("Bearer {secret}"));
        let got = bearer.get("/api/v1/findings").await;
        let error = got.refused_at(401, "missing_api_key", "credential");
        assert!(error["message"].as_str().unwrap().contains("Authorization: ApiKey"), "{error}");
        assert_eq!(got.header("www-authenticate"), Some("ApiKey realm=\"api\""));
    })
    .await;
}

#[tokio::test]
async fn ai5_every_documented_read_answers() {
    other_product(AIIA, async |node| {
        let scopes = ["read:universe", "read:findings", "write:evidence", "admin:sync"];
        let caller = with(node, &key(node, &scopes).await);
        for path in [
            "/api/v1/universe",
            "/api/v1/universe/ent_nb_ops",
            "/api/v1/findings/fnd_nb_001",
            "/api/v1/findings/fnd_nb_001/action-plans",
            "/api/v1/sync/runs/syn_nb_001",
            "/api/v1/openapi.json",
        ] {
            caller.get(path).await.is(200);
        }
        let evidence = json!({ "testProcedureId": "tp_access", "fileName": "a.csv" });
        caller.post("/api/v1/evidence", evidence).await.is(201);
        caller.post("/api/v1/sync/runs", json!({ "connector": "hr" })).await.is(202);
    })
    .await;
}
