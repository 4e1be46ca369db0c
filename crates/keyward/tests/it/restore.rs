//! A deployment that goes back to a backup: what was revoked since stays revoked, or waits.

use keyward_testkit::TestDatabase;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio::process::Command;

use crate::harness::{
    Finished, Got, LAGOS_PAY, Minted, Setup, TestNode, keyward, migrate_url_file, write_private,
};

const SCOPES: [&str; 1] = ["reports:read"];

/// Where PostgreSQL's own tools are.
fn tool(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|entry| entry.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

async fn run(command: &mut Command) {
    let ended = command.output().await.expect("a tool of PostgreSQL");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// The ways of a database: how it is backed up and restored, and how the command line is told.
struct Ways {
    settings: Vec<String>,
    superuser: Option<String>,
    backup: PathBuf,
}

impl Ways {
    fn of(database: &TestDatabase) -> Self {
        let folder = database.data_dir().display().to_string();
        let mut settings = vec!["--data-dir".to_owned(), folder];
        settings.extend(["--store-url".to_owned(), database.url()]);
        if let Some(path) = migrate_url_file(database) {
            settings.extend(["--store-migrate-url-file".to_owned(), path.display().to_string()]);
        }
        let backup = database.data_dir().join("the-backup");
        Self { settings, superuser: database.superuser_url(), backup }
    }

    /// Runs `keyward backup …`.
    async fn keyward(&self, words: &[&str]) -> Finished {
        let mut arguments = vec!["backup", "--output", "json"];
        arguments.extend(words);
        arguments.extend(self.settings.iter().map(String::as_str));
        keyward(&arguments, &[]).await
    }

    /// The same with a success and a result.
    async fn told(&self, words: &[&str]) -> Value {
        let ended = self.keyward(words).await;
        assert_eq!(ended.code, 0, "{words:?}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// Makes a backup while the node runs, and answers the epoch it has reached.
    async fn back_up(&self) -> u64 {
        let backup = self.backup.to_str().unwrap();
        let told = match &self.superuser {
            None => {
                self.told(&["create", backup]).await;
                self.told(&["verify", backup]).await
            }
            Some(url) => {
                let told = self.told(&["verify"]).await;
                let mut dump = Command::new(tool("pg_dump"));
                run(dump.args(["-Fc", "-d", url, "-f", backup])).await;
                told
            }
        };
        assert_eq!(told["brokenChains"], json!([]));
        assert!(told["auditEvents"].as_u64().unwrap() > 0);
        told["epoch"].as_u64().unwrap()
    }

    /// Goes back to the backup, with the node stopped.
    async fn restore(&self, means: &[&str]) -> Value {
        let backup = self.backup.to_str().unwrap();
        let Some(url) = &self.superuser else {
            return self.told(&[&["restore", backup, "--yes"], means].concat()).await;
        };
        let mut restore = Command::new(tool("pg_restore"));
        restore.args(["--clean", "--if-exists", "--single-transaction", "-d", url, backup]);
        run(&mut restore).await;
        let told = self.told(&["verify"]).await;
        assert_eq!((&told["grants"], &told["brokenChains"]), (&json!("fit"), &json!([])));
        self.told(&[&["restored"], means].concat()).await
    }
}

/// Two keys, a backup, and one of the keys revoked after it.
struct Scene {
    ways: Ways,
    kept: Minted,
    revoked: Minted,
    since: u64,
}

impl Scene {
    async fn set(node: &TestNode) -> Self {
        let ways = Ways::of(&node.database);
        let (kept, revoked) = (node.minted(&SCOPES).await, node.minted(&SCOPES).await);
        let since = ways.back_up().await;
        node.revoke(&revoked.id).await;
        node.bearer(&revoked.secret).get("/v1/reports").await.refused(401, "unauthorized");
        node.bearer(&kept.secret).get("/v1/reports").await.is(200);
        Self { ways, kept, revoked, since }
    }

    fn since(&self) -> String {
        self.since.to_string()
    }
}

/// Stops the node, goes back to the backup, and starts another one.
async fn back(node: TestNode, ways: &Ways, means: &[&str]) -> (TestNode, Value) {
    let (database, clock) = node.stop().await;
    let told = ways.restore(means).await;
    let node = TestNode::start_at(database, &Setup::default(), clock).await;
    (node, told)
}

async fn reason(node: &TestNode, key: &Minted) -> String {
    let refused = node.bearer(&key.secret).get("/v1/reports").await;
    let error = refused.refused(401, "unauthorized");
    assert_eq!(error["details"]["failed"], "state");
    error["details"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_revoked_after_the_backup_stays_revoked_when_the_log_is_there() {
    for database in TestDatabase::every().await {
        let node = TestNode::start(database, &Setup::default()).await;
        let scene = Scene::set(&node).await;
        let log = node.database.data_dir().join("revoked.log");
        let log = log.to_str().unwrap();
        let export = ["revocations", "--since", &scene.since(), "--out", log];
        let told = scene.ways.told(&export).await;
        assert!(told["entries"].as_u64().unwrap() > 0, "{told}");
        let again = scene.ways.keyward(&export).await;
        assert!(again.stderr.contains("exists already"), "{}", again.stderr);
        if scene.ways.superuser.is_none() {
            let backup = scene.ways.backup.to_str().unwrap();
            let refused = scene.ways.keyward(&["restore", backup, "--yes"]).await;
            assert_eq!(refused.code, 78, "{}", refused.stderr);
            assert!(refused.stderr.contains("in use by process"), "{}", refused.stderr);
        }

        let (node, told) = back(node, &scene.ways, &["--revocations", log]).await;
        assert_eq!((&told["keysRevoked"], &told["keysSuspected"]), (&json!(1), &json!(0)));
        assert_eq!(reason(&node, &scene.revoked).await, "revoked");
        node.bearer(&scene.kept.secret).get("/v1/reports").await.is(200);
        let audit = node.audit(LAGOS_PAY, "?action=api_key.revoked").await;
        assert_eq!(audit[0]["actor"]["name"], json!(restorer(&scene.ways)));
        let path = node.path(LAGOS_PAY, "/audit-events/verify");
        assert_eq!(node.operator().get(&path).await.is(200)["valid"], true);
        node.stop().await;
    }
}

fn restorer(ways: &Ways) -> &'static str {
    match ways.superuser {
        None => "keyward backup restore",
        Some(_) => "keyward backup restored",
    }
}

#[tokio::test]
async fn without_the_log_every_key_waits_until_it_is_confirmed() {
    for database in TestDatabase::every().await {
        let node = TestNode::start(database, &Setup::default()).await;
        let scene = Scene::set(&node).await;
        let (node, told) = back(node, &scene.ways, &[]).await;
        assert!(told["keysSuspected"].as_u64().unwrap() >= 2, "{told}");
        for key in [&scene.kept, &scene.revoked] {
            assert_eq!(reason(&node, key).await, "suspect");
        }
        let record = node.record(&scene.kept.id).await;
        assert_eq!(record["state"], "active");
        assert!(record["suspectSince"].is_string());
        let verdict = node.verify(json!({ "key": scene.kept.secret })).await;
        assert_eq!((&verdict["code"], &verdict["suspect"]), (&json!("unauthorized"), &json!(true)));
        let call = json!({ "method": "GET", "path": "/v1/reports" });
        let path = node.key_path(&scene.kept.id, "/explain");
        let explained = node.operator().post(&path, call).await.is(200);
        assert_eq!(explained["suspectSince"], record["suspectSince"]);
        assert_eq!((&explained["allowed"], &explained["failed"]), (&json!(false), &json!("state")));
        let suspects = node.operator().all(&node.path(LAGOS_PAY, "/keys?suspect=true")).await;
        assert!(suspects.iter().any(|key| key["id"] == scene.kept.id.as_str()));

        confirm(&node, &["confirm", &scene.kept.id]).await;
        node.bearer(&scene.kept.secret).get("/v1/reports").await.is(200);
        assert_eq!(reason(&node, &scene.revoked).await, "suspect");
        let again = node.key_path(&scene.kept.id, "/confirm");
        node.operator().send("POST".parse().unwrap(), &again, None).await.refused(409, "conflict");
        // one that nobody trusts is revoked, and one that is rotated has a replacement at once
        let others = json!({ "overlapSeconds": 60 });
        let path = node.key_path(&scene.revoked.id, "/rotate");
        let rotated = fenced(&node.operator().post(&path, others).await);
        node.bearer(rotated["secret"].as_str().unwrap()).get("/v1/reports").await.is(200);
        assert_eq!(rotated["key"]["suspectSince"], Value::Null);
        let path = node.key_path(&scene.revoked.id, "/revoke");
        fenced(&node.operator().post(&path, json!({ "reason": "leaked" })).await);
        assert_eq!(reason(&node, &scene.revoked).await, "revoked");
        let told = confirm(&node, &["confirm", "--all", "--yes"]).await;
        assert!(told["confirmed"].as_u64().unwrap() > 0, "{told}");
        assert_eq!(told["remaining"], 0);
        let audit = node.audit(LAGOS_PAY, "?action=tenant.keys_confirmed").await;
        assert!(!audit[0]["details"]["keyIds"].as_array().unwrap().is_empty());
        node.stop().await;
    }
}

/// The body of a success. The backup holds the register of the nodes that ran when it was made, so
/// that a fenced write after a restore may wait for one that is no more.
fn fenced(got: &Got) -> Value {
    assert!(matches!(got.status, 200..=202), "{}: {}", got.status, got.text);
    serde_json::from_str(&got.text).unwrap()
}

/// Runs `keyward key …` as the operator.
async fn confirm(node: &TestNode, words: &[&str]) -> Value {
    let token = node.database.data_dir().join("operator-token");
    write_private(&token, node.operator().secret());
    let mut arguments = vec!["key", "--output", "json", "--tenant", LAGOS_PAY];
    arguments.extend(["--url", &node.control, "--token-file", token.to_str().unwrap()]);
    arguments.extend(words);
    let ended = keyward(&arguments, &[]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Makes a log longer than the header says, as somebody would who wants a key to live.
fn spoil(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap();
    let without: Vec<_> = text.lines().filter(|line| !line.contains("\"leaked\"")).collect();
    assert!(without.len() < text.lines().count());
    std::fs::write(log, without.join("\n") + "\n").unwrap();
}

#[tokio::test]
async fn a_log_that_was_changed_or_is_older_is_refused_and_nothing_is_replaced() {
    let node = TestNode::start(TestDatabase::sqlite(), &Setup::default()).await;
    let scene = Scene::set(&node).await;
    let backup = scene.ways.backup.to_str().unwrap().to_owned();
    let file = |name| node.database.data_dir().join(name);
    let (spoiled, short) = (file("spoiled"), file("short"));
    for log in [&spoiled, &short] {
        let since = scene.since();
        let words = ["revocations", "--since", &since, "--out", log.to_str().unwrap()];
        scene.ways.told(&words).await;
    }
    spoil(&spoiled);
    // one more key is revoked after the export
    node.revoke(&scene.kept.id).await;
    let (database, clock) = node.stop().await;
    let before = database.number("SELECT epoch FROM authority").await;
    for (log, words) in [(spoiled, "its sum does not fit"), (short, "would work again")] {
        let log = log.to_str().unwrap();
        let means = ["restore", &backup, "--yes", "--revocations", log];
        let refused = scene.ways.keyward(&means).await;
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    for words in [
        vec!["restore", &backup],
        vec!["restore", &backup, "--yes", "--accept-all"],
        vec!["restore", &backup, "--yes", "--i-know-revoked-keys-live-again"],
        vec!["restored"],
    ] {
        assert_eq!(scene.ways.keyward(&words).await.code, 2, "{words:?}");
    }
    assert_eq!(database.number("SELECT epoch FROM authority").await, before);

    // whoever insists may have it, and the audit trail says so
    let accept = ["--accept-all", "--i-know-revoked-keys-live-again"];
    let told = scene.ways.restore(&accept).await;
    assert_eq!((&told["keysSuspected"], &told["keysRevoked"]), (&json!(0), &json!(0)));
    assert!(told["epoch"].as_i64().unwrap() >= before, "{told}");
    let node = TestNode::start_at(database, &Setup::default(), clock).await;
    for key in [&scene.kept, &scene.revoked] {
        node.bearer(&key.secret).get("/v1/reports").await.is(200);
    }
    let said = "SELECT COUNT(*) FROM audit_events WHERE action = 'deployment.restored'";
    assert_eq!(node.database.number(said).await, 1);
    node.stop().await;
}

#[tokio::test]
async fn the_log_is_exported_over_the_api_part_by_part() {
    for database in TestDatabase::every().await {
        let node = TestNode::start(database, &Setup::default()).await;
        let scene = Scene::set(&node).await;
        let mut found = Vec::new();
        let mut after = Some(scene.since);
        while let Some(epoch) = after {
            let path = format!("/v1/revocations?after={epoch}&limit=1");
            let part = node.operator().get(&path).await.is(200);
            found.extend(part["data"].as_array().unwrap().clone());
            after = part["nextAfter"].as_u64();
        }
        let revoked = found.iter().find(|entry| entry["key"]["keyId"] == scene.revoked.id.as_str());
        let key = &revoked.expect("the key that was revoked")["key"];
        assert!(key["revokedAt"].is_string());
        assert!(!key.to_string().contains("hash"));
        let refused = node.operator().get("/v1/revocations?limit=1001").await;
        refused.refused(422, "validation_failed");

        let token = node.database.data_dir().join("operator-token");
        write_private(&token, node.operator().secret());
        let log = node.database.data_dir().join("remote.log");
        let mut arguments = vec!["revocations", "--output", "json", "--url", &node.control];
        arguments.extend(["--token-file", token.to_str().unwrap()]);
        arguments.extend(["export", "--out", log.to_str().unwrap()]);
        let ended = keyward(&arguments, &[]).await;
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains(&scene.revoked.id));
        assert!(!text.contains(&scene.revoked.secret) && !text.contains(&scene.kept.secret));
        node.stop().await;
    }
}
