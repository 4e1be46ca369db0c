//! A whole node behind a proxy that asks before it forwards: settings, secrets and revocation.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use keyward_testkit::{Program, ServerProcess, TestDatabase};
use serde_json::{Value, json};

use crate::harness::{LAGOS_PAY, PROFILE, Process, keyward, write_private};

const TOKEN: &str = "a-secret-that-proxies-share-0123456789";
const NGINX_MAIN: &str = "pid {{folder}}/pid; worker_processes 1;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path {{folder}}/body;
    proxy_temp_path {{folder}}/proxy;
    fastcgi_temp_path {{folder}}/fastcgi;
    uwsgi_temp_path {{folder}}/uwsgi;
    scgi_temp_path {{folder}}/scgi;
";

/// A node with more settings, on SQLite and free ports.
async fn node(database: &TestDatabase, more: &[&str]) -> Process {
    let data_dir = database.data_dir().display().to_string();
    let url = database.url();
    let mut arguments = vec!["--profile", PROFILE, "--data-dir", &data_dir, "--store-url", &url];
    for listener in ["control", "internal", "gateway", "sandbox"] {
        arguments.push(match listener {
            "control" => "--control-listen",
            "internal" => "--internal-listen",
            "gateway" => "--gateway-listen",
            _ => "--sandbox-listen",
        });
        arguments.push("127.0.0.1:0");
    }
    // what the sandbox expects of whoever forwards to it
    arguments.extend(["--forward-auth-audience", "sandbox"]);
    arguments.extend(more);
    Process::dev(&arguments).await
}

/// nginx with the sample, before this node and its sandbox.
async fn nginx(node: &Process, token: Option<&str>) -> Option<ServerProcess> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/proxies/nginx/keyward.conf");
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let mut sample = std::fs::read_to_string(file)
        .unwrap()
        .replace("127.0.0.1:8789", &address(&node.site.internal))
        .replace("127.0.0.1:9000", &address(&node.site.sandbox))
        .replace("127.0.0.1:8080", "{{listen}}");
    if let Some(token) = token {
        let line = "# proxy_set_header Keyward-Proxy-Token \"…\";";
        assert!(sample.contains(line));
        let header = format!("proxy_set_header Keyward-Proxy-Token \"{token}\";");
        sample = sample.replace(line, &header);
    }
    ServerProcess::start(Program::Nginx, &format!("{NGINX_MAIN}{sample}}}"), &[]).await
}

#[tokio::test]
async fn nginx_asks_a_whole_node_and_forwards_by_itself() {
    let database = TestDatabase::sqlite();
    let file = database.data_dir().join("proxy-token");
    write_private(&file, &format!("{TOKEN}\n"));
    let file = file.display().to_string();
    let by_address = ["--gateway-trusted-proxies", "127.0.0.0/8"];
    let by_token = ["--forward-auth-token-file", &file];
    for (admitted, token) in [(by_address, None), (by_token, Some(TOKEN))] {
        let host = "{ name = \"sandbox.example.com\", environments = [\"test\"] }";
        let hosts = ["--forward-auth-host", host];
        let node = node(&database, &[admitted, hosts].concat()).await;
        let Some(proxy) = nginx(&node, token).await else { return };
        let url = format!("http://{}", proxy.address());
        let site = &node.site;
        // the sandbox verifies the assertion, and serves the tenant that it names
        site.demo_key(LAGOS_PAY).at(&url).get("/v1/reports").await.is(200);
        site.anonymous().at(&url).get("/v1/reports").await.refused(401, "missing_api_key");
        let key = site.minted(&["reports:read"]).await;
        let bearer = site.bearer(&key.secret).at(&url);
        bearer.get("/v1/reports").await.is(200);
        bearer.get("/v1/files").await.refused_at(403, "forbidden", "scope");
        site.revoke(&key.id).await;
        bearer.get("/v1/reports").await.refused_at(401, "unauthorized", "state");
        // the host says which keys count
        let mut body = site.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["environment"] = json!("test");
        let test_key = site.bearer(&site.mint(LAGOS_PAY, body).await.secret).at(&url);
        test_key.get("/v1/reports").await.refused(401, "environment_mismatch");
        test_key.with("host", "sandbox.example.com").get("/v1/reports").await.is(200);
        drop(proxy);
        assert_eq!(node.stop().await.code, 0);
    }
    // without either it is nobody who may ask
    let node = node(&database, &[]).await;
    let Some(proxy) = nginx(&node, Some(TOKEN)).await else { return };
    let demo = node.site.demo_key(LAGOS_PAY).at(&format!("http://{}", proxy.address()));
    demo.get("/v1/reports").await.refused_at(403, "forbidden", "proxy");
    assert_eq!(node.stop().await.code, 0);
}

#[tokio::test]
async fn assertions_under_a_key_pair_are_verified_with_the_published_half() {
    let database = TestDatabase::sqlite();
    let more = ["--forward-auth-assertion", "eddsa", "--gateway-trusted-proxies", "127.0.0.0/8"];
    let node = node(&database, &more).await;
    let internal = node.site.internal.clone();
    let asked = node
        .site
        .demo_key(LAGOS_PAY)
        .at(&internal)
        .with("x-forwarded-method", "GET")
        .with("x-forwarded-uri", "/v1/reports?limit=1")
        .with("x-forwarded-host", "api.example.com")
        .with("x-forwarded-for", "203.0.113.9")
        .get("/authz/forward")
        .await;
    assert_eq!((asked.status, asked.header("keyward-decision")), (200, Some("allow")));
    let keys = node.site.anonymous().at(&internal).get("/.well-known/jwks.json").await.is(200);
    let keys: JwkSet = serde_json::from_value(keys).unwrap();
    let [jwk] = keys.keys.as_slice() else { panic!("{} keys", keys.keys.len()) };
    let mut wanted = Validation::new(Algorithm::EdDSA);
    wanted.set_audience(&["sandbox"]);
    wanted.set_issuer(&["keyward"]);
    let assertion = asked.header("keyward-assertion").unwrap();
    let key = DecodingKey::from_jwk(jwk).unwrap();
    let claims = jsonwebtoken::decode::<Value>(assertion, &key, &wanted).unwrap().claims;
    assert_eq!((&claims["method"], &claims["path"]), (&json!("GET"), &json!("/v1/reports")));
    assert_eq!(claims["tenant"], node.site.tenant(LAGOS_PAY));
    assert_eq!(node.stop().await.code, 0);
}

#[tokio::test]
async fn a_token_that_is_none_stops_the_start() {
    let database = TestDatabase::sqlite();
    let file = database.data_dir().join("proxy-token");
    let path = file.display().to_string();
    for (text, says) in [
        ("short", "shorter than 32 bytes"),
        ("with spaces in it, and long enough otherwise", "visible ASCII"),
        ("", "must hold one line"),
    ] {
        write_private(&file, text);
        let data_dir = database.data_dir().display().to_string();
        let arguments = [
            "serve",
            "--profile",
            PROFILE,
            "--data-dir",
            &data_dir,
            "--store-url",
            &database.url(),
            "--control-listen",
            "127.0.0.1:0",
            "--internal-listen",
            "127.0.0.1:0",
            "--forward-auth-token-file",
            &path,
        ];
        let ended = keyward(&arguments, &[]).await;
        assert_eq!(ended.code, 78, "{}", ended.stderr);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
        assert!(!ended.stderr.contains("long enough"), "{}", ended.stderr);
    }
}
