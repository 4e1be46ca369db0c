//! A private PostgreSQL with the settings of a real one: what it has said to be stored is on disk.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use crate::moment;
use crate::process::{Process, children, lives};

const START_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_millis(20);

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = on
full_page_writes = on
synchronous_commit = on
max_connections = 300
shared_buffers = 128MB
shared_preload_libraries = 'pg_stat_statements'
log_min_messages = warning
jit = off
";

/// Roles and database as `docs/postgresql.md` names them.
const ROLES: [&str; 4] = [
    "CREATE ROLE keyward_owner LOGIN PASSWORD 'fleet'",
    "CREATE ROLE keyward_app LOGIN PASSWORD 'fleet'",
    "CREATE DATABASE keyward OWNER keyward_owner",
    "CREATE EXTENSION pg_stat_statements",
];

/// A server of our own in a folder of its own.
pub(crate) struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    log: PathBuf,
    user: Option<(u32, u32)>,
    pub(crate) port: u16,
    process: Option<Process>,
}

impl Postgres {
    /// Makes the cluster, starts it, and makes roles and database.
    pub(crate) async fn begin(folder: &Path, port: u16) -> anyhow::Result<Self> {
        let programs = programs()?;
        let user = server_user()?;
        let data = folder.join("postgres");
        std::fs::create_dir(&data)?;
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700))?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&data, Some(uid), Some(gid))?;
        }
        let log = folder.join("postgres.log");
        let mut server = Self { programs, data, log, user, port, process: None };
        server.make_cluster().await?;
        server.start().await?;
        let client = server.superuser("postgres").await?;
        for statement in ROLES {
            client.batch_execute(statement).await.with_context(|| statement.to_owned())?;
        }
        Ok(server)
    }

    async fn make_cluster(&self) -> anyhow::Result<()> {
        let mut command = self.command("initdb");
        let data = self.data.to_string_lossy();
        command.args(["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]);
        let output = command.stdin(Stdio::null()).output().await.context("initdb")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "initdb failed: {errors}");
        let settings = self.data.join("postgresql.conf");
        let text = std::fs::read_to_string(&settings)? + SETTINGS;
        std::fs::write(&settings, text)?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.data);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Starts the server and waits until it takes statements.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data).arg("-p").arg(self.port.to_string());
        self.process = Some(Process::start("PostgreSQL", &mut command, &self.log)?);
        let late = moment::now_ns() + moment::ns(START_WITHIN);
        while self.superuser("postgres").await.is_err() {
            let ended = self.process.as_mut().is_none_or(Process::has_ended);
            if ended || moment::now_ns() > late {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("PostgreSQL did not start:\n{log}");
            }
            moment::pause(ASK_AGAIN).await;
        }
        Ok(())
    }

    pub(crate) const fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// A connection past every proxy, with every right.
    pub(crate) async fn superuser(&self, database: &str) -> anyhow::Result<Client> {
        let url = url("postgres", database, self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Kills the server and every one of its processes, without a chance to write anything.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let all = children(process.pid());
        process.kill().await?;
        for pid in &all {
            // gone already, in most cases, since their parent is
            let _ = kill_process(*pid, Signal::KILL);
        }
        let late = moment::now_ns() + moment::ns(STOP_WITHIN);
        while all.iter().any(|pid| lives(*pid)) {
            ensure!(moment::now_ns() < late, "processes of PostgreSQL do not end");
            moment::pause(ASK_AGAIN).await;
        }
        Ok(())
    }

    /// Stops every process of the server where it is, or lets all go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let Some(process) = &self.process else { return };
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        let all: Vec<Pid> = std::iter::once(process.pid()).chain(children(process.pid())).collect();
        for pid in all {
            // a session may have ended in between
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends the server for good.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::CONT)?;
        process.signal(Signal::QUIT)?;
        process.ended(STOP_WITHIN).await.map(|_| ())
    }
}

/// The address of a role, through the port of a proxy or directly.
pub(crate) fn url(role: &str, database: &str, port: u16) -> String {
    format!("postgres://{role}:fleet@127.0.0.1:{port}/{database}")
}

/// The folder with the server's programs, of the latest version that is installed.
fn programs() -> anyhow::Result<PathBuf> {
    let mut found = Vec::new();
    for folder in ["/usr/lib/postgresql", "/usr/local/pgsql", "/usr"] {
        let versions = std::fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(versions.map(|entry| entry.path().join("bin")));
        found.push(PathBuf::from(folder).join("bin"));
    }
    found.retain(|folder| folder.join("initdb").is_file());
    found.sort();
    found.pop().context("PostgreSQL is missing: install the package postgresql")
}

/// Whom the server runs as, since it refuses to run as root.
fn server_user() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let accounts = std::fs::read_to_string("/etc/passwd")?;
    let account = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = account("postgres").or_else(|| account("nobody"));
    Ok(Some(found.context("PostgreSQL needs an account that is not root: postgres or nobody")?))
}
