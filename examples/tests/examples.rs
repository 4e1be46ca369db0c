//! The examples as the processes they are, around one deployment.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, and says where"
)]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use keyward::dev::{Dev, DevOptions};
use keyward_core::environment::Environment;
use keyward_testkit::{ManualClock, TestDatabase};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../profiles/asiri");
const TENANT: &str = "lagos-pay";
/// Nothing here takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// An example that listens.
struct Example {
    _process: Child,
    url: String,
}

impl Example {
    async fn start(binary: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary);
        command.args(arguments).arg("127.0.0.1:0").kill_on_drop(true);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("a line in time").unwrap();
        let told: Value = serde_json::from_str(&line.expect("a listener")).unwrap();
        let url = format!("http://{}", told["listening"].as_str().unwrap());
        Self { _process: process, url }
    }
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

async fn get(url: &str, key: &str) -> (StatusCode, Value) {
    let response = client().get(url).bearer_auth(key).send().await.unwrap();
    let status = response.status();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

async fn deployment(database: &TestDatabase) -> Dev {
    let options = DevOptions {
        profile: PROFILE.into(),
        data_dir: database.data_dir().to_owned(),
        store_url: database.url(),
        migrate_url_file: None,
        gateways: vec![Environment::ALL.to_vec()],
        clock: Arc::new(ManualClock::new()),
    };
    Box::pin(Dev::start(options)).await.unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = folder.join(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn an_application_that_asks_a_node() {
    let database = TestDatabase::sqlite();
    let dev = deployment(&database).await;
    let folder = TempDir::new().unwrap();
    let token = write(folder.path(), "token", dev.admin_token());
    let node = format!("http://{}", dev.internal());
    let example = Example::start(env!("CARGO_BIN_EXE_asking"), &[&node, &token]).await;
    let key = dev.key(TENANT, Environment::Live).unwrap();
    let (status, told) = get(&format!("{}/v1/reports", example.url), key).await;
    assert_eq!((status, &told["data"][0]["tenant"]), (StatusCode::OK, &json!(dev.tenant(TENANT))));
    let (status, told) = get(&format!("{}/v1/internal", example.url), key).await;
    assert_eq!(
        (status, told["error"]["code"].as_str()),
        (StatusCode::FORBIDDEN, Some("forbidden"))
    );
    let (status, _) = get(&format!("{}/v1/reports", example.url), "nonsense").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    dev.stop().await;
    let (status, told) = get(&format!("{}/v1/reports", example.url), "asiri_live_x").await;
    assert_eq!(
        (status, told["error"]["code"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("unavailable"))
    );
}

#[tokio::test]
async fn an_application_with_a_node_of_its_own() {
    let database = TestDatabase::sqlite();
    // makes the demo tenants and their keys
    let dev = deployment(&database).await;
    let key = dev.key(TENANT, Environment::Live).unwrap().to_owned();
    let tenant = dev.tenant(TENANT);
    dev.stop().await;
    let folder = TempDir::new().unwrap();
    let settings = format!(
        "data-dir = {:?}\nprofile = {PROFILE:?}\n[control]\nlisten = \"127.0.0.1:0\"\n[internal]\n\
         listen = \"127.0.0.1:0\"\n",
        database.data_dir(),
    );
    let settings = write(folder.path(), "keyward.toml", &settings);
    let example = Example::start(env!("CARGO_BIN_EXE_embedded"), &[&settings]).await;
    let (status, told) = get(&format!("{}/v1/reports/rep_9", example.url), &key).await;
    assert_eq!((status, &told["tenant"]), (StatusCode::OK, &json!(tenant)));
    assert_eq!((&told["id"], &told["environment"]), (&json!("rep_9"), &json!("live")));
    let (status, _) = get(&format!("{}/v1/nothing", example.url), &key).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_upstream_believes_nobody_but_its_gateway() {
    let folder = TempDir::new().unwrap();
    let secret = write(folder.path(), "secret", "0123456789abcdef0123456789abcdef");
    let example = Example::start(env!("CARGO_BIN_EXE_upstream"), &["reports", &secret]).await;
    let response = client()
        .get(format!("{}/v1/reports", example.url))
        .header("keyward-tenant", "ten_0000000000000000000001")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let told: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(told["error"]["code"], "unauthorized");
}
