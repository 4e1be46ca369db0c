//! How keys are made: what is refused, what the token tells, and the demo key.

use keyward_core::environment::Environment;
use serde_json::{Value, json};

use crate::harness::{
    Finished, LAGOS_PAY, Setup, TestNode, keyward, node_on_every_engine, node_on_every_engine_with,
    write_private,
};

#[tokio::test]
async fn ak6_a_scope_that_is_none_is_refused_and_says_why() {
    node_on_every_engine(async |node| {
        let path = node.path(LAGOS_PAY, "/keys");
        for (scope, says) in [
            ("reports", "\"reports\" is a bare capability, not a scope; use reports:read"),
            ("evidence", "evidence:write"),
            ("settings:write", "is a tenant setting"),
            ("workspace:read", "is a tenant setting"),
            ("members:write", "is a tenant setting"),
            ("keys:write", "is a tenant setting"),
            ("reports:delete", "\"reports:delete\""),
            ("report:read", "did you mean reports:read?"),
            ("invoices:read", "There is no scope \"invoices:read\""),
            ("*", "is a wildcard"),
            ("reports:*", "is a wildcard"),
            ("*:read", "is a wildcard"),
            ("reports:read:all", "is not a scope"),
            ("Reports:Read", "is not a scope"),
            (" reports:read", "is not a scope"),
        ] {
            let body = node.key_body(LAGOS_PAY, &["audit:read", scope]).await;
            let error = node.operator().post(&path, body).await.refused(422, "validation_failed");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(says), "{scope}: {message}");
            assert_eq!(error["details"]["field"], "scopes");
            assert_eq!(error["details"]["scope"], scope);
        }
        let member = node.member(LAGOS_PAY, "auditor").await;
        let mut body = node.key_body(LAGOS_PAY, &["files:write"]).await;
        body["ownerId"] = json!(member);
        let error = node.operator().post(&path, body).await;
        let error = error.refused_at(403, "rbac_denied", "role");
        assert_eq!(error["message"], "The role auditor cannot hold files:write");
    })
    .await;
}

const WORDS: [(Environment, &str); 4] = [
    (Environment::Live, "live"),
    (Environment::Staging, "stg"),
    (Environment::Development, "dev"),
    (Environment::Test, "test"),
];

async fn key_of(node: &TestNode, environment: Environment) -> String {
    let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
    body["environment"] = json!(environment);
    node.mint(LAGOS_PAY, body).await.secret
}

#[tokio::test]
async fn ak7_the_prefix_tells_the_environment_and_no_other_accepts_the_key() {
    let gateways = WORDS.map(|(environment, _)| vec![environment]).to_vec();
    let setup = Setup { gateways, ..Setup::default() };
    node_on_every_engine_with(&setup, async |node| {
        for (own, (environment, word)) in WORDS.iter().enumerate() {
            let secret = key_of(node, *environment).await;
            assert!(secret.starts_with(&format!("asiri_{word}_")), "{word}");
            let caller = node.bearer(&secret);
            for (at, gateway) in node.gateways.iter().enumerate() {
                let got = caller.at(gateway).get("/v1/reports").await;
                if at == own {
                    got.is(200);
                    continue;
                }
                let error = got.refused_at(401, "environment_mismatch", "environment");
                assert_eq!(error["details"]["keyEnvironment"], json!(environment));
                assert_eq!(error["details"]["servedEnvironments"], json!([WORDS[at].0]));
                let question = json!({ "key": secret, "environment": WORDS[at].0 });
                assert_eq!(node.verify(question).await["code"], "environment_mismatch");
            }
            // the word cannot be exchanged: the checksum covers it
            let (_, other) = WORDS[(own + 1) % 4];
            let forged = secret.replacen(&format!("_{word}_"), &format!("_{other}_"), 1);
            let there = &node.gateways[(own + 1) % 4];
            let got = node.bearer(&forged).at(there).get("/v1/reports").await;
            got.refused_at(401, "invalid_api_key", "credential");
        }
    })
    .await;
}

async fn demo_key(node: &TestNode, more: &[&str]) -> Finished {
    let file = node.database.data_dir().join("token");
    write_private(&file, node.operator().secret());
    let file = file.display().to_string();
    let name = ["--tenant", LAGOS_PAY, "--name", "docs-demo"];
    let arguments = [&["demo-key"], &name[..], more].concat();
    keyward(&arguments, &[("KEYWARD_URL", &node.control), ("KEYWARD_TOKEN_FILE", &file)]).await
}

#[tokio::test]
async fn ak8_a_command_mints_a_demo_key() {
    node_on_every_engine(async |node| {
        let first = demo_key(node, &[]).await;
        assert_eq!(first.code, 0, "{}", first.stderr);
        let token = first.stdout.strip_suffix('\n').expect("one line");
        assert!(token.starts_with("asiri_live_") && !token.contains('\n'), "{}", first.stdout);
        assert!(!first.stderr.contains(token), "the token is printed once");
        let told = node.verify(json!({ "key": token })).await;
        assert_eq!((&told["valid"], &told["name"]), (&json!(true), &json!("docs-demo")));
        let mut scopes: Vec<_> = told["scopes"].as_array().unwrap().iter().collect();
        scopes.sort_by_key(|scope| scope.as_str());
        assert_eq!(scopes, ["audit:read", "reports:read", "webhooks:write"]);
        assert_eq!(told["tenantId"], json!(node.tenant(LAGOS_PAY)));
        node.bearer(token).get("/v1/reports").await.is(200);

        let second = demo_key(node, &[]).await;
        assert_ne!(second.stdout, first.stdout, "a second run makes a new key");
        node.bearer(second.stdout.trim()).get("/v1/reports").await.is(200);
        node.bearer(token).get("/v1/reports").await.is(200);
        let third = demo_key(node, &["--scopes", "files:read,controls:read"]).await;
        let told = node.verify(json!({ "key": third.stdout.trim() })).await;
        assert_eq!(told["scopes"].as_array().unwrap().len(), 2, "{told}");
        node.bearer(third.stdout.trim()).get("/v1/files").await.is(200);
        let refused = demo_key(node, &["--scopes", "reports"]).await;
        assert_ne!(refused.code, 0);
        assert!(refused.stdout.is_empty() && refused.stderr.contains("bare capability"));

        let keys = node.operator().all(&node.path(LAGOS_PAY, "/keys?text=docs-demo")).await;
        assert_eq!(keys.len(), 3);
        at_rest_is_hash_and_prefix(node, token, &told["keyId"]).await;
    })
    .await;
}

/// What the database keeps of a key: a hash of 32 bytes, the id, and the last four characters.
async fn at_rest_is_hash_and_prefix(node: &TestNode, token: &str, id: &Value) {
    let id = id.as_str().unwrap();
    let hash = format!("SELECT length(hash) FROM api_keys WHERE key_id = '{id}'");
    assert_eq!(node.database.number(&hash).await, 32);
    let secret = token.trim_start_matches("asiri_live_");
    for (place, bytes) in node.database.at_rest().await {
        for part in [token, secret, &secret[secret.len() - 20..]] {
            let found = bytes.windows(part.len()).any(|window| window == part.as_bytes());
            assert!(!found, "a token lies in {place}");
        }
    }
}
