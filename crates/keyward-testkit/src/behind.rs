//! Looking and meddling behind the product's back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::ValueRef;
use tokio_postgres::SimpleQueryMessage;

use crate::database::TestDatabase;
use crate::postgres::connect;

/// The file of the SQLite database in the data directory.
const SQLITE_FILE: &str = "keyward.db";

/// How long SQLite waits for the product to end its own write.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A row as text; blobs in hexadecimal.
pub type TextRow = Vec<Option<String>>;

impl TestDatabase {
    /// Runs statements with every right the engine knows: on PostgreSQL as the superuser, on
    /// SQLite on the file itself. Answers with the rows of all of them.
    pub async fn behind(&self, sql: &str) -> Vec<TextRow> {
        match self.superuser_url() {
            Some(url) => on_postgres(&url, sql).await,
            None => on_sqlite(&self.data_dir().join(SQLITE_FILE), sql),
        }
    }

    /// The one number that a query answers with.
    pub async fn number(&self, sql: &str) -> i64 {
        let rows = self.behind(sql).await;
        let cell = rows.first().and_then(|row| row.first()).cloned().flatten();
        cell.and_then(|text| text.parse().ok()).expect("a query for one number")
    }

    /// All that is at rest: every row of every table of a PostgreSQL database as text, and every
    /// file of the data directory (the SQLite file and its log among them) as it is.
    pub async fn at_rest(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        if let Some(url) = self.superuser_url() {
            found.extend(postgres_rows(&url).await);
        }
        let mut folders = vec![self.data_dir().to_owned()];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = std::fs::read(&path).expect("a file of the data directory");
                    found.push((path.display().to_string(), bytes));
                }
            }
        }
        found
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of the data directory");
    entries.map(|entry| entry.expect("an entry of a folder").path()).collect()
}

async fn on_postgres(url: &str, sql: &str) -> Vec<TextRow> {
    let client = connect(url).await;
    let sql = format!("SET search_path TO keyward, public; {sql}");
    let messages = client.simple_query(&sql).await.expect("SQL for the test's own eyes");
    let text = |row: tokio_postgres::SimpleQueryRow| {
        (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()
    };
    messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(text(row)),
            _ => None,
        })
        .collect()
}

fn on_sqlite(file: &Path, sql: &str) -> Vec<TextRow> {
    let connection = Connection::open(file).expect("the SQLite file");
    connection.busy_timeout(LOCK_PATIENCE).expect("a time to wait");
    let mut batch = rusqlite::Batch::new(&connection, sql);
    let mut found = Vec::new();
    while let Some(mut statement) = batch.next().expect("SQL for the test's own eyes") {
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().expect("a row") {
            let cell = |at| text(row.get_ref(at).expect("a column"));
            found.push((0..columns).map(cell).collect());
        }
    }
    found
}

fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Some(hexadecimal(bytes)),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

async fn postgres_rows(url: &str) -> Vec<(String, Vec<u8>)> {
    let tables = "SELECT quote_ident(table_schema) || '.' || quote_ident(table_name)
        FROM information_schema.tables
        WHERE table_schema LIKE 'keyward%' AND table_type = 'BASE TABLE'";
    let mut found = Vec::new();
    for table in on_postgres(url, tables).await.into_iter().flatten().flatten() {
        let rows = on_postgres(url, &format!("SELECT t::text FROM {table} t")).await;
        let lines: Vec<String> = rows.into_iter().flatten().flatten().collect();
        found.push((table, lines.join("\n").into_bytes()));
    }
    assert!(!found.is_empty(), "a migrated database has tables");
    found
}
