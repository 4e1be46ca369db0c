//! PgBouncer in transaction mode before a test database: few servers, many callers.

use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::config::Host;
use tokio_postgres::{Config, NoTls};

use crate::database::TestDatabase;
use crate::server_process::{find_program, free_port};

/// Ports that may turn out to be taken.
const PORTS_TRIED: usize = 10;

/// The pause between two looks whether it is up.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// One PgBouncer before one database. Dropping it ends it.
pub struct PgBouncer {
    process: Child,
    url: String,
    _folder: TempDir,
}

impl PgBouncer {
    /// Connections that it keeps to the server.
    pub const SERVERS: usize = 3;

    /// Starts one, with more lines of settings, or nothing when it is not installed: the test is
    /// then skipped aloud, or fails where `CI=true`.
    pub async fn before(database: &TestDatabase, more: &str) -> Option<Self> {
        let program = find_program("pgbouncer", "apt-get install -y pgbouncer")?;
        for _ in 0..PORTS_TRIED {
            let mut folder = tempfile::Builder::new();
            // the program reads it as somebody else than root
            folder.prefix("keyward-pgbouncer-").permissions(Permissions::from_mode(0o755));
            let folder = folder.tempdir().expect("a temporary folder");
            let port = free_port();
            let settings = settings(&database.url(), folder.path(), port, more);
            let process = start(&program, &settings);
            let url = through(&database.url(), port);
            let mut bouncer = Self { process, url, _folder: folder };
            if bouncer.is_up().await {
                return Some(bouncer);
            }
            // somebody else may have taken the port meanwhile
            let log = settings.with_file_name("log");
            eprintln!("{}", std::fs::read_to_string(log).unwrap_or_default());
        }
        panic!("PgBouncer does not start");
    }

    /// The application's address, through the pooler.
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn is_up(&mut self) -> bool {
        while self.process.try_wait().expect("a child process").is_none() {
            if tokio_postgres::connect(&self.url, NoTls).await.is_ok() {
                return true;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, std::future::pending::<()>()).await;
        }
        false
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The same address at the pooler's port.
fn through(direct: &str, port: u16) -> String {
    let (role, place) = direct.rsplit_once('@').expect("an address with a role");
    let (_, name) = place.split_once('/').expect("an address with a database");
    format!("{role}@127.0.0.1:{port}/{name}")
}

/// Writes the settings and tells where they are. Each transaction gets another server than the one
/// before, which is the worst case for what is bound to a server.
fn settings(direct: &str, folder: &Path, port: u16, more: &str) -> PathBuf {
    let direct: Config = direct.parse().expect("a PostgreSQL address");
    let host = match direct.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => "127.0.0.1".to_owned(),
    };
    let server = direct.get_ports().first().copied().unwrap_or(5432);
    let user = direct.get_user().unwrap_or_default();
    let password = String::from_utf8_lossy(direct.get_password().unwrap_or_default());
    let users = folder.join("users.txt");
    let mut text = format!("[databases]\n* = host={host} port={server}\n[pgbouncer]\n");
    for setting in [
        "listen_addr = 127.0.0.1",
        "unix_socket_dir =",
        "auth_type = trust",
        "pool_mode = transaction",
        "server_round_robin = 1",
        more,
    ] {
        text += setting;
        text += "\n";
    }
    let written = writeln!(
        text,
        "listen_port = {port}\nauth_file = {}\ndefault_pool_size = {servers}\n\
         max_db_connections = {servers}",
        users.display(),
        servers = PgBouncer::SERVERS,
    );
    written.expect("a string takes every text");
    let path = folder.join("pgbouncer.ini");
    std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).expect("the pooler's users");
    std::fs::write(&path, text).expect("the pooler's settings");
    path
}

/// It refuses to run as root, and can change to somebody else by itself.
fn start(program: &Path, settings: &Path) -> Child {
    let log = File::create(settings.with_file_name("log")).expect("the pooler's log");
    let mut command = Command::new(program);
    if settings.metadata().is_ok_and(|about| about.uid() == 0) {
        command.args(["-u", "nobody"]);
    }
    let command = command.arg(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("PgBouncer starts")
}
