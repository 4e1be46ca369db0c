//! Work on a database that is not opened as a store: its schema, a copy of it, a copy put back.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyward_core::time::Timestamp;

use super::data_dir::DataDirLock;
use super::migrate::{self, Migration};
use super::postgres_session::Address;
use super::sqlite::blocking;
use super::sqlite_backup::unwritable;
use super::{
    BackupReport, ContextKey, Listen, Pooler, StoreConfig, StoreError, StoreLimits, StoreRoles,
    postgres_schema, sqlite_backup,
};

/// The database in a staging folder.
const STAGED: &str = "keyward.db";

/// The schema of a database beside what this binary knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    /// The version of the last migration it ran; 0 for a new database.
    pub version: u32,
    /// The names of the migrations that opening it would run, oldest first.
    pub pending: Vec<&'static str>,
}

/// Looks at the schema of a database. Nothing is changed, and a running server is not disturbed.
///
/// # Errors
/// [`StoreError::NewerSchema`], [`StoreError::Refused`] for a foreign or edited history, and
/// [`StoreError::Unavailable`].
pub async fn schema_status(config: &StoreConfig) -> Result<SchemaStatus, StoreError> {
    let known = &config.migrations;
    let (applied, pending) = if let Some(path) = config.url.strip_prefix("sqlite:") {
        let path = config.data_dir.join(path);
        let applied = blocking(move || match path.try_exists() {
            Ok(false) => Ok(Vec::new()),
            _ => sqlite_backup::history(&sqlite_backup::read_only(&path)?),
        });
        let applied = applied.await?;
        let pending = migrate::plan(known, |migration: &Migration| migration.sqlite, &applied)?;
        (applied, pending)
    } else {
        let url = config.migrate_url.as_ref().unwrap_or(&config.url);
        let (client, _) = Address::parse(url, &config.limits)?.connect().await?;
        let applied = postgres_schema::history(&client).await?;
        let pending = migrate::plan(known, |migration: &Migration| migration.postgres, &applied)?;
        (applied, pending)
    };
    Ok(SchemaStatus {
        version: migrate::version_of(&applied),
        pending: pending.iter().map(|migration| migration.name).collect(),
    })
}

/// Copies a SQLite database, as of one instant, to a file that must not exist yet, and writes its
/// sum beside it. A server may have it open meanwhile.
///
/// # Errors
/// [`StoreError::Refused`] when the file exists, when there is no database, and on PostgreSQL.
pub async fn back_up(config: &StoreConfig, to: &Path) -> Result<(), StoreError> {
    let (from, to) = (database_of(config)?, to.to_owned());
    let wait = config.limits.lock;
    blocking(move || {
        if !from.is_file() {
            let text = format!("there is no database {}", from.display());
            return Err(StoreError::Refused(text));
        }
        sqlite_backup::copy(&from, &to, wait)?;
        sqlite_backup::write_sum(&to)
    })
    .await
}

/// A verified backup in a folder of its own beside the SQLite database whose place it is to take.
/// The database is held for as long as this lives; dropped before [`Staged::put_in_place`], it
/// leaves the database as it was.
pub struct Staged {
    database: PathBuf,
    folder: PathBuf,
    backup: BackupReport,
    replaced: Option<Reached>,
    aside: PathBuf,
    wait: Duration,
    _lock: DataDirLock,
}

/// How far an authority has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The newest change.
    pub epoch: i64,
    /// Which history the epochs belong to.
    pub incarnation: i64,
}

/// What a restore has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The backup that is the database now.
    pub backup: BackupReport,
    /// Where the database that was there before is kept.
    pub replaced: Option<PathBuf>,
}

impl Staged {
    /// Verifies a backup and copies it into the staging folder, where it can be opened as a store
    /// and changed before anybody decides from it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the backup is damaged, a server has the data directory, or the
    /// store is on PostgreSQL; [`StoreError::NewerSchema`].
    pub async fn begin(config: &StoreConfig, from: &Path) -> Result<Self, StoreError> {
        let database = database_of(config)?;
        let backup = usable(config, from).await?;
        let (from, wait) = (from.to_owned(), config.limits.lock);
        let aside = format!("{}.replaced-{}", database.display(), config.now.as_millis());
        blocking(move || {
            let held = database.metadata().is_ok_and(|about| about.len() > 0);
            let lock = DataDirLock::take(&database)?;
            let folder = with_suffix(&database, ".restoring");
            clear(&folder)?;
            make_private(&folder)?;
            sqlite_backup::copy(&from, &folder.join(STAGED), wait)?;
            // one that cannot be read any more is a reason for a restore, not against it
            let reached = || sqlite_backup::reached(&sqlite_backup::read_only(&database)?);
            let replaced = if held { reached().ok() } else { None };
            let aside = PathBuf::from(aside);
            Ok(Self { database, folder, backup, replaced, aside, wait, _lock: lock })
        })
        .await
    }

    /// Points a configuration at the staged copy.
    pub fn point(&self, config: &mut StoreConfig) {
        config.url = format!("sqlite:{STAGED}").into();
        config.data_dir.clone_from(&self.folder);
    }

    /// How far the database has come that will be replaced, if there is one that can be read.
    pub const fn replaced(&self) -> Option<Reached> {
        self.replaced
    }

    /// Puts the staged copy, which no process has open, in the place of the database. What was
    /// there is kept beside it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::StorageFull`]; the database is as it was then.
    pub async fn put_in_place(self) -> Result<Restored, StoreError> {
        blocking(move || {
            let fresh = self.folder.join("whole.db");
            sqlite_backup::copy(&self.folder.join(STAGED), &fresh, self.wait)?;
            let existed = self.database.metadata().is_ok_and(|about| about.len() > 0);
            if existed {
                self.keep_replaced()?;
            }
            exchange(&self.database, &fresh).map_err(|error| unwritable(&self.database, &error))?;
            let replaced = existed.then(|| self.aside.clone());
            Ok(Restored { backup: self.backup, replaced })
        })
        .await
    }

    /// Whole, as its side log is part of it; or file by file, when SQLite cannot read it any more.
    fn keep_replaced(&self) -> Result<(), StoreError> {
        let copied = sqlite_backup::copy(&self.database, &self.aside, self.wait);
        if matches!(copied, Ok(()) | Err(StoreError::Refused(_) | StoreError::StorageFull(_))) {
            return copied;
        }
        for suffix in ["", "-wal"] {
            let from = with_suffix(&self.database, suffix);
            let to = with_suffix(&self.aside, suffix);
            match std::fs::copy(&from, &to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(unwritable(&to, &error)),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.folder) {
            tracing::warn!(%error, "the folder of a restore stays");
        }
    }
}

/// Copies a backup into a private folder of its own, and answers what to open the copy with.
///
/// # Errors
/// [`StoreError::Refused`] when it is damaged, [`StoreError::NewerSchema`], and
/// [`StoreError::Unavailable`] when the folder cannot be made.
pub async fn unpack_backup(
    from: &Path,
    folder: &Path,
    known: Vec<Migration>,
    now: Timestamp,
) -> Result<(StoreConfig, BackupReport), StoreError> {
    let config = config_of(folder, known, now);
    let backup = usable(&config, from).await?;
    fill(from.to_owned(), &config).await?;
    Ok((config, backup))
}

/// Copies a SQLite database, which a server may have open, into a private folder of its own, and
/// answers what to open the copy with.
///
/// # Errors
/// [`StoreError::Refused`] on PostgreSQL, where there is no need to, and
/// [`StoreError::Unavailable`].
pub async fn snapshot(config: &StoreConfig, folder: &Path) -> Result<StoreConfig, StoreError> {
    let copy = config_of(folder, config.migrations.clone(), config.now);
    fill(database_of(config)?, &copy).await?;
    Ok(copy)
}

async fn fill(from: PathBuf, copy: &StoreConfig) -> Result<(), StoreError> {
    let (folder, wait) = (copy.data_dir.clone(), copy.limits.lock);
    blocking(move || {
        clear(&folder)?;
        make_private(&folder)?;
        sqlite_backup::copy(&from, &folder.join(STAGED), wait)
    })
    .await
}

/// What to open a copy with. SQLite signs no contexts, so it needs no secret.
fn config_of(folder: &Path, migrations: Vec<Migration>, now: Timestamp) -> StoreConfig {
    StoreConfig {
        url: format!("sqlite:{STAGED}").into(),
        migrate_url: None,
        data_dir: folder.to_owned(),
        context_key: ContextKey::new([0; ContextKey::LEN]),
        migrations,
        now,
        roles: StoreRoles::default(),
        pooler: Pooler::None,
        listen: Listen::Off,
        limits: StoreLimits::default(),
    }
}

/// Verifies a backup, also that this binary knows its schema.
async fn usable(config: &StoreConfig, from: &Path) -> Result<BackupReport, StoreError> {
    let backup = sqlite_backup::verify(from.to_owned()).await?;
    match config.migrations.last().map_or(Ok(0), Migration::version)? {
        known if backup.schema > known => {
            Err(StoreError::NewerSchema { found: backup.schema, known })
        }
        _ => Ok(backup),
    }
}

fn clear(folder: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(unwritable(folder, &error))
        }
        _ => Ok(()),
    }
}

fn make_private(folder: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().mode(0o700).create(folder);
    made.map_err(|error| unwritable(folder, &error))
}

/// Side logs go first: one of the old database beside the new one would damage it.
fn exchange(database: &Path, fresh: &Path) -> std::io::Result<()> {
    for suffix in ["-wal", "-shm"] {
        let side = with_suffix(database, suffix);
        match std::fs::remove_file(&side) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(fresh, database)?;
    let folder = database.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn database_of(config: &StoreConfig) -> Result<PathBuf, StoreError> {
    let path = config.url.strip_prefix("sqlite:");
    path.map(|path| config.data_dir.join(path)).ok_or_else(|| {
        let text = "on PostgreSQL make and restore backups with pg_dump and pg_restore, or with a \
                    base backup of the server";
        StoreError::Refused(text.to_owned())
    })
}
