//! What a node refuses to start on, and says about it.

use keyward_testkit::{TestDatabase, Wire};
use serde_json::json;

use crate::harness::{
    Finished, LAGOS_PAY, PROFILE, Process, Setup, TestNode, keyward, migrate_url_file,
    write_private,
};

/// The code that tells a service manager not to try again.
const CONFIG: i32 = 78;

struct Arguments(Vec<String>);

impl Arguments {
    /// Of a server on this database, on free ports.
    fn on(database: &TestDatabase) -> Self {
        let mut all: Vec<String> = [
            "--profile",
            PROFILE,
            "--control-listen",
            "127.0.0.1:0",
            "--internal-listen",
            "127.0.0.1:0",
        ]
        .map(str::to_owned)
        .into();
        all.extend(["--data-dir".to_owned(), database.data_dir().display().to_string()]);
        all.extend(["--store-url".to_owned(), database.url()]);
        if let Some(path) = migrate_url_file(database) {
            all.extend(["--store-migrate-url-file".to_owned(), path.display().to_string()]);
        }
        Self(all)
    }

    fn and(mut self, more: &[&str]) -> Self {
        self.0.extend(more.iter().map(|&text| text.to_owned()));
        self
    }

    async fn run(&self, command: &str) -> Finished {
        let mut arguments = vec![command];
        arguments.extend(self.0.iter().map(String::as_str));
        keyward(&arguments, &[]).await
    }

    async fn dev(&self) -> Process {
        let more = ["--gateway-listen", "127.0.0.1:0", "--sandbox-listen", "127.0.0.1:0"];
        let mut arguments: Vec<&str> = self.0.iter().map(String::as_str).collect();
        arguments.extend(more);
        Process::dev(&arguments).await
    }
}

#[tokio::test]
async fn a_newer_schema_ends_with_78_and_is_left_as_it_is() {
    for database in TestDatabase::every().await {
        let node = TestNode::start(database, &Setup::default()).await;
        let (database, _) = node.stop().await;
        let columns = database.behind("SELECT * FROM schema_history").await;
        let newer = "INSERT INTO schema_history SELECT MAX(version) + 1000, 'V9000__newer', 'x', 0
            FROM schema_history";
        database.behind(newer).await;
        let before = database.behind("SELECT * FROM schema_history").await;
        assert_eq!(before.len(), columns.len() + 1);
        for command in ["serve", "dev"] {
            let ended = Arguments::on(&database).run(command).await;
            assert_eq!(ended.code, CONFIG, "{command}: {}", ended.stderr);
            assert!(ended.stderr.contains("newer"), "{}", ended.stderr);
        }
        assert_eq!(database.behind("SELECT * FROM schema_history").await, before);
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused() {
    let database = TestDatabase::sqlite();
    let arguments = Arguments::on(&database);
    let first = arguments.dev().await;
    let second = arguments.run("serve").await;
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains("in use by process"), "{}", second.stderr);
    let operator = first.site.operator();
    operator.get("/v1/whoami").await.is(200);
    assert_eq!(first.stop().await.code, 0);
    let third = arguments.dev().await;
    third.site.demo_key(LAGOS_PAY).get("/v1/reports").await.is(200);
    assert_eq!(third.stop().await.code, 0);
}

#[tokio::test]
async fn production_refuses_what_is_unsafe_and_says_what_to_do() {
    let database = TestDatabase::sqlite();
    let production = || Arguments::on(&database).and(&["--environment", "production"]);
    let ended = production().run("serve").await;
    assert_eq!(ended.code, CONFIG, "{}", ended.stderr);
    for says in ["control.public-url is not set", "the secrets file", "keyward config init"] {
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
    }
    let url = ["--control-public-url", "https://keys.example.com"];
    for (more, says) in [
        (["--internal-listen", "0.0.0.0:0"], "beyond the operator's own network"),
        (["--internal-verify-from", "0.0.0.0/0"], "internal.verify-from holds every address"),
        (["--gateway-trusted-proxies", "::/0"], "gateway.trusted-proxies holds every address"),
        (["--control-listen", "0.0.0.0:0"], "without TLS"),
        (["--control-public-url", "http://keys.example.com"], "is not https"),
    ] {
        let mut arguments = production();
        for pair in [&url, &more] {
            // the last one named counts, and no flag is given twice
            if let Some(at) = arguments.0.iter().position(|text| text == pair[0]) {
                arguments.0[at + 1] = pair[1].to_owned();
            } else {
                arguments = arguments.and(pair);
            }
        }
        let ended = arguments.run("serve").await;
        assert_eq!(ended.code, CONFIG, "{more:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(says), "{more:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn production_refuses_the_demo_tenants() {
    for database in TestDatabase::every().await {
        let arguments = Arguments::on(&database);
        assert_eq!(arguments.dev().await.stop().await.code, 0);
        let url = ["--control-public-url", "https://keys.example.com"];
        let production = arguments.and(&["--environment", "production"]).and(&url);
        let ended = production.run("serve").await;
        assert_eq!(ended.code, CONFIG, "{}", ended.stderr);
        assert!(ended.stderr.contains("demo tenants"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_store_url_with_other_rights_is_refused() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let owner = database.migrate_url().unwrap();
    for url in [database.superuser_url().unwrap(), owner] {
        let file = database.data_dir().join("store-url");
        write_private(&file, &url);
        let mut arguments = Arguments::on(&database);
        let at = arguments.0.iter().position(|text| text == "--store-url").unwrap();
        arguments.0.drain(at..at + 2);
        let ended =
            arguments.and(&["--store-url-file", &file.display().to_string()]).run("serve").await;
        assert_eq!(ended.code, CONFIG, "{}", ended.stderr);
        assert!(!ended.stderr.contains(":test@"), "no password in {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_node_that_stops_ends_what_it_began_and_starts_again_as_it_was() {
    for database in TestDatabase::every().await {
        let node = TestNode::start(database, &Setup::default()).await;
        let alive = node.minted(&["reports:read"]).await;
        let dead = node.minted(&["reports:read"]).await;
        node.revoke(&dead.id).await;
        node.bearer(&alive.secret).get("/v1/reports").await.is(200);
        let gateway = node.gateways[0].clone();
        let node = node.restart(&Setup::default()).await;
        let closed = std::net::TcpStream::connect(gateway.trim_start_matches("http://"));
        assert!(closed.is_err(), "nobody listens at the old address");
        // what was in memory at the stop was written
        assert_eq!(node.record(&alive.id).await["lastUsedAt"], alive.record["createdAt"]);
        node.bearer(&alive.secret).get("/v1/reports").await.is(200);
        node.bearer(&dead.secret).get("/v1/reports").await.refused(401, "unauthorized");
        assert_eq!(node.verify(json!({ "key": dead.secret })).await["code"], "unauthorized");
        node.stop().await;
    }
}

#[tokio::test]
async fn the_internal_listener_tells_health_and_numbers() {
    let node = TestNode::start(TestDatabase::sqlite(), &Setup::default()).await;
    let nobody = node.anonymous().at(&node.internal);
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(nobody.get(path).await.is(200), json!("ok\n"));
    }
    node.key(&["reports:read"]).await.get("/v1/reports").await.is(200);
    let metrics = nobody.get("/metrics").await;
    assert!(metrics.header("content-type").unwrap().contains("openmetrics"));
    assert!(metrics.text.contains("/v1/reports"), "{}", metrics.text);
    assert!(!metrics.text.contains("key_"), "no label grows with the keys: {}", metrics.text);
    nobody.get("/.well-known/jwks.json").await.is(200);
    // and nothing of it is served where the product's callers are
    for address in [&node.gateways[0], &node.control] {
        let got = node.anonymous().at(address).get("/metrics").await;
        assert!(got.status == 401 || got.status == 404, "{}", got.text);
    }
    let mut wire = Wire::connect(&node.control).await;
    wire.write(b"GET /v1/verify HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 404);
    node.stop().await;
}
