//! Nodes of one kind on PostgreSQL, each as the database role of its kind.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use keyward_core::id::NodeId;
use keyward_testkit::TestDatabase;
use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use crate::harness::{Actor, Finished, PROFILE, Process, keyward, migrate_url_file, write_private};

/// Nothing takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// The settings of a deployment whose nodes have database roles of their own.
struct Deployment {
    folder: TempDir,
}

impl Deployment {
    /// On this database, whose roles are made fit.
    async fn new(database: &TestDatabase) -> Self {
        let deployment = Self { folder: TempDir::new().unwrap() };
        let secrets = database.data_dir().join("secrets.toml").display().to_string();
        let made = keyward(&["config", "init", "--secrets-file", &secrets], &[]).await;
        assert_eq!(made.code, 0, "{made:?}");
        let migrate = migrate_url_file(database).unwrap().display().to_string();
        let settings = format!(
            "profile = {PROFILE:?}\ndata-dir = {:?}\n\
             [store]\nmigrate-url-file = {migrate:?}\n\
             [store.roles]\ncontrol = \"keyward_control\"\ngateway = \"keyward_gateway\"\n\
             worker = \"keyward_worker\"\n",
            database.data_dir().display().to_string(),
        );
        write_private(&deployment.folder.path().join("keyward.toml"), &settings);
        let up = deployment.run(database, &["migrate", "up"], "all", "keyward_control").await;
        assert_eq!(up.code, 0, "{up:?}");
        assert!(up.stderr.contains("ran nothing but the rights of the database roles"), "{up:?}");
        deployment
    }

    /// The arguments of a node of these kinds that connects as a role.
    fn arguments(&self, database: &TestDatabase, kinds: &str, role: &str) -> [String; 6] {
        let settings = self.folder.path().join("keyward.toml").display().to_string();
        let url = database.url_of_role(role).unwrap();
        [
            "--config".to_owned(),
            settings,
            "--role".to_owned(),
            kinds.to_owned(),
            "--store-url".to_owned(),
            url,
        ]
    }

    async fn run(
        &self,
        database: &TestDatabase,
        command: &[&str],
        kinds: &str,
        role: &str,
    ) -> Finished {
        let arguments = self.arguments(database, kinds, role);
        let mut all = command.to_vec();
        all.extend(arguments.iter().map(String::as_str));
        keyward(&all, &[]).await
    }

    /// What the doctor says of a node, line by line, and its exit code.
    async fn doctor(&self, database: &TestDatabase, kinds: &str, role: &str) -> (Vec<Value>, i32) {
        let said = self.run(database, &["doctor", "--output", "json"], kinds, role).await;
        let lines: Value =
            serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        (lines["data"].as_array().unwrap().clone(), said.code)
    }
}

fn line<'a>(lines: &'a [Value], check: &str) -> &'a Value {
    lines.iter().find(|line| line["check"] == check).unwrap_or_else(|| panic!("{check}: {lines:?}"))
}

/// The lines about the database role, in their order.
const ABOUT_THE_ROLE: [&str; 16] = [
    "database role",
    "superuser",
    "role attributes",
    "ownership",
    "membership",
    "schema creation",
    "private schema",
    "table rights",
    "row level security",
    "views",
    "materialized views",
    "definer functions",
    "leakproof functions",
    "needed rights",
    "spare rights",
    "context key",
];

#[tokio::test]
async fn the_doctor_shows_each_check_of_the_database_role() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let deployment = Deployment::new(&database).await;
    for (kinds, role, needs) in [
        ("all", "keyward_control", "control"),
        ("gateway,worker", "keyward_control", "control"),
        ("gateway", "keyward_gateway", "gateway"),
        ("worker", "keyward_worker", "worker"),
    ] {
        let (lines, code) = deployment.doctor(&database, kinds, role).await;
        let shown: Vec<_> = lines.iter().map(|line| line["check"].as_str().unwrap()).collect();
        assert!(shown.ends_with(&ABOUT_THE_ROLE), "{shown:?}");
        assert!(lines.iter().all(|line| line["ok"] == true && line["fix"].is_null()), "{lines:?}");
        let found =
            format!("{role}, with the rights of: {needs}; the node needs those of: {needs}");
        assert_eq!(line(&lines, "database role")["found"], found);
        assert_eq!(code, 0);
    }
}

#[tokio::test]
async fn the_doctor_tells_what_is_wrong_and_what_would_be_better() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let deployment = Deployment::new(&database).await;
    let (lines, code) = deployment.doctor(&database, "gateway", "keyward_control").await;
    let advice = line(&lines, "database role")["fix"].as_str().unwrap();
    assert!(advice.contains("[store.roles] gateway = \"keyward_gateway\""), "{advice}");
    assert_eq!(code, 0);

    let (lines, code) = deployment.doctor(&database, "control", "keyward_gateway").await;
    let needed = line(&lines, "needed rights");
    assert_eq!(
        needed["found"],
        "it has the rights of a gateway and this node needs those of a control"
    );
    assert_eq!((needed["ok"].as_bool(), code), (Some(false), 3));
    let refused = deployment.run(&database, &["serve"], "control", "keyward_gateway").await;
    assert_eq!(refused.code, 78, "{refused:?}");
    assert!(refused.stderr.contains("name the control role"), "{refused:?}");

    let meddle = "GRANT SELECT (email) ON users TO keyward_gateway;
        CREATE MATERIALIZED VIEW leak AS SELECT * FROM users;
        CREATE FUNCTION peek() RETURNS BIGINT LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'";
    database.behind(meddle).await;
    let (lines, code) = deployment.doctor(&database, "gateway", "keyward_gateway").await;
    for (check, fix) in [
        ("spare rights", "run `REVOKE SELECT ON keyward.users FROM keyward_gateway, PUBLIC`"),
        ("materialized views", "run `DROP MATERIALIZED VIEW keyward.leak`"),
        ("definer functions", "run `ALTER ROUTINE keyward.peek() SECURITY INVOKER`"),
    ] {
        let line = line(&lines, check);
        assert_eq!((line["ok"].as_bool(), line["fix"].as_str()), (Some(false), Some(fix)));
    }
    assert_eq!(lines.iter().filter(|line| line["ok"] == false).count(), 3);
    assert_eq!(code, 3);
    let table = deployment
        .run(&database, &["doctor", "--output", "table"], "gateway", "keyward_gateway")
        .await;
    assert!(table.stdout.contains("!!  spare rights"), "{}", table.stdout);
}

#[tokio::test]
async fn the_doctor_migrates_nothing() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let deployment = Deployment::new(&database).await;
    let forget =
        "DELETE FROM schema_history WHERE version = (SELECT MAX(version) FROM schema_history);
        REVOKE SELECT ON keyward.nodes FROM keyward_control";
    database.behind(forget).await;
    let history = "SELECT version, applied_at_ms FROM schema_history";
    let before = database.behind(history).await;
    let (lines, code) = deployment.doctor(&database, "all", "keyward_control").await;
    let found = line(&lines, "database")["found"].as_str().unwrap();
    assert!(found.contains("pending: V0"), "{found}");
    assert_eq!(code, 0);
    assert_eq!(database.behind(history).await, before);
    let may = "SELECT has_table_privilege('keyward_control', 'nodes', 'SELECT')";
    assert_eq!(database.behind(may).await, [[Some("f".to_owned())]]);
}

/// A node in a process of its own.
struct Served {
    server: Child,
    home: TempDir,
}

impl Served {
    async fn start(
        deployment: &Deployment,
        database: &TestDatabase,
        kinds: &str,
        role: &str,
    ) -> Self {
        let home = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
        command
            .arg("serve")
            .args(deployment.arguments(database, kinds, role))
            .args(["--control-listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"])
            .args(["--gateway-listener", r#"{ listen = "127.0.0.1:0", environments = ["live"] }"#])
            .args(["--log-format", "json", "--shutdown-drain-delay", "0s"])
            .args(["--internal-verify-from", "127.0.0.1/32"])
            .env_clear()
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stderr(File::create(home.path().join("log")).unwrap())
            .kill_on_drop(true);
        let served = Self { server: command.spawn().unwrap(), home };
        let ready = async {
            let mut look = interval(Duration::from_millis(10));
            while served.ready().is_none() {
                look.tick().await;
            }
        };
        let waited = timeout(PATIENCE, ready).await;
        waited.unwrap_or_else(|_| panic!("never ready: {}", served.log()));
        served
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    fn ready(&self) -> Option<Value> {
        let log = self.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["msg"] == "ready")
    }

    /// The addresses of its gateway and of its internal listener.
    fn addresses(&self) -> (String, String) {
        let ready = self.ready().unwrap();
        let gateway = ready["gateways"].as_str().unwrap().trim_matches(['[', ']']);
        (format!("http://{gateway}"), format!("http://{}", ready["internal"].as_str().unwrap()))
    }

    /// Asks it to stop and gives what it logged.
    async fn stop(mut self) -> String {
        let id = i32::try_from(self.server.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
        let ended = timeout(PATIENCE, self.server.wait()).await.expect("a server that ends");
        assert_eq!(ended.unwrap().code(), Some(0), "{}", self.log());
        self.log()
    }
}

/// A node with every role, and with demo tenants.
async fn control(deployment: &Deployment, database: &TestDatabase) -> Process {
    let arguments = deployment.arguments(database, "all", "keyward_control");
    let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let free = "127.0.0.1:0";
    for listener in
        ["--gateway-listen", "--control-listen", "--internal-listen", "--sandbox-listen"]
    {
        all.extend([listener, free]);
    }
    Process::dev(&all).await
}

#[tokio::test]
async fn a_gateway_does_all_its_work_with_the_rights_of_a_gateway() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let deployment = Deployment::new(&database).await;
    let database = &database;
    let control = control(&deployment, database).await;
    let node = &control.site;
    let gateway = Served::start(&deployment, database, "gateway", "keyward_gateway").await;
    let (at, internal) = gateway.addresses();
    let registered = "SELECT COUNT(*) FROM nodes WHERE roles = 'gateway'";
    assert_eq!(database.number(registered).await, 1);

    // A key that was made after the gateway had loaded all, and a built-in that reads the store.
    let key = node.minted(&["audit:read"]).await;
    let bearer = node.bearer(&key.secret).at(&at);
    let events = bearer.get("/v1/audit/events").await.is(200);
    assert!(!events["data"].as_array().unwrap().is_empty(), "{events}");
    let question = json!({ "key": key.secret });
    let answer = node.operator().at(&internal).post("/v1/verify", question).await.is(200);
    assert_eq!(answer["valid"], true, "{answer}");
    node.operator().at(&internal).get("/readyz").await.is(200);

    node.revoke(&key.id).await;
    bearer.get("/v1/audit/events").await.is(401);

    let log = gateway.stop().await;
    assert!(!log.contains("permission denied"), "{log}");
    assert!(!log.contains("may do everything"), "{log}");
    assert_eq!(database.number(registered).await, 0);
    let noted = format!(
        "SELECT COUNT(*) FROM api_keys WHERE key_id = '{}' AND last_used_at IS NOT NULL",
        key.id
    );
    assert_eq!(database.number(&noted).await, 1);

    let gateway = Served::start(&deployment, database, "gateway", "keyward_control").await;
    assert!(gateway.log().contains("connects as a role that may do everything"));
    gateway.stop().await;
    assert_eq!(control.stop().await.code, 0);
}

#[tokio::test]
async fn a_worker_keeps_house_and_decides_nothing() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let deployment = Deployment::new(&database).await;
    let control = control(&deployment, &database).await;
    let key = control.site.minted(&["audit:read"]).await;
    assert_eq!(control.stop().await.code, 0);
    let gone = NodeId::from_bits(7);
    let left_behind = format!(
        "INSERT INTO nodes VALUES ('{gone}', 'gateway', '0', 1, 0, 1, 0, 0);
        INSERT INTO idempotency_records VALUES ('t', 'p', 'o', 'k', '', NULL, 0, 1)"
    );
    database.behind(&left_behind).await;

    let worker = Served::start(&deployment, &database, "worker", "keyward_worker").await;
    let (_, internal) = worker.addresses();
    let somebody = Actor::new(&Client::builder().no_proxy().build().unwrap(), &internal, None);
    somebody.get("/readyz").await.is(200);
    let refused = somebody.post("/v1/verify", json!({ "key": key.secret })).await;
    assert_eq!(refused.is(503)["error"]["code"], "unavailable");

    let left = "SELECT (SELECT COUNT(*) FROM nodes) + (SELECT COUNT(*) FROM idempotency_records
        WHERE tenant_id = 't')";
    let emptied = async {
        let mut look = interval(Duration::from_millis(100));
        while database.number(left).await > 0 {
            look.tick().await;
        }
    };
    timeout(PATIENCE, emptied).await.unwrap_or_else(|_| panic!("{}", worker.log()));
    let log = worker.stop().await;
    assert!(!log.contains("permission denied") && !log.contains("may do everything"), "{log}");
}
