//! A whole node in this process, over real sockets, on each engine at hand.

use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyward::dev::{Dev, DevOptions};
use keyward_core::environment::Environment;
use keyward_testkit::{ManualClock, TestDatabase};
use serde_json::Value;

use super::site::Site;

/// The product that the tests are about.
pub(crate) const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../profiles/asiri");

/// Milliseconds in a day.
pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// How a node differs from the usual one.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) profile: PathBuf,
    /// The environments served, listener by listener.
    pub(crate) gateways: Vec<Vec<Environment>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { profile: PROFILE.into(), gateways: vec![Environment::ALL.to_vec()] }
    }
}

/// A running node. Its clock stands still until the test moves it.
pub(crate) struct TestNode {
    site: Site,
    dev: Dev,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) database: TestDatabase,
}

/// A node on the database of another one.
pub(crate) struct Beside {
    site: Site,
    dev: Dev,
}

impl Beside {
    /// Stops it.
    pub(crate) async fn stop(self) {
        self.dev.stop().await;
    }
}

impl Deref for Beside {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Deref for TestNode {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl TestNode {
    /// Starts a node on a database of its own.
    pub(crate) async fn start(database: TestDatabase, setup: &Setup) -> Self {
        Self::start_at(database, setup, Arc::new(ManualClock::new())).await
    }

    /// Starts a node on a database that another one ran on.
    pub(crate) async fn start_at(
        database: TestDatabase,
        setup: &Setup,
        clock: Arc<ManualClock>,
    ) -> Self {
        let options = DevOptions {
            profile: setup.profile.clone(),
            data_dir: database.data_dir().to_owned(),
            store_url: database.url(),
            migrate_url_file: migrate_url_file(&database),
            gateways: setup.gateways.clone(),
            clock: clock.clone(),
        };
        let dev = Box::pin(Dev::start(options)).await.expect("a node that starts");
        let site = Site::new(&dev.to_json());
        Self { site, dev, clock, database }
    }

    /// Starts another node on the same database, with the same secrets and clock.
    pub(crate) async fn beside(&self) -> Beside {
        let setup = Setup::default();
        let options = DevOptions {
            profile: setup.profile.clone(),
            data_dir: self.database.data_dir().to_owned(),
            store_url: self.database.url(),
            migrate_url_file: migrate_url_file(&self.database),
            gateways: setup.gateways,
            clock: self.clock.clone(),
        };
        let dev = Box::pin(Dev::start(options)).await.expect("a second node that starts");
        Beside { site: Site::new(&dev.to_json()), dev }
    }

    /// Its addresses, and its demo tenants with their keys.
    pub(crate) fn told(&self) -> Value {
        self.dev.to_json()
    }

    /// Writes the last use of keys now instead of within seconds.
    pub(crate) async fn note_usage(&self) {
        self.dev.note_usage().await;
    }

    /// Stops the node and hands back what it ran on.
    pub(crate) async fn stop(self) -> (TestDatabase, Arc<ManualClock>) {
        self.dev.stop().await;
        (self.database, self.clock)
    }

    /// Stops the node and starts another one on the same database.
    pub(crate) async fn restart(self, setup: &Setup) -> Self {
        let (database, clock) = self.stop().await;
        Self::start_at(database, setup, clock).await
    }
}

/// Where a node reads the address of PostgreSQL's owner role from.
pub(crate) fn migrate_url_file(database: &TestDatabase) -> Option<PathBuf> {
    let url = database.migrate_url()?;
    let path = database.data_dir().join("migrate-url");
    write_private(&path, &url);
    Some(path)
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

/// Runs a test against a fresh node, once on each engine at hand.
pub(crate) async fn node_on_every_engine(test: impl AsyncFn(&TestNode)) {
    node_on_every_engine_with(&Setup::default(), test).await;
}

/// The same with another set-up.
pub(crate) async fn node_on_every_engine_with(setup: &Setup, test: impl AsyncFn(&TestNode)) {
    for database in TestDatabase::every().await {
        eprintln!("on {}", database.engine_name());
        let node = TestNode::start(database, setup).await;
        test(&node).await;
        node.stop().await;
    }
}
