//! Behind PgBouncer, which lends each connection for one transaction: few servers, many callers.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use keyward_store::{
    Context, Engine, Pooler, Statement, StoreConfig, StoreError, Value, all_statements,
};
use keyward_testkit::TestDatabase;
use tempfile::TempDir;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use crate::isolation::raw;
use crate::{ADA, COUNT, INSERT, add_note, count, probed};

/// Connections that the pooler keeps to the server.
const SERVERS: usize = 3;

/// Within which everything here ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ports that may turn out to be taken.
const PORTS_TRIED: usize = 10;

/// What each transaction finds on the server it happens to get.
const DEFAULT: &str = "server_reset_query = DISCARD ALL";
const NEVER: &str = "server_reset_query =";
const ALWAYS: &str = "server_reset_query = DISCARD ALL\nserver_reset_query_always = 1";

/// One PgBouncer before one database. Dropping it ends it.
struct Bouncer {
    running: Running,
    database: TestDatabase,
    _folder: TempDir,
}

impl Bouncer {
    async fn new(reset: &str) -> Option<Self> {
        let program = program()?;
        let database = TestDatabase::postgres_with(probed()).await?;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for _ in 0..PORTS_TRIED {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = socket.local_addr().unwrap().port();
            drop(socket);
            let process = start(&program, &settings(&database, folder.path(), port, reset));
            let mut bouncer = Running { process, url: through(&database.url(), port) };
            if bouncer.is_up().await {
                return Some(Self { running: bouncer, database, _folder: folder });
            }
            // somebody else may have taken the port meanwhile
            eprintln!("{}", std::fs::read_to_string(folder.path().join("log")).unwrap());
        }
        panic!("PgBouncer does not start");
    }

    fn config(&self) -> StoreConfig {
        let url = self.running.url.clone().into();
        let mut config = StoreConfig { url, migrate_url: None, ..self.database.config() };
        config.pooler = Pooler::Transaction;
        config.limits.connections = 4 * SERVERS;
        config
    }

    async fn open(&self) -> Engine {
        Engine::open(&self.config()).await.unwrap()
    }

    async fn superuser(&self) -> Client {
        raw(&self.database.superuser_url().unwrap()).await
    }
}

/// The application's address, through the pooler.
fn through(direct: &str, port: u16) -> String {
    let (role, place) = direct.rsplit_once('@').unwrap();
    let (_, name) = place.split_once('/').unwrap();
    format!("{role}@127.0.0.1:{port}/{name}")
}

struct Running {
    process: Child,
    url: String,
}

impl Running {
    async fn is_up(&mut self) -> bool {
        while self.process.try_wait().unwrap().is_none() {
            if tokio_postgres::connect(&self.url, NoTls).await.is_ok() {
                return true;
            }
            pause(Duration::from_millis(20)).await;
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn pause(pause: Duration) {
    let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
}

#[expect(clippy::disallowed_methods, reason = "the test run is configured by its environment")]
fn program() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let found = folders.find_map(|folder| {
        let program = Path::new(folder).join("pgbouncer");
        program.is_file().then_some(program)
    });
    if found.is_none() {
        let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!required, "pgbouncer is not installed, and CI may skip nothing");
        eprintln!("SKIPPED behind a pooler: run `sudo apt-get install -y pgbouncer`");
    }
    found
}

/// Writes the settings and tells where they are. Each transaction gets another server than the one
/// before, which is the worst case for a context.
fn settings(database: &TestDatabase, folder: &Path, port: u16, reset: &str) -> PathBuf {
    let direct: tokio_postgres::Config = database.url().parse().unwrap();
    let [tokio_postgres::config::Host::Tcp(host)] = direct.get_hosts() else {
        panic!("a test server on a port");
    };
    let user = direct.get_user().unwrap();
    let password = String::from_utf8_lossy(direct.get_password().unwrap());
    let users = folder.join("users.txt");
    std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).unwrap();
    let mut text = String::new();
    writeln!(text, "[databases]\n* = host={host} port={}", direct.get_ports()[0]).unwrap();
    writeln!(text, "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}").unwrap();
    writeln!(text, "unix_socket_dir =\nauth_type = trust\nauth_file = {}", users.display())
        .unwrap();
    writeln!(text, "pool_mode = transaction\ndefault_pool_size = {SERVERS}").unwrap();
    writeln!(text, "max_db_connections = {SERVERS}\nserver_round_robin = 1\n{reset}").unwrap();
    let path = folder.join("pgbouncer.ini");
    std::fs::write(&path, text).unwrap();
    path
}

/// PgBouncer refuses to run as root, and can change to somebody else by itself.
fn start(program: &Path, settings: &Path) -> Child {
    let log = std::fs::File::create(settings.with_file_name("log")).unwrap();
    let mut command = Command::new(program);
    let identity = std::fs::metadata("/proc/self").unwrap();
    if std::os::unix::fs::MetadataExt::uid(&identity) == 0 {
        command.args(["-u", "nobody"]);
    }
    command.arg(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// A value of the type that the server expects.
fn value_of(expected: &Type) -> Value {
    match *expected {
        Type::INT8 | Type::INT4 => 1.into(),
        Type::BYTEA => vec![1_u8].into(),
        // text to most statements, and JSON to one
        _ => "[]".into(),
    }
}

#[tokio::test]
async fn every_statement_of_the_program_runs_without_a_prepared_name() {
    let Some(bouncer) = Bouncer::new(DEFAULT).await else { return };
    let engine = bouncer.open().await;
    let superuser = bouncer.superuser().await;
    superuser.batch_execute("SET search_path = keyward").await.unwrap();
    for statement in all_statements() {
        let prepared = superuser.prepare(statement.postgres()).await.unwrap();
        let filled: Vec<_> = prepared.params().iter().map(value_of).collect();
        let empty = vec![Value::Null; filled.len()];
        for values in [filled, empty] {
            let context = Context::System { reason: "a test" };
            let mut conn = engine.begin_write(context).await.unwrap();
            let answer = conn.query(statement, &values).await;
            // what the made-up values violate is right to be refused
            let ran = matches!(
                answer,
                Ok(_)
                    | Err(StoreError::UniqueViolation { .. }
                        | StoreError::ForeignKeyViolation
                        | StoreError::RuleViolation(_))
            );
            assert!(ran, "{}: {:?}", statement.name(), answer.err());
            conn.rollback().await.unwrap();
        }
        let mut conn = engine.begin_write(Context::System { reason: "a test" }).await.unwrap();
        let more = vec![Value::Null; prepared.params().len() + 1];
        let error = conn.query(statement, &more).await.unwrap_err();
        assert!(matches!(error, StoreError::Internal(_)), "{}: {error:?}", statement.name());
    }
}

static EVERYTHING: Statement =
    Statement::shared("everything", "SELECT CAST(COUNT(*) AS BIGINT) FROM notes");

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % sides
    }
}

/// One tenant's transactions; answers how many of its notes were committed.
async fn live(engine: &Engine, tenant: &str, mut dice: Dice) -> i64 {
    let mut committed = 0;
    for round in 0..25 {
        let mut conn = engine.begin_write(Context::Tenant(tenant)).await.unwrap();
        // what raw SQL sees is bound by the context alone
        let seen = conn.query_one(&EVERYTHING, &[]).await.unwrap().int(0).unwrap();
        assert_eq!(seen, committed, "{tenant} in round {round}");
        let values = [tenant.into(), format!("note {round}").into(), Value::Null];
        if dice.roll(6) == 0 {
            // the caller goes away while the statement is on its way
            assert!(conn.execute(&INSERT, &values).now_or_never().is_none());
            continue;
        }
        assert_eq!(conn.execute(&INSERT, &values).await.unwrap(), 1);
        match dice.roll(4) {
            0 => drop(conn),
            1 => conn.rollback().await.unwrap(),
            _ => {
                conn.commit().await.unwrap();
                committed += 1;
            }
        }
    }
    committed
}

async fn many_tenants(reset: &str) {
    let Some(bouncer) = Bouncer::new(reset).await else { return };
    let engine = bouncer.open().await;
    let tenants: Vec<_> = (0..4 * SERVERS).map(|number| format!("ten_{number}")).collect();
    let lives = (7..).zip(&tenants).map(|(seed, tenant)| live(&engine, tenant, Dice(seed)));
    let lives = futures_util::future::join_all(lives);
    let committed = tokio::time::timeout(PATIENCE, lives).await.unwrap();
    for (tenant, committed) in tenants.iter().zip(&committed) {
        assert_eq!(count(&engine, tenant).await, *committed, "{tenant}");
    }
    let superuser = bouncer.superuser().await;
    let all = superuser.query_one("SELECT COUNT(*) FROM keyward.notes", &[]).await.unwrap();
    assert_eq!(all.get::<_, i64>(0), committed.iter().sum::<i64>());
    let servers = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()
        AND usename = 'keyward_app'";
    let servers: i64 = superuser.query_one(servers, &[]).await.unwrap().get(0);
    assert!(servers <= i64::try_from(SERVERS).unwrap(), "{servers}");
    leaves_nothing(&bouncer).await;
}

/// No server remembers anything of the transactions that ran on it.
async fn leaves_nothing(bouncer: &Bouncer) {
    let client = raw(&bouncer.running.url).await;
    for _ in 0..2 * SERVERS {
        let left = "SELECT CONCAT_WS(' ', (SELECT COUNT(*) FROM pg_prepared_statements WHERE
                statement NOT LIKE '%CONCAT_WS%'),
            COALESCE(current_setting('keyward.context', true), ''),
            current_setting('statement_timeout'), current_setting('search_path'))";
        let rows = client.query_typed(left, &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, &str>(0).replace("  ", " "), "0 0 \"$user\", public");
    }
}

#[tokio::test]
async fn tenants_never_meet_on_a_server_that_is_never_reset() {
    many_tenants(NEVER).await;
}

#[tokio::test]
async fn tenants_never_meet_on_a_server_that_is_always_reset() {
    many_tenants(ALWAYS).await;
}

static TAKE_FENCE: Statement = Statement::shared(
    "take_fence",
    "SELECT CAST(pg_catalog.pg_advisory_xact_lock(1264941431, 2) AS TEXT)",
);
static ADVANCE: Statement = Statement::shared(
    "advance",
    "UPDATE authority SET epoch = epoch + 1 WHERE singleton = 1 RETURNING epoch",
);

#[tokio::test]
async fn fenced_writes_of_two_nodes_take_every_number_once() {
    let Some(bouncer) = Bouncer::new(NEVER).await else { return };
    let nodes = [bouncer.open().await, bouncer.open().await];
    let writes = (0..60).map(async |number: usize| {
        let mut conn = nodes[number % 2].begin_write(Context::Tenant(ADA)).await.unwrap();
        conn.query_one(&TAKE_FENCE, &[]).await.unwrap();
        let epoch = conn.query_one(&ADVANCE, &[]).await.unwrap().int(0).unwrap();
        if number % 5 == 0 {
            drop(conn);
            return None;
        }
        conn.commit().await.unwrap();
        Some(epoch)
    });
    let writes = futures_util::future::join_all(writes);
    let epochs = tokio::time::timeout(PATIENCE, writes).await.unwrap();
    let mut epochs: Vec<i64> = epochs.into_iter().flatten().collect();
    epochs.sort_unstable();
    let first = epochs[0];
    assert_eq!(epochs, (first..first + 48).collect::<Vec<_>>());
    let locks = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let superuser = bouncer.superuser().await;
    assert_eq!(superuser.query_one(locks, &[]).await.unwrap().get::<_, i64>(0), 0);
}

static LONG: Statement = Statement::shared(
    "long",
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000000)
        SELECT COUNT(*) FROM n",
);

#[tokio::test]
async fn who_goes_away_stops_nobody_elses_work() {
    let Some(bouncer) = Bouncer::new(NEVER).await else { return };
    let mut config = bouncer.config();
    config.limits.statement = Duration::from_millis(400);
    let engine = Arc::new(Engine::open(&config).await.unwrap());
    let leaving = async {
        for wait in 0..8 {
            let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
            let asked = conn.query(&LONG, &[]);
            let gone = tokio::time::timeout(Duration::from_millis(5 * wait), asked).await;
            assert!(gone.is_err());
        }
    };
    let working = async {
        for number in 0..60 {
            add_note(&engine, ADA, &number.to_string()).await;
        }
    };
    let both = futures_util::future::join(leaving, working);
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(count(&engine, ADA).await, 60);
    let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
    let error = conn.query(&LONG, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout { statement: "long" }), "{error:?}");
    conn.rollback().await.unwrap();
    let mut conn = engine.begin_read(Context::Tenant(ADA)).await.unwrap();
    assert_eq!(conn.query_one(&COUNT, &[ADA.into()]).await.unwrap().int(0).unwrap(), 60);
}

#[tokio::test]
async fn more_servers_than_are_remembered_cost_a_flight_and_nothing_else() {
    let Some(bouncer) = Bouncer::new(NEVER).await else { return };
    let engine = bouncer.open().await;
    let superuser = bouncer.superuser().await;
    for round in 0..8 {
        // the next transactions run on processes that nobody has seen
        let end_all = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
            WHERE datname = current_database() AND usename = 'keyward_app'";
        superuser.query(end_all, &[]).await.unwrap();
        for _ in 0..SERVERS {
            assert_eq!(count(&engine, ADA).await, round);
        }
        add_note(&engine, ADA, &round.to_string()).await;
    }
}
