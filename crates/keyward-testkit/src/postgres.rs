//! PostgreSQL databases, copied from a template that was migrated once.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};

use keyward_store::{DatabaseRole, Engine, Migration, StoreRoles};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use crate::database::config;

/// The role that owns the tables.
const OWNER: &str = "keyward_owner";

/// The role the store runs as, named as in the first release.
const APPLICATION: &str = "keyward_app";

/// Held while the roles and the template are made: tests run in many processes at once.
const TEMPLATE_LOCK: &str = "SELECT pg_advisory_lock(1264941431, 99)";

const ROLES: &str = "DO $$ DECLARE name TEXT; BEGIN
    FOREACH name IN ARRAY ARRAY['keyward_owner', 'keyward_app', 'keyward_control',
        'keyward_gateway', 'keyward_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN PASSWORD ''test''', name);
        END IF;
    END LOOP;
END $$";

/// One database on the test server.
pub(crate) struct Database {
    server: String,
    name: String,
}

impl Database {
    pub(crate) async fn create(server: &str, migrations: &[Migration]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let admin = connect(server).await;
        let template = template(server, &admin, migrations).await;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("keyward_test_{}_{number}", std::process::id());
        // A process id comes back, and a killed test leaves its database behind.
        run(&admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template} OWNER {OWNER}");
        run(&admin, &sql).await;
        Self { server: server.to_owned(), name }
    }

    pub(crate) fn url(&self) -> String {
        self.url_of(APPLICATION)
    }

    pub(crate) fn migrate_url(&self) -> String {
        self.url_of(OWNER)
    }

    pub(crate) fn superuser_url(&self) -> String {
        self.url_of(parse(&self.server).get_user().unwrap_or("postgres"))
    }

    pub(crate) fn url_of(&self, role: &str) -> String {
        url(&self.server, role, &self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A thread of its own: a drop cannot wait on the runtime it may run in.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let admin = connect(&server).await;
                run(&admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
            });
        });
        if dropped.join().is_err() {
            eprintln!("the test database {} is left on the server", self.name);
        }
    }
}

/// The name of the migrated template, made when it is missing.
async fn template(server: &str, admin: &Client, migrations: &[Migration]) -> String {
    let mut hasher = DefaultHasher::new();
    for migration in migrations {
        (migration.name, migration.postgres).hash(&mut hasher);
    }
    let name = format!("keyward_template_{:016x}", hasher.finish());
    run(admin, TEMPLATE_LOCK).await;
    run(admin, ROLES).await;
    let finished = "SELECT FROM pg_database WHERE datname = $1 AND datistemplate";
    if admin.query(finished, &[&name]).await.expect("pg_database").is_empty() {
        run(admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        run(admin, &format!("CREATE DATABASE {name} OWNER {OWNER}")).await;
        let address = |role| url(server, role, &name);
        let (url, migrate_url) = (address(APPLICATION), Some(address(OWNER)));
        let folder = std::path::Path::new("/");
        let mut config = config(url, migrate_url, folder, migrations.to_vec());
        config.roles = roles(DatabaseRole::Control);
        let engine = Engine::open(&config).await.expect("migrations run on PostgreSQL");
        engine.close().await;
        run(admin, &format!("ALTER DATABASE {name} IS_TEMPLATE true")).await;
    }
    run(admin, "SELECT pg_advisory_unlock_all()").await;
    name
}

/// The roles of a deployment that keeps its nodes apart, on a node of one kind.
pub(crate) fn roles(needed: DatabaseRole) -> StoreRoles {
    let name = |kind| Some(role(kind).to_owned());
    StoreRoles {
        needed,
        control: name(DatabaseRole::Control),
        gateway: name(DatabaseRole::Gateway),
        worker: name(DatabaseRole::Worker),
        audit: Some(false),
    }
}

/// The role of a node of one kind.
pub(crate) const fn role(kind: DatabaseRole) -> &'static str {
    match kind {
        DatabaseRole::Control => "keyward_control",
        DatabaseRole::Gateway => "keyward_gateway",
        DatabaseRole::Worker => "keyward_worker",
    }
}

fn parse(url: &str) -> Config {
    url.parse().expect("KEYWARD_TEST_POSTGRES_URL is a PostgreSQL address")
}

fn url(server: &str, role: &str, database: &str) -> String {
    let config = parse(server);
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(folder)) => folder.display().to_string().replace('/', "%2F"),
        None => "127.0.0.1".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let password = match config.get_password() {
        Some(password) if config.get_user() == Some(role) => {
            String::from_utf8_lossy(password).into_owned()
        }
        _ => "test".to_owned(),
    };
    format!("postgres://{role}:{password}@{host}:{port}/{database}")
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) =
        parse(url).connect(NoTls).await.expect("the test server of KEYWARD_TEST_POSTGRES_URL");
    tokio::spawn(connection);
    client
}

async fn run(client: &Client, sql: &str) {
    let result = client.batch_execute(sql).await;
    let failure = result.err().map(|error| match error.as_db_error() {
        Some(answer) => answer.to_string(),
        None => error.to_string(),
    });
    assert_eq!(failure, None, "{sql}");
}
