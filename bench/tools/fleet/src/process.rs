//! Processes that this program starts, signals by their id, and ends.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// A child of this process. It is killed when dropped.
pub(crate) struct Process {
    name: String,
    pid: Pid,
    child: Child,
}

impl Process {
    /// Starts a program whose output goes to the end of a file.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let output = append(log)?;
        let errors = output.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = id.with_context(|| format!("{name} ended at once"))?;
        Ok(Self { name: name.to_owned(), pid, child })
    }

    pub(crate) const fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal, unless the process has been waited for already.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        if self.child.id().is_none() {
            return Ok(());
        }
        kill_process(self.pid, signal).with_context(|| format!("{} cannot be signalled", self.name))
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let status = timeout(within, self.child.wait()).await;
        Ok(status.with_context(|| format!("{} did not end within {within:?}", self.name))??)
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.ended(GONE_WITHIN).await.map(|_| ())
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

/// The processes that a process has started and that live.
pub(crate) fn children(of: Pid) -> Vec<Pid> {
    let id = of.as_raw_nonzero();
    let path = PathBuf::from(format!("/proc/{id}/task/{id}/children"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

/// Whether a process exists that is not merely waited for.
pub(crate) fn lives(pid: Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn append(log: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(log);
    file.with_context(|| format!("cannot write {}", log.display()))
}
