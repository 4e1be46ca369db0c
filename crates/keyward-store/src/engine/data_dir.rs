//! The folder of a database that is a file: private, and held by one process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use super::StoreError;

/// The file whose lock says that a process has the database open.
const LOCK_FILE: &str = "keyward.lock";

/// Read of the lock file for the message, in bytes; a process id is shorter.
const HOLDER_BYTES: u64 = 32;

/// How often a folder that somebody holds is tried again, and the pause between two attempts: a
/// process that is ending, or a node that was stopped in this one, lets go of it in a moment.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// The exclusive hold on the folder of a database, for as long as the value lives.
pub(super) struct DataDirLock {
    _file: File,
    /// Dropped behind the file: never sent on, and closed once the folder is free.
    held: watch::Sender<()>,
}

impl DataDirLock {
    /// Makes the folder (mode 0700) and the database file (mode 0600) when they are missing, and
    /// takes the folder for this process. Blocks for up to a second while somebody else has it.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let folder = match database.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => Path::new("/"),
        };
        let failed = |error: std::io::Error| {
            StoreError::Unavailable(format!("the data directory {}: {error}", folder.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        if folder.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(StoreError::Refused(format!(
                "the data directory {0} is open to other users: run `chmod 700 {0}`",
                folder.display()
            )));
        }
        let mut private = OpenOptions::new();
        private.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = private.open(folder.join(LOCK_FILE)).map_err(failed)?;
        if let Err(error) = lock(&file) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(error.into()));
            }
            let mut holder = String::new();
            let _ = file.take(HOLDER_BYTES).read_to_string(&mut holder);
            return Err(StoreError::Refused(format!(
                "the data directory {} is in use by process {}: stop it, or talk to it over HTTP",
                folder.display(),
                if holder.is_empty() { "(unknown)" } else { holder.trim() },
            )));
        }
        private.open(database).map_err(failed)?;
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file, held: watch::Sender::new(()) })
    }

    /// Ready once the folder is free for another process.
    pub(super) fn released(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut held = self.held.subscribe();
        async move {
            // nothing is ever sent: this waits for the sender's end
            let _ = held.changed().await;
        }
    }
}

fn lock(file: &File) -> rustix::io::Result<()> {
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    for _ in 1..ATTEMPTS {
        match rustix::fs::flock(file, exclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::park_timeout(PAUSE),
            locked => return locked,
        }
    }
    rustix::fs::flock(file, exclusive)
}
