//! SQLite's schema history, the migration run, and backups.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use keyward_core::time::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::StoreError;
use super::migrate::{self, Applied, Migration, Pending, hex};
use super::sqlite::{self, Role, blocking, classify};
use super::upkeep::Reached;

/// The folder beside the database that holds the copies made before migrations.
const BACKUPS: &str = "backups";

/// Copies made before migrations that are kept; the oldest go first.
const KEPT_BACKUPS: usize = 10;

/// Read of a file with a sum, in bytes: the sum and the longest name.
const SUM_BYTES: u64 = 512;

/// Bytes of a backup that are summed at a time.
const SUM_BUFFER_BYTES: usize = 128 * 1024;

/// What a verified backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// The version of the last migration it ran.
    pub schema: u32,
    /// The size of the database in bytes.
    pub bytes: u64,
    /// How far the authority had come.
    pub reached: Reached,
    /// Whether the file was compared with the sum written beside it; without one, a changed bit
    /// within a text goes unseen.
    pub summed: bool,
}

/// Brings the schema up to date; a database with content is copied first.
pub(super) fn migrate(
    path: &Path,
    known: &[Migration],
    now: Timestamp,
    wait: Duration,
) -> Result<(), StoreError> {
    // Looked at through a read-only connection, so that a refusal leaves every byte as it was.
    let before = history(&read_only(path)?)?;
    let pending = migrate::plan(known, |migration| migration.sqlite, &before)?;
    if pending.is_empty() {
        return Ok(());
    }
    if !before.is_empty() {
        back_up_before(path, migrate::version_of(&before), now, wait)?;
    }
    let mut connection = sqlite::connect(path, Role::Writer, wait)?;
    for migration in &pending {
        run(&mut connection, migration, now)?;
        tracing::info!(migration = migration.name, "migrated");
    }
    Ok(())
}

fn run(connection: &mut Connection, migration: &Pending, now: Timestamp) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| classify(migration.name, &error);
    let transaction = connection.transaction().map_err(failed)?;
    transaction
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_history (version INTEGER PRIMARY KEY,
             name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at_ms INTEGER NOT NULL) STRICT",
        )
        .map_err(failed)?;
    transaction.execute_batch(migration.sql).map_err(failed)?;
    let row = (migration.version, migration.name, &migration.checksum, now.as_millis());
    transaction
        .execute("INSERT INTO schema_history VALUES (?1, ?2, ?3, ?4)", row)
        .map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// The migrations a database has run; none for an empty file.
pub(super) fn history(connection: &Connection) -> Result<Vec<Applied>, StoreError> {
    let read = || -> rusqlite::Result<Vec<Applied>> {
        let table = "SELECT name FROM sqlite_schema WHERE name = 'schema_history'";
        let found: Option<String> = connection.query_row(table, [], |row| row.get(0)).optional()?;
        if found.is_none() {
            return Ok(Vec::new());
        }
        let sql = "SELECT version, name, checksum FROM schema_history ORDER BY version";
        let mut statement = connection.prepare(sql)?;
        let applied = statement.query_map([], |row| {
            Ok(Applied { version: row.get(0)?, name: row.get(1)?, checksum: row.get(2)? })
        })?;
        applied.collect()
    };
    read().map_err(|error| classify("schema_history", &error))
}

pub(super) fn read_only(path: &Path) -> Result<Connection, StoreError> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| classify("open", &error))
}

fn back_up_before(
    path: &Path,
    schema: u32,
    now: Timestamp,
    wait: Duration,
) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("/")).join(BACKUPS);
    std::fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, &error))?;
    let instant: String = now.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    let copy_path = folder.join(format!("keyward-{schema:04}-{instant}.db"));
    copy(path, &copy_path, wait)?;
    tracing::info!(path = %copy_path.display(), "backed up before migrating");
    prune(&folder)
}

fn prune(folder: &Path) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| unwritable(folder, &error);
    let mut copies = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("keyward-") && path.extension().is_some_and(|end| end == "db") {
            copies.push(path);
        }
    }
    copies.sort();
    let surplus = copies.len().saturating_sub(KEPT_BACKUPS);
    for path in copies.iter().take(surplus) {
        std::fs::remove_file(path).map_err(failed)?;
    }
    Ok(())
}

/// Copies a database as of one instant. The copy appears under its name only when it is whole
/// and on disk.
pub(super) fn copy(from: &Path, to: &Path, wait: Duration) -> Result<(), StoreError> {
    if to.exists() {
        let text = format!("{} exists already: choose another name", to.display());
        return Err(StoreError::Refused(text));
    }
    let partial = PathBuf::from(format!("{}.partial", to.display()));
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(true).mode(0o600);
    private.open(&partial).map_err(|error| unwritable(&partial, &error))?;
    let finished = fill(from, &partial, wait).and_then(|()| {
        let synced = File::open(&partial).and_then(|file| file.sync_all());
        let renamed = synced.and_then(|()| std::fs::rename(&partial, to));
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        let listed =
            renamed.and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all());
        listed.map_err(|error| unwritable(to, &error))
    });
    if finished.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    finished
}

fn fill(from: &Path, partial: &Path, wait: Duration) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| classify("backup", &error);
    let source = sqlite::connect(from, Role::Reader, wait)?;
    let mut target = Connection::open(partial).map_err(failed)?;
    // All pages in one step are one snapshot; the writer goes on beside it.
    let step = Backup::new(&source, &mut target).and_then(|backup| backup.step(-1));
    match step.map_err(failed)? {
        StepResult::Done => {}
        _ => {
            return Err(StoreError::Busy("the database was locked by another program".to_owned()));
        }
    }
    // One file without a side log is a whole backup.
    target.pragma_update(None, "journal_mode", "delete").map_err(failed)
}

/// Reads every page of a backup and its history.
pub(super) async fn verify(path: PathBuf) -> Result<BackupReport, StoreError> {
    blocking(move || {
        let damaged = |what: &str| {
            StoreError::Refused(format!("{} is not a usable backup: {what}", path.display()))
        };
        let summed = compare_sum(&path).map_err(|what| damaged(&what))?;
        let connection = read_only(&path).map_err(|error| damaged(&error.to_string()))?;
        let read = |sql: &str| -> rusqlite::Result<Option<String>> {
            connection.query_row(sql, [], |row| row.get(0)).optional()
        };
        let integrity = read("SELECT integrity_check FROM pragma_integrity_check LIMIT 1");
        match integrity.map_err(|error| damaged(&error.to_string()))?.as_deref() {
            Some("ok") => {}
            other => return Err(damaged(other.unwrap_or("it cannot be checked"))),
        }
        let orphan = read("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1");
        if let Some(table) = orphan.map_err(|error| damaged(&error.to_string()))? {
            return Err(damaged(&format!("rows of `{table}` refer to rows that are not there")));
        }
        let history = history(&connection).map_err(|error| damaged(&error.to_string()))?;
        let schema = migrate::version_of(&history);
        if schema == 0 {
            return Err(damaged("it holds no schema"));
        }
        let reached = reached(&connection).map_err(|error| damaged(&error.to_string()))?;
        let size = std::fs::metadata(&path).map_err(|error| damaged(&error.to_string()))?;
        Ok(BackupReport { schema, bytes: size.len(), reached, summed })
    })
    .await
}

/// How far the authority of a database has come.
pub(super) fn reached(connection: &Connection) -> Result<Reached, StoreError> {
    let sql = "SELECT epoch, incarnation FROM authority WHERE singleton = 1";
    let row =
        |row: &rusqlite::Row<'_>| Ok(Reached { epoch: row.get(0)?, incarnation: row.get(1)? });
    connection.query_row(sql, [], row).map_err(|error| classify("authority", &error))
}

/// The file beside a backup that holds its sum, in the form that `sha256sum -c` reads.
fn sum_path(backup: &Path) -> PathBuf {
    PathBuf::from(format!("{}.sha256", backup.display()))
}

/// Writes the sum of a backup beside it.
pub(super) fn write_sum(backup: &Path) -> Result<(), StoreError> {
    let path = sum_path(backup);
    let failed = |error: std::io::Error| unwritable(&path, &error);
    let sum = sum_of(backup).map_err(failed)?;
    let name = backup.file_name().unwrap_or_default().display();
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(true).mode(0o600);
    let mut file = private.open(&path).map_err(failed)?;
    let written = writeln!(file, "{sum}  {name}").and_then(|()| file.sync_all());
    written.map_err(failed)
}

/// Compares a backup with its sum; `false` when there is none.
fn compare_sum(backup: &Path) -> Result<bool, String> {
    let path = sum_path(backup);
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(SUM_BYTES).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        read => read.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let written = text.split_ascii_whitespace().next().unwrap_or_default();
    let computed = sum_of(backup).map_err(|error| error.to_string())?;
    if computed.eq_ignore_ascii_case(written) {
        return Ok(true);
    }
    Err(format!("its SHA-256 is not the one in {}", path.display()))
}

fn sum_of(file: &Path) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let mut sum = Context::new(&SHA256);
    let mut buffer = vec![0; SUM_BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(sum.finish().as_ref())),
            read => sum.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

pub(super) fn unwritable(path: &Path, error: &std::io::Error) -> StoreError {
    let text = format!("{}: {error}", path.display());
    if error.kind() == ErrorKind::StorageFull {
        StoreError::StorageFull(text)
    } else {
        StoreError::Unavailable(text)
    }
}
