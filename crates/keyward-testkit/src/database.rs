//! A fresh database per test, on either engine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use keyward_core::time::Timestamp;
use keyward_store::{
    ContextKey, DatabaseRole, Listen, Migration, Pooler, StoreConfig, StoreLimits, StoreRoles,
    migrations,
};
use tempfile::TempDir;

use crate::postgres::{Database, role, roles};

/// The instant at which test databases are opened: 2027-01-15T08:00:00Z.
const OPENED_AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The key that signs tenant contexts in tests.
const CONTEXT_KEY: [u8; ContextKey::LEN] = [7; ContextKey::LEN];

/// Connections per test; many tests share one server.
const CONNECTIONS: usize = 4;

/// A database that nobody else uses. Dropping it removes it.
pub struct TestDatabase {
    migrations: Vec<Migration>,
    postgres: Option<Database>,
    data_dir: TempDir,
}

impl TestDatabase {
    /// An empty SQLite database in a folder of its own.
    pub fn sqlite() -> Self {
        Self::sqlite_with(migrations())
    }

    /// The same with other migrations than the product's.
    pub fn sqlite_with(migrations: Vec<Migration>) -> Self {
        Self { migrations, postgres: None, data_dir: private_folder() }
    }

    /// A migrated PostgreSQL database, or nothing when no server is named: the test is then
    /// skipped aloud, or fails where `CI=true`.
    pub async fn postgres() -> Option<Self> {
        Self::postgres_with(migrations()).await
    }

    /// The same with other migrations than the product's.
    pub async fn postgres_with(migrations: Vec<Migration>) -> Option<Self> {
        let server = server_url()?;
        let postgres = Database::create(&server, &migrations).await;
        Some(Self { migrations, postgres: Some(postgres), data_dir: private_folder() })
    }

    /// One database per engine at hand.
    pub async fn every() -> Vec<Self> {
        Self::every_with(migrations()).await
    }

    /// The same with other migrations than the product's.
    pub async fn every_with(migrations: Vec<Migration>) -> Vec<Self> {
        let mut databases = vec![Self::sqlite_with(migrations.clone())];
        databases.extend(Self::postgres_with(migrations).await);
        databases
    }

    /// What to open the store with. On SQLite a second store at once is refused.
    pub fn config(&self) -> StoreConfig {
        config(self.url(), self.migrate_url(), self.data_dir.path(), self.migrations.clone())
    }

    /// What a node of one kind opens the store with that does not migrate: on PostgreSQL as the
    /// role of its kind.
    pub fn config_of(&self, kind: DatabaseRole) -> StoreConfig {
        let mut config = self.config();
        if let Some(url) = self.url_of_role(role(kind)) {
            config.url = url.into();
            config.migrate_url = None;
            config.roles = roles(kind);
        }
        config
    }

    /// The address to name in a node's settings; SQLite's file is `keyward.db` in the data
    /// directory.
    pub fn url(&self) -> String {
        match &self.postgres {
            None => "sqlite:keyward.db".to_owned(),
            Some(database) => database.url(),
        }
    }

    /// PostgreSQL: the address with the role that owns the tables.
    pub fn migrate_url(&self) -> Option<String> {
        self.postgres.as_ref().map(Database::migrate_url)
    }

    /// The word for the engine in a failing test's message.
    pub fn engine_name(&self) -> &'static str {
        if self.postgres.is_some() { "postgres" } else { "sqlite" }
    }

    /// The folder of the SQLite file, and of whatever else a node keeps beside it.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// The address of the same PostgreSQL database with the superuser's role, for tests that
    /// look or meddle behind the product's back.
    pub fn superuser_url(&self) -> Option<String> {
        self.postgres.as_ref().map(Database::superuser_url)
    }

    /// The address of the same PostgreSQL database with another role of the server.
    pub fn url_of_role(&self, role: &str) -> Option<String> {
        self.postgres.as_ref().map(|database| database.url_of(role))
    }
}

pub(crate) fn config(
    url: String,
    migrate_url: Option<String>,
    data_dir: &Path,
    migrations: Vec<Migration>,
) -> StoreConfig {
    StoreConfig {
        url: url.into(),
        migrate_url: migrate_url.map(Into::into),
        data_dir: data_dir.to_owned(),
        context_key: ContextKey::new(CONTEXT_KEY),
        migrations,
        now: OPENED_AT,
        roles: StoreRoles::default(),
        pooler: Pooler::None,
        listen: Listen::WithStore,
        limits: StoreLimits { connections: CONNECTIONS, ..StoreLimits::default() },
    }
}

fn private_folder() -> TempDir {
    let private = std::fs::Permissions::from_mode(0o700);
    let mut folder = tempfile::Builder::new();
    folder.prefix("keyward-test-").permissions(private).tempdir().expect("a temporary folder")
}

#[expect(clippy::disallowed_methods, reason = "the test run is configured by its environment")]
fn server_url() -> Option<String> {
    let url = std::env::var("KEYWARD_TEST_POSTGRES_URL").ok().filter(|url| !url.is_empty());
    if url.is_none() {
        let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!required, "KEYWARD_TEST_POSTGRES_URL is not set, and CI may skip nothing");
        eprintln!(
            "SKIPPED on PostgreSQL: set KEYWARD_TEST_POSTGRES_URL, or run the tests under \
             script/postgres-test-server"
        );
    }
    url
}
