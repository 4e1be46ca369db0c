//! The real server under a service manager: what it tells it, and what it does on signals.

use std::fs::File;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::process::Stdio;
use std::time::Duration;

use keyward_testkit::TestDatabase;
use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use crate::harness::{Actor, PROFILE, keyward, migrate_url_file};

/// Nothing takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_mins(1);
/// Told to stop again, it ends what it was doing.
const CUT: i32 = 130;
/// Something it needs is taken.
const UNAVAILABLE: i32 = 69;
/// The largest message of the protocol that the server sends.
const MAX_MESSAGE: usize = 512;

/// A server, and the service manager that it was started by.
pub(crate) struct Supervised {
    server: Child,
    manager: UnixDatagram,
    home: TempDir,
    _database: TestDatabase,
}

impl Supervised {
    /// Starts `keyward serve` with these variables; the manager listens on a path, or under an
    /// abstract name.
    pub(crate) fn start(
        abstract_name: bool,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let (database, home) = (TestDatabase::sqlite(), TempDir::new().unwrap());
        let path = home.path().join("notify").display().to_string();
        let (address, name) = if abstract_name {
            (SocketAddr::from_abstract_name(&path).unwrap(), format!("@{path}"))
        } else {
            (SocketAddr::from_pathname(&path).unwrap(), path)
        };
        let manager = StdDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        let data_dir = database.data_dir().display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
        command
            .args(["serve", "--profile", PROFILE, "--data-dir", &data_dir])
            .args(["--control-listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"])
            .args(["--gateway-listener", r#"{ listen = "127.0.0.1:0", environments = ["live"] }"#])
            .args(["--log-format", "json"])
            .args(arguments)
            .env_clear()
            .env("NOTIFY_SOCKET", name)
            .envs(variables.iter().copied())
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stderr(File::create(home.path().join("log")).unwrap())
            .kill_on_drop(true);
        let server = command.spawn().unwrap();
        let manager = UnixDatagram::from_std(manager).unwrap();
        Self { server, manager, home, _database: database }
    }

    /// Waits for a message that holds this line, and gives all lines of it.
    pub(crate) async fn told(&self, line: &str) -> Vec<String> {
        let waiting = async {
            let mut buffer = [0; MAX_MESSAGE];
            loop {
                let length = self.manager.recv(&mut buffer).await.unwrap();
                let text = str::from_utf8(&buffer[..length]).unwrap();
                if text.lines().any(|told| told == line) {
                    return text.lines().map(str::to_owned).collect();
                }
            }
        };
        let told = timeout(PATIENCE, waiting).await;
        told.unwrap_or_else(|_| panic!("never told {line}: {}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// What it said of itself when it was ready.
    pub(crate) fn ready(&self) -> Value {
        let log = self.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["msg"] == "ready").expect("a line that says ready")
    }

    /// Somebody without a token, at the internal listener.
    fn internal(&self) -> Actor {
        let base = format!("http://{}", self.ready()["internal"].as_str().unwrap());
        Actor::new(&Client::builder().no_proxy().build().unwrap(), &base, None)
    }

    /// Waits until the log says this.
    pub(crate) async fn logged(&self, text: &str) {
        let waiting = async {
            let mut look = interval(Duration::from_millis(10));
            while !self.log().contains(text) {
                look.tick().await;
            }
        };
        let found = timeout(PATIENCE, waiting).await;
        found.unwrap_or_else(|_| panic!("{text} is not in {}", self.log()));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.server.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    pub(crate) async fn code(mut self) -> i32 {
        let ended = timeout(PATIENCE, self.server.wait()).await.expect("a server that ends");
        ended.unwrap().code().unwrap_or_else(|| panic!("it was killed: {}", self.log()))
    }
}

#[tokio::test]
async fn a_service_manager_is_told_of_every_step() {
    for abstract_name in [false, true] {
        let watchdog = [("WATCHDOG_USEC", "200000")];
        let arguments = ["--shutdown-drain-delay", "0s"];
        let server = Supervised::start(abstract_name, &arguments, &watchdog);
        server.told("STATUS=starting: opening the database").await;
        server.told("STATUS=starting: loading the keys").await;
        assert_eq!(server.told("READY=1").await, ["READY=1", "STATUS=serving"]);
        server.internal().get("/readyz").await.is(200);
        for _ in 0..3 {
            let told = server.told("WATCHDOG=1").await;
            assert_eq!(told, ["WATCHDOG=1", "STATUS=serving"]);
        }
        server.signal(Signal::TERM);
        server.told("STOPPING=1").await;
        assert_eq!(server.code().await, 0);
    }
}

#[tokio::test]
async fn a_watchdog_of_another_process_is_left_alone() {
    let variables = [("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")];
    let server = Supervised::start(false, &["--shutdown-drain-delay", "0s"], &variables);
    server.told("READY=1").await;
    assert_eq!(server.told("STATUS=serving").await, ["STATUS=serving"]);
    server.signal(Signal::TERM);
    assert_eq!(server.code().await, 0);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_says_so_before_it_closes() {
    let server = Supervised::start(false, &["--shutdown-drain-delay", "1m"], &[]);
    server.told("READY=1").await;
    let internal = server.internal();
    internal.get("/readyz").await.is(200);
    server.signal(Signal::TERM);
    server.told("STOPPING=1").await;
    let told = internal.get("/readyz").await;
    assert_eq!((told.status, told.text.as_str()), (503, "draining\n"));
    // callers go elsewhere with their next request, and this one was still answered
    assert_eq!(told.header("connection"), Some("close"));
    internal.get("/livez").await.is(200);
    // whoever asks again has no time
    server.signal(Signal::INT);
    assert_eq!(server.code().await, CUT);
}

#[tokio::test]
async fn a_hangup_ends_nothing() {
    let server = Supervised::start(false, &["--shutdown-drain-delay", "0s"], &[]);
    server.told("READY=1").await;
    server.signal(Signal::HUP);
    server.logged("other settings are read at the start").await;
    server.internal().get("/readyz").await.is(200);
    server.signal(Signal::INT);
    assert_eq!(server.code().await, 0);
}

#[tokio::test]
async fn a_service_manager_that_does_not_listen_is_no_reason_to_stop() {
    let variables = [("NOTIFY_SOCKET", "/nowhere/notify"), ("WATCHDOG_USEC", "100000")];
    let server = Supervised::start(false, &["--shutdown-drain-delay", "0s"], &variables);
    server.logged("\"ready\"").await;
    server.logged("the service manager was not told").await;
    server.signal(Signal::TERM);
    assert_eq!(server.code().await, 0);
}

#[tokio::test]
async fn a_node_that_cannot_listen_is_waited_for_by_nobody() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let (url, data_dir) = (database.url(), database.data_dir().display().to_string());
    let migrate_url = migrate_url_file(&database).unwrap().display().to_string();
    let arguments = [
        &["serve", "--profile", PROFILE, "--data-dir", &data_dir, "--store-url", &url][..],
        &["--store-migrate-url-file", &migrate_url, "--internal-listen", "127.0.0.1:0"],
        &["--control-listen", &taken],
    ];
    let ended = keyward(&arguments.concat(), &[]).await;
    assert_eq!(ended.code, UNAVAILABLE, "{}", ended.stderr);
    assert!(ended.stderr.contains(&taken), "{}", ended.stderr);
    let registered = database.behind("SELECT node_id FROM nodes").await;
    assert!(registered.is_empty(), "{registered:?}");
}
