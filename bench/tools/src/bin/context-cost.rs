//! What the unforgeable tenant context costs in PostgreSQL, against a plain setting and no row
//! level security at all: `bench/context-cost [--rounds 15] [--transactions 1000]`.
//!
//! It makes a database and a role of its own on the server that `KEYWARD_TEST_POSTGRES_URL` names.
//! The server must be on this machine: its processor time is read from `/proc`. Rounds alternate
//! between the subjects, the first is dropped.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_lc_rs::hmac;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Statement};

const TENANTS: i64 = 100;
const ROWS_EACH: i64 = 1_000;
/// A tenant and one of its rows, somewhere in the middle.
const TENANT: &str = "ten_42";
const ITEM: &str = "item_500";
const KEY: [u8; 32] = [7; 32];
/// The block of SHA-256, to which HMAC pads its key.
const HMAC_BLOCK: usize = 64;

/// What the program's transactions set beside the context.
const SETTINGS: &str = "pg_catalog.set_config('search_path', 'keyward, pg_temp', true),
    pg_catalog.set_config('statement_timeout', '10000', true),
    pg_catalog.set_config('lock_timeout', '5000', true),
    pg_catalog.set_config('idle_in_transaction_session_timeout', '15000', true),
    pg_catalog.set_config('synchronous_commit', 'on', true)";

const TABLES: &str = "
CREATE TABLE keyward.signed (tenant_id TEXT NOT NULL, item_id TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (tenant_id, item_id));
CREATE TABLE keyward.plain (LIKE keyward.signed INCLUDING ALL);
CREATE TABLE keyward.free (LIKE keyward.signed INCLUDING ALL);
INSERT INTO keyward.signed SELECT 'ten_' || tenant, 'item_' || item, repeat('x', 100)
    FROM generate_series(1, $tenants) AS tenant, generate_series(1, $rows) AS item;
INSERT INTO keyward.plain TABLE keyward.signed;
INSERT INTO keyward.free TABLE keyward.signed;
CALL keyward_private.isolate('signed', 'tenant');
ALTER TABLE keyward.plain ENABLE ROW LEVEL SECURITY;
ALTER TABLE keyward.plain FORCE ROW LEVEL SECURITY;
CREATE POLICY context ON keyward.plain USING
    ((SELECT current_setting('bench.context', true)) = ANY (ARRAY[tenant_id, '*']));
GRANT USAGE ON SCHEMA keyward TO $role;
GRANT EXECUTE ON FUNCTION keyward.current_tenant() TO $role;
GRANT SELECT ON keyward.signed, keyward.plain, keyward.free TO $role;";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// As the program does: signed, and bound by a text that nobody can have replaced.
    Signed,
    /// The same, bound by a prepared statement.
    SignedPrepared,
    /// A policy over a plain setting.
    Plain,
    /// No row level security.
    Free,
}

const SUBJECTS: [Subject; 4] =
    [Subject::Signed, Subject::SignedPrepared, Subject::Plain, Subject::Free];

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed context",
            Self::SignedPrepared => "signed context, bound by a prepared statement",
            Self::Plain => "plain setting",
            Self::Free => "no row level security",
        }
    }

    const fn table(self) -> &'static str {
        match self {
            Self::Signed | Self::SignedPrepared => "signed",
            Self::Plain => "plain",
            Self::Free => "free",
        }
    }

    /// What binds the context.
    fn bind(self) -> String {
        let context = match self {
            Self::Signed => {
                "EXISTS (SELECT FROM pg_catalog.pg_prepared_statement() AS p WHERE p.from_sql),
                 pg_catalog.set_config('client_encoding', 'UTF8', true),
                 pg_catalog.set_config('row_security', 'on', true),
                 pg_catalog.set_config('keyward.context', $1, true)"
            }
            Self::SignedPrepared => "pg_catalog.set_config('keyward.context', $1, true)",
            Self::Plain => "pg_catalog.set_config('bench.context', $1, true)",
            Self::Free => "$1::text",
        };
        format!("SELECT pg_catalog.pg_backend_pid(), {context}, {SETTINGS}")
    }
}

/// One subject on a connection of its own.
struct Bench {
    subject: Subject,
    client: Client,
    backend: i32,
    signer: hmac::Key,
    bind: Statement,
    bind_text: String,
    by_key: Statement,
    scan: Statement,
}

/// What one piece of work took, in microseconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    processor: f64,
}

#[derive(Clone, Copy)]
enum Work {
    /// One row by its key, in a transaction that goes on.
    Statement,
    /// All rows of a tenant, in a transaction that goes on.
    Scan,
    /// BEGIN with the context, one row by its key, COMMIT.
    Transaction,
}

impl Bench {
    async fn open(url: &str, subject: Subject) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        // Which plan is kept hangs on the statistics of each table; here only the context differs.
        client.batch_execute("SET plan_cache_mode = force_generic_plan").await?;
        let table = subject.table();
        let by_key =
            format!("SELECT body FROM keyward.{table} WHERE tenant_id = $1 AND item_id = $2");
        let scan = format!("SELECT count(body) FROM keyward.{table} WHERE tenant_id = $1");
        let bind_text = subject.bind();
        Ok(Self {
            subject,
            backend: client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0),
            signer: hmac::Key::new(hmac::HMAC_SHA256, &KEY),
            bind: client.prepare_typed(&bind_text, &[Type::TEXT]).await?,
            by_key: client.prepare(&by_key).await?,
            scan: client.prepare(&scan).await?,
            bind_text,
            client,
        })
    }

    fn context(&self) -> String {
        if matches!(self.subject, Subject::Plain | Subject::Free) {
            return TENANT.to_owned();
        }
        let text = format!("{}:{TENANT}", self.backend);
        let sum = hmac::sign(&self.signer, text.as_bytes());
        hex(sum.as_ref()) + TENANT
    }

    /// BEGIN and the context, in one flight as the program does.
    async fn begin(&self) -> anyhow::Result<()> {
        let begin = self.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        let context = self.context();
        if self.subject == Subject::Signed {
            let values: [(&(dyn ToSql + Sync), Type); 1] = [(&context, Type::TEXT)];
            tokio::try_join!(begin, self.client.query_typed(&self.bind_text, &values))?;
        } else {
            let values: [&(dyn ToSql + Sync); 1] = [&context];
            tokio::try_join!(begin, self.client.query(&self.bind, &values))?;
        }
        Ok(())
    }

    async fn one_row(&self) -> anyhow::Result<()> {
        let found = self.client.query(&self.by_key, &[&TENANT, &ITEM]).await?;
        anyhow::ensure!(found.len() == 1, "{}: {} rows", self.subject.name(), found.len());
        Ok(())
    }

    async fn commit(&self) -> anyhow::Result<()> {
        Ok(self.client.batch_execute("COMMIT").await?)
    }

    #[expect(clippy::disallowed_methods, reason = "what is measured runs in real time")]
    async fn measure(&self, work: Work, times: u32) -> anyhow::Result<Cost> {
        let (start, before) = (Instant::now(), self.processor_ns()?);
        if !matches!(work, Work::Transaction) {
            self.begin().await?;
        }
        for _ in 0..times {
            match work {
                Work::Statement => self.one_row().await?,
                Work::Scan => {
                    let count: i64 = self.client.query_one(&self.scan, &[&TENANT]).await?.get(0);
                    anyhow::ensure!(count == ROWS_EACH, "{count} rows");
                }
                Work::Transaction => {
                    self.begin().await?;
                    self.one_row().await?;
                    self.commit().await?;
                }
            }
        }
        if !matches!(work, Work::Transaction) {
            self.commit().await?;
        }
        let processor = Duration::from_nanos(self.processor_ns()?.saturating_sub(before));
        let each = |all: Duration| all.as_secs_f64() * 1e6 / f64::from(times);
        Ok(Cost { wall: each(start.elapsed()), processor: each(processor) })
    }

    /// Nanoseconds that the server's process has run.
    fn processor_ns(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/schedstat", self.backend);
        let text = std::fs::read_to_string(path).context("the server is not on this machine")?;
        let field = text.split_whitespace().next().context("schedstat is empty")?;
        Ok(field.parse()?)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A database with the program's schema and the subjects' tables. Answers the role's address.
async fn prepare(server: &str, name: &str) -> anyhow::Result<String> {
    let config: tokio_postgres::Config = server.parse()?;
    let (superuser, host) = (config.get_user().context("no role")?, config.get_hosts());
    let host = match host.first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        _ => "127.0.0.1".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let url = |role: &str| format!("postgres://{role}@{host}:{port}/{name}");
    let (client, connection) = tokio_postgres::connect(&url(superuser), NoTls).await?;
    tokio::spawn(connection);
    client
        .batch_execute(
            "CREATE SCHEMA keyward; SET search_path = keyward, pg_temp;
             CREATE TABLE schema_history (version INTEGER)",
        )
        .await?;
    for migration in keyward_store::migrations() {
        client.batch_execute(migration.postgres).await.context(migration.name)?;
    }
    let pads = [0x36_u8, 0x5c].map(|mask| {
        let mut pad = KEY.to_vec();
        pad.resize(HMAC_BLOCK, 0);
        pad.iter().map(|byte| byte ^ mask).collect::<Vec<u8>>()
    });
    let key = "INSERT INTO keyward_private.context_key VALUES (1, $1, $2)";
    client.execute(key, &[&pads[0], &pads[1]]).await?;
    let tables = TABLES
        .replace("$tenants", &TENANTS.to_string())
        .replace("$rows", &ROWS_EACH.to_string())
        .replace("$role", name);
    client.batch_execute(&tables).await?;
    client.batch_execute("VACUUM ANALYZE keyward.signed, keyward.plain, keyward.free").await?;
    Ok(url(name))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints a line per subject: medians over the rounds, and medians of the rounds' ratios to the
/// subject without row level security and to the plain setting.
fn report(title: &str, rounds: &[Vec<Cost>]) {
    println!("\n| {title} | µs | processor µs | ratio to none | ratio to plain |");
    println!("| --- | --- | --- | --- | --- |");
    let column = |subject: usize, value: fn(&Cost) -> f64| -> Vec<f64> {
        rounds.iter().filter_map(|round| round.get(subject).map(value)).collect()
    };
    let ratio = |subject: usize, base: Subject| {
        let base = SUBJECTS.iter().position(|other| *other == base).unwrap_or_default();
        let pairs = column(subject, |c| c.processor).into_iter().zip(column(base, |c| c.processor));
        median(pairs.map(|(one, other)| one / other).collect())
    };
    for (place, subject) in SUBJECTS.iter().enumerate() {
        println!(
            "| {} | {:.1} | {:.1} | {:.2} | {:.2} |",
            subject.name(),
            median(column(place, |cost| cost.wall)),
            median(column(place, |cost| cost.processor)),
            ratio(place, Subject::Free),
            ratio(place, Subject::Plain),
        );
    }
}

fn option(name: &str, default: u32) -> anyhow::Result<u32> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next().map_or(Ok(default), |text| Ok(text.parse()?))
}

async fn compare(url: &str) -> anyhow::Result<()> {
    let (rounds, times) = (option("--rounds", 15)?, option("--transactions", 1_000)?);
    let mut benches = Vec::new();
    for subject in SUBJECTS {
        benches.push(Bench::open(url, subject).await?);
    }
    let works = [
        ("one row by its key", Work::Statement, times),
        ("1,000 rows of the tenant", Work::Scan, times / 5),
        ("BEGIN, context, one row, COMMIT", Work::Transaction, times),
    ];
    for (title, work, times) in works {
        let mut measured = Vec::new();
        for round in 0..=rounds {
            let mut costs = vec![Cost { wall: 0.0, processor: 0.0 }; SUBJECTS.len()];
            // Each goes first in its turn.
            for place in 0..SUBJECTS.len() {
                let place = (place + round as usize) % SUBJECTS.len();
                if let (Some(bench), Some(cost)) = (benches.get(place), costs.get_mut(place)) {
                    *cost = bench.measure(work, times.max(1)).await?;
                }
            }
            measured.push(costs);
        }
        report(title, measured.get(1..).unwrap_or_default());
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a tool is configured by its environment")]
    let server = std::env::var("KEYWARD_TEST_POSTGRES_URL")
        .context("run it under script/postgres-test-server")?;
    let (client, connection) = tokio_postgres::connect(&server, NoTls).await?;
    tokio::spawn(connection);
    let name = format!("keyward_context_cost_{}", std::process::id());
    client.batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'test'")).await?;
    client.batch_execute(&format!("CREATE DATABASE {name}")).await?;
    let compared = async { compare(&prepare(&server, &name).await?).await }.await;
    client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?;
    client.batch_execute(&format!("DROP ROLE {name}")).await?;
    compared
}
