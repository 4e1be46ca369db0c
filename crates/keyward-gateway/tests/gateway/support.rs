//! A product, a plane, an upstream that tells what it received, and clients that speak raw bytes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, from_value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use keyward_core::assertion::{SigningKey, VerifyKey};
use keyward_core::authority::{
    AdminTokenAuthority, KeyAuthority, MemberAuthority, TenantAuthority,
};
use keyward_core::catalog::Catalog;
use keyward_core::clock::Clock;
use keyward_core::environment::{Environment, EnvironmentSet};
use keyward_core::id::{KeyId, TenantId, UserId};
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{Keyring, Pepper, SecretKind, TagKey};
use keyward_core::lease::Lease;
use keyward_core::profile::Profile;
use keyward_core::time::Timestamp;
use keyward_gateway::{
    AdminTokens, Builtins, DataPlane, DataPlaneConfig, GatewayOptions, GatewayServer,
    InvalidConfig, KeySet, PlanePolicy, ProductConfig, UpstreamConfig,
};
use keyward_testkit::admin_token;

pub(crate) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
pub(crate) const AUDIENCE: &str = "acme-api";
pub(crate) const START_MS: i64 = 1_800_000_000_000;
/// Nothing here takes this long; it only keeps a broken test from hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Time that stands still until a test moves it.
pub(crate) struct HandClock {
    pub(crate) ms: AtomicI64,
    random: AtomicU64,
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.ms.load(Ordering::SeqCst))
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.ms.load(Ordering::SeqCst)).unwrap() * 1_000_000
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let word = self.random.fetch_add(1, Ordering::SeqCst);
            let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

pub(crate) fn profile() -> Profile {
    from_value(json!({
        "name": "acme", "title": "Acme", "base_path": "/v1", "openapi": "openapi.json",
        "keys": {
            "prefix": "acme",
            "environments": {"live": "live", "test": "test"},
            "carriers": ["bearer", "api-key-scheme", "x-api-key"],
        },
        "scopes": {
            "audit:read": {"description": "."},
            "reports:read": {"description": "."},
            "reports:write": {"description": "."},
        },
        "roles": {
            "admin": {"title": "Administrator", "areas": ["*"], "operations": ["*"]},
            "auditor": {"title": "Auditor", "areas": ["audit"]},
        },
    }))
    .unwrap()
}

fn catalog() -> Arc<Catalog> {
    let operation = |id: &str, scopes: Value| {
        json!({
            "operationId": id, "summary": ".", "security": scopes,
        })
    };
    let read = json!([{"key": ["reports:read"]}]);
    let write = json!([{"key": ["reports:write"]}]);
    let mut invoices = operation("listInvoices", read.clone());
    invoices["x-keyward-upstream"] = json!("billing");
    let mut quick = operation("quick", read.clone());
    quick["x-keyward-timeout-ms"] = json!(300);
    let mut import = operation("importReports", write.clone());
    import["x-keyward-timeout-ms"] = json!(0);
    let mut socket = operation("socket", read.clone());
    socket["x-keyward-upgrade"] = json!("websocket");
    let mut builtin = operation("openapi", read.clone());
    builtin["x-keyward-builtin"] = json!("openapi");
    let document = json!({
        "openapi": "3.1.0",
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/v1/reports": {
                "get": operation("listReports", read.clone()),
                "head": operation("headReports", read.clone()),
                "post": operation("makeReport", write.clone()),
            },
            "/v1/reports:import": {"post": import},
            "/v1/reports:build": {"get": operation("previewBuild", read.clone())},
            "/v1/reports/{id}/files/{name}": {"get": operation("getFile", read.clone())},
            "/v1/reports/{id}": {
                "get": operation("getReport", read.clone()),
                "head": operation("headReport", read),
                "put": operation("putReport", write.clone()),
                "delete": operation("deleteReport", write),
            },
            "/v1/audit": {"get": operation("audit", json!([{"key": ["audit:read"]}]))},
            "/v1/openapi.json": {"get": builtin},
            "/v1/billing/invoices": {"get": invoices},
            "/v1/quick": {"get": quick},
            "/v1/socket": {"get": socket},
        },
    });
    Arc::new(Catalog::new(&profile(), &document).unwrap())
}

/// The lease of a plane that follows nobody.
pub(crate) const FOR_EVER: Lease = Lease { until_ns: u64::MAX, stale_until_ns: u64::MAX };

/// A plane with one tenant, one administrator and one key that may read and write reports.
pub(crate) struct World {
    pub(crate) clock: Arc<HandClock>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) keys: Arc<KeySet>,
    pub(crate) admin_tokens: Arc<AdminTokens>,
    pub(crate) authority: KeyAuthority,
    pub(crate) token: String,
}

pub(crate) const TENANT: TenantId = TenantId::from_bits(11);
pub(crate) const OTHER_TENANT: TenantId = TenantId::from_bits(12);
pub(crate) const OWNER: UserId = UserId::from_bits(21);

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(HandClock { ms: AtomicI64::new(START_MS), random: AtomicU64::new(1) });
        let format = profile().token_format();
        let keyring =
            Keyring::new(format, TagKey::new(&[1; 32]), Pepper::new(1, &[2; 32]), Vec::new());
        let keyring = Arc::new(keyring);
        let catalog = catalog();
        let keys = Arc::new(KeySet::new(Arc::clone(&catalog), Arc::clone(&keyring)));
        for (id, slug) in [(TENANT, "lagos-pay"), (OTHER_TENANT, "accra-pay")] {
            keys.replace_tenant(TenantAuthority { id, slug: slug.to_owned(), suspended: false });
        }
        keys.replace_member(&MemberAuthority {
            tenant: TENANT,
            user: OWNER,
            role: "admin".to_owned(),
        });
        let (token, authority) = mint(&keyring, &clock, Environment::Live);
        keys.replace_key(authority.clone());
        let admin_tokens = Arc::new(AdminTokens::new(Arc::clone(&keyring)));
        Self { clock, keyring, catalog, keys, admin_tokens, authority, token }
    }

    pub(crate) fn set_role(&self, role: &str) {
        self.keys.replace_member(&MemberAuthority {
            tenant: TENANT,
            user: OWNER,
            role: role.to_owned(),
        });
    }

    pub(crate) fn change_key(&self, change: impl FnOnce(&mut KeyAuthority)) {
        let mut changed = self.authority.clone();
        change(&mut changed);
        self.keys.replace_key(changed);
    }

    /// A key of another environment.
    pub(crate) fn key_of(&self, environment: Environment) -> String {
        self.key_with(environment, |_| {})
    }

    /// A whole key of this deployment that it does not know.
    pub(crate) fn key_of_nobody(&self) -> String {
        mint(&self.keyring, &self.clock, Environment::Live).0
    }

    /// A key that differs from the usual one.
    pub(crate) fn key_with(
        &self,
        environment: Environment,
        change: impl FnOnce(&mut KeyAuthority),
    ) -> String {
        let (token, mut authority) = mint(&self.keyring, &self.clock, environment);
        change(&mut authority);
        self.keys.replace_key(authority);
        token
    }

    pub(crate) fn admin_token(&self, scopes: &[&str], tenant: Option<TenantId>) -> String {
        let minted = self.keyring.mint(SecretKind::Admin, self.clock.as_ref());
        self.admin_tokens.replace(AdminTokenAuthority {
            tenant,
            role: tenant.map(|_| "admin".to_owned()),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..admin_token(&minted)
        });
        minted.secret.expose().to_owned()
    }

    pub(crate) fn plane(&self, upstreams: Vec<UpstreamConfig>) -> Arc<DataPlane> {
        self.plane_with(upstreams, PlanePolicy::default(), None)
    }

    pub(crate) fn try_plane(
        &self,
        upstreams: Vec<UpstreamConfig>,
    ) -> Result<DataPlane, InvalidConfig> {
        self.make(upstreams, PlanePolicy::default(), None)
    }

    pub(crate) fn plane_with(
        &self,
        upstreams: Vec<UpstreamConfig>,
        policy: PlanePolicy,
        tenant_header: Option<&str>,
    ) -> Arc<DataPlane> {
        Arc::new(self.make(upstreams, policy, tenant_header).unwrap())
    }

    fn make(
        &self,
        upstreams: Vec<UpstreamConfig>,
        policy: PlanePolicy,
        tenant_header: Option<&str>,
    ) -> Result<DataPlane, InvalidConfig> {
        let builtin = |call: keyward_gateway::BuiltinCall| -> futures_util::future::BoxFuture<
            'static,
            keyward_core::Result<Response<Bytes>>,
        > {
            Box::pin(async move {
                assert_ne!(call.query, "faulty", "a fault that a test asks for");
                let text = format!("{} {} {}", call.name, call.path, call.caller.tenant);
                Ok(Response::new(Bytes::from(text)))
            })
        };
        let plane = DataPlane::new(DataPlaneConfig {
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            keys: Arc::clone(&self.keys),
            admin_tokens: Arc::clone(&self.admin_tokens),
            product: ProductConfig {
                catalog: Arc::clone(&self.catalog),
                carriers: profile().keys.carriers,
                tenant_header: tenant_header.map(str::to_owned),
                builtins: Builtins::default().with("openapi", Box::new(builtin)),
                docs_base: "/docs".to_owned(),
            },
            upstreams,
            policy,
        });
        if let Ok(plane) = &plane {
            plane.lease().grant(FOR_EVER);
        }
        plane
    }
}

fn mint(keyring: &Keyring, clock: &HandClock, environment: Environment) -> (String, KeyAuthority) {
    let minted = keyring.mint(SecretKind::Api(environment), clock);
    let authority = KeyAuthority {
        tenant: TENANT,
        id: KeyId::from_bits(minted.id_bits),
        environment,
        hash: minted.hash,
        pepper_version: minted.pepper_version,
        scopes: vec!["reports:read".to_owned(), "reports:write".to_owned()],
        owner: OWNER,
        name: "Nächtlich 1%".to_owned(),
        expires_at: None,
        revoked_at: None,
        suspect_since: None,
        ip_allowlist: IpAllowlist::default(),
    };
    (minted.secret.expose().to_owned(), authority)
}

pub(crate) fn live() -> EnvironmentSet {
    [Environment::Live].into_iter().collect()
}

pub(crate) fn upstream_at(address: SocketAddr) -> UpstreamConfig {
    let key = Arc::new(SigningKey::hs256(SECRET).unwrap());
    UpstreamConfig::new(EnvironmentSet::ALL, format!("http://{address}"), AUDIENCE, key)
}

pub(crate) fn verify_key() -> VerifyKey {
    VerifyKey::hs256(SECRET).unwrap()
}

pub(crate) fn options() -> GatewayOptions {
    GatewayOptions::new(live())
}

pub(crate) fn start(plane: &Arc<DataPlane>, options: GatewayOptions) -> GatewayServer {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    GatewayServer::bind(&[any], Arc::clone(plane), options).unwrap()
}

/// A gateway in front of the telling upstream.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) server: GatewayServer,
    pub(crate) upstream: Upstream,
}

pub(crate) async fn stage() -> Stage {
    stage_with(|_| {}, None).await
}

pub(crate) async fn stage_with(
    tune: impl FnOnce(&mut GatewayOptions),
    tenant_header: Option<&str>,
) -> Stage {
    let world = World::new();
    let upstream = Upstream::start().await;
    let config = vec![upstream_at(upstream.address)];
    let plane = world.plane_with(config, PlanePolicy::default(), tenant_header);
    let mut options = options();
    tune(&mut options);
    let server = start(&plane, options);
    Stage { world, plane, server, upstream }
}

impl Stage {
    /// One request on a connection of its own, with the right key.
    pub(crate) async fn send(&self, method: &str, path: &str, more: &str) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: api.test\r\nauthorization: Bearer {}\r\n{more}\r\n",
            self.world.token
        );
        raw(self.server.local_addr(), head.as_bytes()).await
    }

    /// One request with these headers and nothing else.
    pub(crate) async fn send_bare(&self, method: &str, path: &str, headers: &str) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: api.test\r\n{headers}\r\n");
        raw(self.server.local_addr(), head.as_bytes()).await
    }

    /// A refusal: its status, code and failed step.
    pub(crate) async fn refused(
        &self,
        method: &str,
        path: &str,
        more: &str,
    ) -> (u16, String, String) {
        self.send(method, path, more).await.refusal()
    }
}

/// An upstream that answers with what it received, and counts.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<AtomicU64>,
    pub(crate) connections: Arc<AtomicU64>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let (requests, connections) = (upstream.requests.clone(), upstream.connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let requests = Arc::clone(&requests);
                let service = service_fn(move |request| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    tell(request)
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        upstream
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn tell(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(Response::new(Full::default()));
    };
    let headers: serde_json::Map<String, Value> = parts
        .headers
        .keys()
        .map(|name| {
            let values = parts.headers.get_all(name).iter();
            let values: Vec<_> = values.map(|it| String::from_utf8_lossy(it.as_bytes())).collect();
            (name.to_string(), json!(values.join(" | ")))
        })
        .collect();
    let told = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body.to_bytes()),
    });
    let response = Response::builder()
        .header("x-upstream", "told")
        .header("x-request-id", "forged")
        .header("keyward-tenant", "forged")
        .header("access-control-allow-origin", "*")
        .header("connection", "x-once")
        .header("x-once", "1")
        .body(Full::from(told.to_string()));
    Ok(response.unwrap())
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    /// Whether the connection was closed behind it.
    pub(crate) closed: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines.filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?} has no JSON body"))
    }

    /// What the upstream received, when it was the upstream that answered.
    pub(crate) fn told(&self) -> Value {
        assert_eq!((self.status, self.header("x-upstream")), (200, Some("told")), "{self:?}");
        self.json()
    }

    pub(crate) fn refusal(&self) -> (u16, String, String) {
        let body = self.json();
        let error = &body["error"];
        assert_eq!(error["requestId"].as_str(), self.header("x-request-id"), "{self:?}");
        assert!(error["requestId"].as_str().unwrap().starts_with("req_"));
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert!(error["details"]["docUrl"].as_str().unwrap().starts_with("/docs/errors/"));
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        (self.status, text(&error["code"]), text(&error["details"]["failed"]))
    }

    pub(crate) fn details(&self) -> Value {
        self.json()["error"]["details"].clone()
    }
}

/// Sends bytes on a new connection and reads one answer.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut client = Client::connect(address).await;
    client.write(bytes).await;
    client.answer().await
}

/// A connection that speaks raw bytes.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // the other side may have answered and closed already; the answer is what counts
        let _ = self.stream.write_all(bytes).await;
    }

    /// Writes, and says whether the other side may still be there.
    pub(crate) async fn write_or_end(&mut self, bytes: &[u8]) -> bool {
        let written = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        written.expect("room in time").is_ok()
    }

    /// Reads more. False when the other side closed.
    pub(crate) async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 16 * 1024];
        let read =
            timeout(PATIENCE, self.stream.read(&mut chunk)).await.expect("an answer in time");
        let count = read.unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..count]);
        count > 0
    }

    /// The next head, without reading its body.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8(self.buffer[..end].to_vec()).unwrap();
                self.buffer.drain(..end + 4);
                return head;
            }
            if !self.more().await {
                let rest = String::from_utf8_lossy(&self.buffer).into_owned();
                panic!("closed before a whole head: {rest:?}");
            }
        }
    }

    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.more().await, "closed after {} of {count} bytes", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// The next bytes; `None` when the other side closes before them.
    pub(crate) async fn bytes_or_end(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    pub(crate) async fn answer_to(&mut self, method: &str) -> Answer {
        let head = self.head().await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer =
            Answer { status, head: head.to_ascii_lowercase(), body: String::new(), closed: false };
        let length = answer.header("content-length").map(|it| it.parse::<usize>().unwrap());
        let body = if method == "HEAD" || status == 204 {
            Vec::new()
        } else if answer.header("transfer-encoding").is_some() {
            self.chunks().await
        } else {
            self.bytes(length.unwrap_or(0)).await
        };
        answer.body = String::from_utf8(body).unwrap();
        if answer.header("connection") == Some("close") {
            answer.closed = self.is_closed().await;
        }
        // names were lowered for the search; values keep their case
        answer.head = head
            .lines()
            .map(|line| match line.split_once(": ") {
                Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
                None => line.to_owned(),
            })
            .collect::<Vec<_>>()
            .join("\n");
        answer
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = find(&self.buffer, b"\r\n") {
                    break self.buffer.drain(..end + 2).collect::<Vec<u8>>();
                }
                assert!(self.more().await, "closed within a chunked body");
            };
            let text = String::from_utf8(line).unwrap();
            let size = usize::from_str_radix(text.trim(), 16).unwrap();
            body.extend(self.bytes(size).await);
            self.bytes(2).await;
            if size == 0 {
                return body;
            }
        }
    }

    /// Whether the other side closes without sending anything more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// An upstream of raw bytes: each accepted connection is handed to the test.
pub(crate) async fn raw_upstream() -> (SocketAddr, mpsc::UnboundedReceiver<Client>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let client = Client { stream, buffer: Vec::new() };
            if sender.send(client).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

/// The metrics of a plane as they are scraped.
pub(crate) fn metrics_of(plane: &DataPlane) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(plane.metrics()));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}
