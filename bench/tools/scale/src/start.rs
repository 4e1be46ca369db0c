//! A node on a store with many keys: how long it takes to start, and what a request costs when its
//! key is in memory and when it is not.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use keyward::embedded::{EmbeddedConfig, EmbeddedNode, EmbeddedOptions, EnvironmentSet};
use keyward_core::authority::KeyAuthority;
use keyward_core::key::KeySecret;
use keyward_testkit::TestDatabase;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::machine::{Order, elapsed, percentiles, resident_bytes, since};
use crate::product::{self, KEYS_PER_TENANT, MADE_AT, PATH, ROLE, SCOPE};
use crate::{Engine, Options};

/// Rows of one statement.
const ROWS: usize = 2_000;
/// Tokens that requests are made with.
const TOKENS: usize = 200_000;

pub(crate) async fn measure(keys: usize, options: &Options) -> anyhow::Result<Vec<Value>> {
    let mut figures = Vec::new();
    if options.engine != Some(Engine::Postgres) {
        figures.extend(on(TestDatabase::sqlite(), keys, options).await?);
    }
    if options.engine != Some(Engine::Sqlite)
        && let Some(database) = TestDatabase::postgres().await
    {
        figures.extend(on(database, keys, options).await?);
    }
    Ok(figures)
}

async fn on(database: TestDatabase, keys: usize, options: &Options) -> anyhow::Result<Vec<Value>> {
    let config = config(&database)?;
    // the first start makes the tables
    start(&config, None).await?.0.stop().await;
    let begun = elapsed();
    let tokens = fill(&database, keys).await?;
    let fill_ms = since(begun).as_millis();
    let mut figures = Vec::new();
    for bounded in [false, true] {
        let max_keys = bounded.then(|| keys.div_ceil(options.one_in));
        let before = resident_bytes()?;
        let (node, took) = start(&config, max_keys).await?;
        let resident = resident_bytes()?.saturating_sub(before);
        let app = application(&node);
        let first = first(&app, &tokens).await?;
        let (hits, mut times) = requests(&app, &tokens, options).await?;
        let (p50, p99) = percentiles(&mut times);
        let rate = hits.requests_per_second.round();
        figures.push(json!({
            "what": "start", "engine": database.engine_name(), "keys": keys,
            "maxKeys": max_keys, "fillMs": fill_ms, "startMs": took.as_millis(),
            "residentMiB": resident / (1 << 20), "firstRequestUs": first.as_micros(),
            "requestsPerSecond": rate,
            "p50Us": p50.round(), "p99Us": p99.round(), "refused": hits.refused,
            "lookUps": look_ups(&node).await?,
        }));
        drop(app);
        node.stop().await;
    }
    Ok(figures)
}

/// The settings of the node, and its files.
fn config(database: &TestDatabase) -> anyhow::Result<Vec<(String, String)>> {
    let folder = database.data_dir();
    let mut options = std::fs::OpenOptions::new();
    let private = |name: &str, text: &str| -> anyhow::Result<String> {
        use std::io::Write as _;
        let path = folder.join(name);
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&path)?.write_all(text.as_bytes())?;
        Ok(path.display().to_string())
    };
    let mut private = private;
    private("secrets.toml", product::SECRETS)?;
    let mut settings = vec![
        ("profile".to_owned(), product::write_profile(folder)?.display().to_string()),
        ("data-dir".to_owned(), folder.display().to_string()),
        ("store.url".to_owned(), database.url()),
        ("control.listen".to_owned(), "127.0.0.1:0".to_owned()),
        ("internal.listen".to_owned(), "127.0.0.1:0".to_owned()),
    ];
    if let Some(url) = database.migrate_url() {
        settings.push(("store.migrate-url-file".to_owned(), private("migrate-url", &url)?));
    }
    Ok(settings)
}

/// A node, and how long it took until it decided.
async fn start(
    settings: &[(String, String)],
    max_keys: Option<usize>,
) -> anyhow::Result<(EmbeddedNode, Duration)> {
    let begun = elapsed();
    let node = Box::pin(EmbeddedNode::start(config_of(settings, max_keys))).await?;
    Ok((node, since(begun)))
}

fn config_of(settings: &[(String, String)], max_keys: Option<usize>) -> EmbeddedConfig {
    let config = EmbeddedConfig::new(None);
    let config = settings.iter().fold(config, |config, (name, value)| config.set(name, value));
    match max_keys {
        Some(most) => config.set("authority.max-keys", most.to_string()),
        None => config,
    }
}

fn application(node: &EmbeddedNode) -> Router {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let options = EmbeddedOptions::new(EnvironmentSet::ALL).peer(move |_| Some(here));
    Router::new().route(PATH, get(async || "")).layer(node.layer(options))
}

/// Fills the store behind the product's back; the secrets of some of the keys.
async fn fill(database: &TestDatabase, keys: usize) -> anyhow::Result<Vec<KeySecret>> {
    let keyring = product::keyring();
    let postgres = database.engine_name() == "postgres";
    let mut tokens = Vec::new();
    for first in (0..keys).step_by(ROWS) {
        let mut homes = String::new();
        let mut rows = String::from(
            "INSERT INTO api_keys (tenant_id, key_id, environment, name, description, hint, hash,
               pepper_version, scopes, owner_id, created_by, created_at, ip_allowlist, lineage_id)
             VALUES ",
        );
        for position in first..keys.min(first + ROWS) {
            let (key, secret) = product::key(&keyring, position);
            if position % KEYS_PER_TENANT == 0 {
                push_home(&mut homes, position)?;
            }
            push_key(&mut rows, &key, postgres, position > first)?;
            if position % keys.div_ceil(TOKENS) == 0 {
                tokens.push(secret);
            }
        }
        database.behind(&format!("BEGIN; {homes} {rows}; COMMIT")).await;
    }
    if postgres {
        database.behind("ANALYZE api_keys").await;
    }
    Ok(tokens)
}

fn push_home(sql: &mut String, position: usize) -> std::fmt::Result {
    let (tenant, member) = product::home(position);
    let (id, user, at) = (tenant.id, member.user, MADE_AT.as_millis());
    write!(
        sql,
        "INSERT INTO tenants (tenant_id, slug, name, created_at)
           VALUES ('{id}', '{slug}', '{slug}', {at});
         INSERT INTO users (user_id, kind, email, name, created_at)
           VALUES ('{user}', 'person', 'owner@{slug}.example', 'Owner', {at});
         INSERT INTO memberships (tenant_id, user_id, role, created_at)
           VALUES ('{id}', '{user}', '{ROLE}', {at});",
        slug = tenant.slug,
    )
}

fn push_key(sql: &mut String, key: &KeyAuthority, postgres: bool, comma: bool) -> std::fmt::Result {
    let hash = key.hash.as_bytes().iter().fold(String::new(), |mut text, byte| {
        // writing to memory cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    });
    let hash = if postgres { format!("'\\x{hash}'") } else { format!("X'{hash}'") };
    write!(
        sql,
        "{comma}('{tenant}', '{id}', 'live', '{name}', '', 'aaaa', {hash}, {version}, \
         '[\"{SCOPE}\"]', '{owner}', 'scale', {at}, '[]', '{id}')",
        comma = if comma { "," } else { "" },
        tenant = key.tenant,
        id = key.id,
        name = key.name,
        version = key.pepper_version,
        owner = key.owner,
        at = MADE_AT.as_millis(),
    )
}

struct Requests {
    requests_per_second: f64,
    refused: usize,
}

fn request(secret: &str) -> http::Result<Request<Body>> {
    let request = Request::get(PATH).header("host", "scale");
    request.header("authorization", format!("Bearer {secret}")).body(Body::empty())
}

/// How long the very first request takes.
async fn first(app: &Router, tokens: &[KeySecret]) -> anyhow::Result<Duration> {
    let secret = tokens.first().context("there are no keys")?;
    let request = request(secret.expose())?;
    let sent = elapsed();
    let Ok(response) = app.clone().oneshot(request).await;
    let took = since(sent);
    anyhow::ensure!(response.status() == StatusCode::OK, "{} at first", response.status());
    Ok(took)
}

/// Requests with keys in no order, some at once.
async fn requests(
    app: &Router,
    tokens: &[KeySecret],
    options: &Options,
) -> anyhow::Result<(Requests, Vec<Duration>)> {
    let secrets: Arc<[String]> = tokens.iter().map(|secret| secret.expose().to_owned()).collect();
    let begun = elapsed();
    let mut workers = Vec::new();
    for worker in 0..options.at_once {
        let (app, secrets) = (app.clone(), Arc::clone(&secrets));
        let count = options.look_ups / options.at_once;
        workers.push(tokio::spawn(async move {
            let mut order = Order::of(worker);
            let (mut refused, mut times) = (0, Vec::with_capacity(count));
            for _ in 0..count {
                let Some(secret) = secrets.get(order.below(secrets.len())) else { continue };
                let request = request(secret)?;
                let sent = elapsed();
                let Ok(response) = app.clone().oneshot(request).await;
                times.push(since(sent));
                refused += usize::from(response.status() != StatusCode::OK);
            }
            anyhow::Ok((refused, times))
        }));
    }
    let (mut refused, mut times) = (0, Vec::new());
    for worker in workers {
        let (more, theirs) = worker.await.context("a worker ended")??;
        refused += more;
        times.extend(theirs);
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
    let requests_per_second = times.len() as f64 / since(begun).as_secs_f64();
    Ok((Requests { requests_per_second, refused }, times))
}

/// Ids that the node looked up in its store, as its metrics say.
async fn look_ups(node: &EmbeddedNode) -> anyhow::Result<u64> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(node.internal()).await?;
    let request = b"GET /metrics HTTP/1.1\r\nhost: scale\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let name = "keyward_authority_look_ups_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.context("no such metric")?.trim().parse()?)
}
