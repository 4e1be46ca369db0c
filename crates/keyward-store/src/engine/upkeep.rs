//! Work on a database that is not opened as a store: its schema, a copy of it, a copy put back.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::data_dir::DataDirLock;
use super::migrate::{self, Migration};
use super::postgres_session::Address;
use super::sqlite::blocking;
use super::{BackupReport, StoreConfig, StoreError, postgres_schema, sqlite_backup};

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

/// Copies a SQLite database, as of one instant, to a file that must not exist yet. A server may
/// have it open meanwhile.
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
        sqlite_backup::copy(&from, &to, wait)
    })
    .await
}

/// What a restore has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The backup that is the database now.
    pub backup: BackupReport,
    /// Where the database that was there before is kept.
    pub replaced: Option<PathBuf>,
}

/// Puts a verified backup in the place of a SQLite database that no process has open. What was
/// there is kept beside it.
///
/// # Errors
/// [`StoreError::Refused`] when the backup is damaged, a server has the data directory, or the
/// store is on PostgreSQL; [`StoreError::NewerSchema`].
pub async fn restore(config: &StoreConfig, from: &Path) -> Result<Restored, StoreError> {
    let database = database_of(config)?;
    let backup = sqlite_backup::verify(from.to_owned()).await?;
    let newest = config.migrations.last().map_or(Ok(0), Migration::version)?;
    if backup.schema > newest {
        let (found, known) = (backup.schema, newest);
        return Err(StoreError::NewerSchema { found, known });
    }
    let (from, wait) = (from.to_owned(), config.limits.lock);
    let aside = format!("{}.replaced-{}", database.display(), config.now.as_millis());
    let aside = PathBuf::from(aside);
    blocking(move || {
        let existed = database.metadata().is_ok_and(|about| about.len() > 0);
        let _lock = DataDirLock::take(&database)?;
        let fresh = with_suffix(&database, ".restoring");
        let _ = std::fs::remove_file(&fresh);
        sqlite_backup::copy(&from, &fresh, wait)?;
        if existed {
            // whole before it is moved: its side log is part of it
            sqlite_backup::copy(&database, &aside, wait)?;
        }
        exchange(&database, &fresh)
            .map_err(|e| StoreError::Unavailable(format!("{}: {e}", database.display())))?;
        let replaced = existed.then_some(aside);
        Ok(Restored { backup, replaced })
    })
    .await
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
