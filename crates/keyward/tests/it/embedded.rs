//! A node inside an application: an axum router behind the layer, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Path};
use axum::routing::get;
use axum::{Extension, Json, Router};
use keyward::embedded::{Caller, EmbeddedConfig, EmbeddedNode, EmbeddedOptions, EnvironmentSet};
use keyward_core::Clock as _;
use keyward_testkit::{ManualClock, TestDatabase};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::harness::{DAY_MS, LAGOS_PAY, PROFILE, Setup, Site, TestNode};

/// The product's own API, as a part of its application.
fn application() -> Router {
    Router::new()
        .route("/v1/reports", get(reports).post(reports))
        .route("/v1/reports/{id}", get(report))
        .route("/v1/internal/settings", get(async || "nobody sees this"))
}

async fn reports(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({ "tenant": caller.tenant, "key": caller.key, "role": &*caller.role }))
}

async fn report(Path(id): Path<String>, Extension(caller): Extension<Caller>) -> String {
    format!("{id} of {}", caller.tenant)
}

/// An application with a node in it, and whoever administers the deployment.
struct Embedding {
    node: EmbeddedNode,
    site: Site,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    /// The node beside it; SQLite has one node only.
    beside: Option<Box<TestNode>>,
    database: Option<TestDatabase>,
    clock: Arc<ManualClock>,
}

impl Embedding {
    /// On SQLite the embedded node is the whole deployment; on PostgreSQL another node has the
    /// control plane.
    async fn start(database: TestDatabase) -> Self {
        Box::pin(Self::start_with(database, &[])).await
    }

    /// The same with more settings.
    async fn start_with(database: TestDatabase, more: &[(&str, &str)]) -> Self {
        let seeded = Box::pin(TestNode::start(database, &Setup::default())).await;
        let mut config = EmbeddedConfig::new(None)
            .clock(seeded.clock.clone())
            .set("profile", PROFILE)
            .set("data-dir", seeded.database.data_dir().to_str().unwrap())
            .set("store.url", seeded.database.url())
            .set("control.listen", "127.0.0.1:0")
            .set("internal.listen", "127.0.0.1:0");
        config = more.iter().fold(config, |config, (name, value)| config.set(*name, *value));
        let shared = seeded.database.migrate_url().is_some();
        let clock = seeded.clock.clone();
        let told = seeded.told();
        let (beside, database) = if shared {
            config = config.set("role", "gateway");
            (Some(Box::new(seeded)), None)
        } else {
            (None, Some(seeded.stop().await.0))
        };
        let node = Box::pin(EmbeddedNode::start(config)).await.expect("a node that starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = format!("http://{}", listener.local_addr().unwrap());
        let control = node.control().map_or_else(
            || told["control"].as_str().unwrap().to_owned(),
            |address| format!("http://{address}"),
        );
        let mut ready = told;
        ready["gateways"] = json!([gateway]);
        ready["control"] = json!(control);
        ready["internal"] = json!(format!("http://{}", node.internal()));
        let options = EmbeddedOptions::new(EnvironmentSet::ALL).peer(|parts| {
            let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
            connection.map(|connection| connection.0.ip())
        });
        let router = application().layer(node.layer(options));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            let serving = axum::serve(listener, service);
            let stopped = async {
                let _ = stopped.await;
            };
            serving.with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { node, site: Site::new(&ready), stop, served, beside, database, clock }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.served.await.unwrap();
        self.node.stop().await;
        if let Some(node) = self.beside {
            Box::pin(node.stop()).await;
        }
    }
}

async fn on_every_engine(test: impl AsyncFn(&Embedding)) {
    for database in TestDatabase::every().await {
        eprintln!("on {}", database.engine_name());
        let embedding = Box::pin(Embedding::start(database)).await;
        test(&embedding).await;
        Box::pin(embedding.stop()).await;
    }
}

#[tokio::test]
async fn requests_are_decided_in_the_application() {
    on_every_engine(async |embedding| {
        let site = &embedding.site;
        let key = site.minted(&["reports:read"]).await;
        let caller = site.bearer(&key.secret);
        let told = caller.get("/v1/reports").await.is(200);
        assert_eq!(told["tenant"], site.tenant(LAGOS_PAY));
        assert_eq!((&told["key"], &told["role"]), (&json!(key.id), &json!("owner")));
        let report = caller.get("/v1/reports/rep_1").await.is(200);
        assert_eq!(report, json!(format!("rep_1 of {}", site.tenant(LAGOS_PAY))));
        caller.post("/v1/reports", json!({})).await.refused(405, "method_not_allowed");
        caller.get("/v1/internal/settings").await.refused_at(403, "forbidden", "route");
        site.anonymous()
            .at(&site.gateways[0])
            .get("/v1/reports")
            .await
            .refused(401, "missing_api_key");
        // a built-in operation of the product needs nothing of the application
        let document = caller.get("/v1/openapi.json").await.is(200);
        assert_eq!(document["info"]["title"], "Asiri API");
    })
    .await;
}

#[tokio::test]
async fn a_revocation_is_effective_in_the_application_when_it_answers() {
    on_every_engine(async |embedding| {
        let site = &embedding.site;
        for _ in 0..20 {
            let key = site.minted(&["reports:read"]).await;
            let caller = site.bearer(&key.secret);
            caller.get("/v1/reports").await.is(200);
            let answer = site.revoke(&key.id).await;
            assert_eq!(answer["fence"]["status"], "effective", "{answer}");
            let nodes = if embedding.beside.is_some() { 2 } else { 1 };
            assert_eq!(answer["fence"]["nodes"], nodes, "{answer}");
            caller.get("/v1/reports").await.refused_at(401, "unauthorized", "state");
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_stops_is_off_the_register_and_its_use_is_noted() {
    for database in TestDatabase::every().await {
        eprintln!("on {}", database.engine_name());
        let embedding = Box::pin(Embedding::start(database)).await;
        let key = embedding.site.minted(&["reports:read"]).await;
        embedding.site.bearer(&key.secret).get("/v1/reports").await.is(200);
        let nodes = embedding.site.operator().get("/v1/nodes").await.is(200);
        let mut listed = nodes["nodes"].as_array().unwrap().iter();
        let embedded = listed.any(|node| node["roles"] == json!(["gateway"]));
        assert_eq!(embedded, embedding.beside.is_some(), "{nodes}");
        let Embedding { node, stop, served, beside, database, clock, .. } = embedding;
        let _ = stop.send(());
        served.await.unwrap();
        node.stop().await;
        let node = match (beside, database) {
            (Some(node), _) => node,
            (None, Some(database)) => {
                Box::new(Box::pin(TestNode::start_at(database, &Setup::default(), clock)).await)
            }
            (None, None) => panic!("one of them holds the database"),
        };
        let site: &Site = &node;
        let nodes = site.operator().get("/v1/nodes").await.is(200);
        assert!(nodes["nodes"].as_array().unwrap().len() <= 1, "{nodes}");
        let record = site.operator().get(&site.key_path(&key.id, "")).await.is(200);
        assert!(record["lastUsedAt"].is_string(), "{record}");
        let answer = site.revoke(&key.id).await;
        assert_eq!(answer["fence"]["status"], "effective", "{answer}");
        assert_eq!(answer["fence"]["nodes"], 1, "no change waits for the node that left: {answer}");
        Box::pin(node.stop()).await;
    }
}

#[tokio::test]
async fn a_key_expires_by_the_clock_of_the_node() {
    on_every_engine(async |embedding| {
        let site = &embedding.site;
        let mut body = site.key_body(LAGOS_PAY, &["reports:read"]).await;
        body["expiresAt"] = json!(embedding.clock.now().plus_ms(DAY_MS));
        let key = site.mint(LAGOS_PAY, body).await;
        let caller = site.bearer(&key.secret);
        caller.get("/v1/reports").await.is(200);
        embedding.clock.advance_ms(DAY_MS + 1);
        caller.get("/v1/reports").await.refused(401, "expired_api_key");
    })
    .await;
}

#[tokio::test]
async fn keys_that_made_room_for_others_are_looked_up_and_revocations_hold() {
    for database in TestDatabase::every().await {
        eprintln!("on {}", database.engine_name());
        // one key in each of 64 parts of the set
        let embedding =
            Box::pin(Embedding::start_with(database, &[("authority.max-keys", "64")])).await;
        let site = &embedding.site;
        let mut keys = Vec::new();
        for _ in 0..150 {
            keys.push(site.minted(&["reports:read"]).await);
        }
        for _ in 0..2 {
            for key in &keys {
                site.bearer(&key.secret).get("/v1/reports").await.is(200);
            }
        }
        let metrics = site.anonymous().at(&site.internal).get("/metrics").await.text;
        let number = |name: &str| -> u64 {
            let mut lines = metrics.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.unwrap_or_else(|| panic!("{name} in {metrics}")).parse().unwrap()
        };
        assert!(number("keyward_authority_keys") <= 64, "{metrics}");
        assert!(number("keyward_authority_evicted_keys_total") >= 200, "{metrics}");
        for key in keys.iter().step_by(5) {
            let answer = site.revoke(&key.id).await;
            assert_eq!(answer["fence"]["status"], "effective", "{answer}");
        }
        for (position, key) in keys.iter().enumerate() {
            let got = site.bearer(&key.secret).get("/v1/reports").await;
            if position % 5 == 0 {
                got.refused_at(401, "unauthorized", "state");
            } else {
                got.is(200);
            }
        }
        Box::pin(embedding.stop()).await;
    }
}

#[tokio::test]
async fn the_database_is_free_as_soon_as_the_node_has_stopped() {
    let mut embedding = Embedding::start_with(TestDatabase::sqlite(), &[]).await;
    let database = embedding.database.take().unwrap();
    let held = std::fs::File::open(database.data_dir().join("keyward.lock")).unwrap();
    assert!(held.try_lock().is_err());
    Box::pin(embedding.stop()).await;
    held.try_lock().expect("a database that another process may open at once");
}

#[tokio::test]
async fn settings_that_do_not_exist_are_named() {
    let config = EmbeddedConfig::new(None).set("profile", "/nowhere").set("data-dir", "/nowhere");
    let error = Box::pin(EmbeddedNode::start(config)).await.err().expect("no node");
    assert!(format!("{error:#}").contains("/nowhere/profile.toml"), "{error:#}");
    let config = EmbeddedConfig::new(None).set("store.connections", "many");
    let error = Box::pin(EmbeddedNode::start(config)).await.err().expect("no node");
    assert!(format!("{error:#}").contains("store.connections"), "{error:#}");
    let config = EmbeddedConfig::new(None).set("store.conections", "1");
    let error = Box::pin(EmbeddedNode::start(config)).await.err().expect("no node");
    assert!(format!("{error:#}").contains("store.conections"), "{error:#}");
}
