//! The real binary: a command that ends, or a server that is told to stop.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::site::Site;

/// Nothing takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary with these arguments and settings in the environment.
pub(crate) async fn keyward(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let home = TempDir::new().unwrap();
    let mut command = command(home.path(), arguments);
    command.envs(environment.iter().copied());
    let output = timeout(PATIENCE, command.output()).await.expect("a command that ends").unwrap();
    Finished {
        code: output.status.code().expect("a command that was not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The binary, with nothing of the machine's own settings in its way.
fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A server in a process of its own.
pub(crate) struct Process {
    child: Child,
    home: TempDir,
    pub(crate) site: Site,
}

impl Process {
    /// Starts `keyward dev --json` and waits until it is ready.
    pub(crate) async fn dev(arguments: &[&str]) -> Self {
        let home = TempDir::new().unwrap();
        let stderr = File::create(home.path().join("stderr")).unwrap();
        let mut command = command(home.path(), &[&["dev", "--json"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("a line in time").unwrap();
        let said = || std::fs::read_to_string(home.path().join("stderr")).unwrap();
        let line = line.unwrap_or_else(|| panic!("it ended before it was ready: {}", said()));
        let ready: Value = serde_json::from_str(&line).unwrap();
        Self { child, site: Site::new(&ready), home }
    }

    /// Asks the server to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> Finished {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
        let status = timeout(PATIENCE, self.child.wait()).await.expect("a server that stops");
        Finished {
            code: status.unwrap().code().expect("a server that was not killed"),
            stdout: String::new(),
            stderr: std::fs::read_to_string(self.home.path().join("stderr")).unwrap(),
        }
    }
}
