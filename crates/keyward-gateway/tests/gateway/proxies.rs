//! Proxies of other makers with the samples of `deploy/proxies`, a real data plane and a real
//! upstream. Of a sample only addresses are changed.

mod samples;

use std::net::SocketAddr;

use serde_json::Value;

use keyward_core::Timestamp;
use keyward_core::key::Exposure;
use keyward_core::lease::Lease;
use keyward_gateway::{FAILURE_BURST, Networks, PlanePolicy};
use keyward_testkit::{Program, ServerProcess};

use crate::exposures::other_address;
use crate::forward_auth::{Asking, asking_before};
use crate::support::*;

/// A sample and the program that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    Nginx,
    Caddy,
    EnvoyHttp,
    EnvoyGrpc,
    HaProxy,
    Apache,
}

const ALL: [Sample; 6] = [
    Sample::Nginx,
    Sample::Caddy,
    Sample::EnvoyHttp,
    Sample::EnvoyGrpc,
    Sample::HaProxy,
    Sample::Apache,
];

const NGINX_MAIN: &str = "pid {{folder}}/pid; worker_processes 1;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path {{folder}}/body;
    proxy_temp_path {{folder}}/proxy;
    fastcgi_temp_path {{folder}}/fastcgi;
    uwsgi_temp_path {{folder}}/uwsgi;
    scgi_temp_path {{folder}}/scgi;
";
const CADDY_MAIN: &str = "{\n admin off\n auto_https off\n}\n";
const APACHE_MAIN: &str = "ServerName localhost
Listen {{listen}}
PidFile {{folder}}/pid
DefaultRuntimeDir {{folder}}
ErrorLog {{folder}}/errors
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
";

impl Sample {
    /// Whether it asks and forwards by itself, instead of standing before the gateway.
    fn asks(self) -> bool {
        !matches!(self, Self::HaProxy | Self::Apache)
    }

    fn is_envoy(self) -> bool {
        matches!(self, Self::EnvoyHttp | Self::EnvoyGrpc)
    }

    fn program(self) -> Program {
        match self {
            Self::Nginx => Program::Nginx,
            Self::Caddy => Program::Caddy,
            Self::EnvoyHttp | Self::EnvoyGrpc => Program::Envoy,
            Self::HaProxy => Program::HaProxy,
            Self::Apache => Program::Apache,
        }
    }

    fn text(self) -> String {
        let file = match self {
            Self::Nginx => "nginx/keyward.conf",
            Self::Caddy => "caddy/Caddyfile",
            Self::EnvoyHttp => "envoy/http.yaml",
            Self::EnvoyGrpc => "envoy/grpc.yaml",
            Self::HaProxy => "haproxy/haproxy.cfg",
            Self::Apache => "apache/keyward.conf",
        };
        sample_text(file)
    }

    /// The sample with other addresses, in what its program needs around it.
    fn configuration(self, places: &Places) -> String {
        let keyward = ("127.0.0.1:8789", places.internal.to_string());
        let api = ("127.0.0.1:9000", places.api.to_string());
        let gateway = ("127.0.0.1:8788", places.gateway.to_string());
        let listen = ("127.0.0.1:8080", "{{listen}}".to_owned());
        let port = |port: u16| format!("port_value: {port} ");
        let checked = ("check port 8789", format!("check port {}", places.internal.port()));
        let text = |changes: &[(&str, String)]| {
            changes.iter().fold(self.text(), |text, (from, to)| {
                assert!(text.contains(from), "{self:?} names no {from}");
                text.replace(from, to)
            })
        };
        match self {
            Self::Nginx => format!("{NGINX_MAIN}{}}}", text(&[keyward, api, listen])),
            Self::Caddy => {
                let name = ("api.example.com {", "http://:{{port}} {\n\tbind 127.0.0.1".to_owned());
                format!("{CADDY_MAIN}{}", text(&[keyward, api, name]))
            }
            Self::EnvoyHttp | Self::EnvoyGrpc => text(&[
                ("port_value: 8080 ", "port_value: {{port}} ".to_owned()),
                ("port_value: 8789 ", port(places.internal.port())),
                ("port_value: 9000 ", port(places.api.port())),
            ]),
            Self::HaProxy => text(&[gateway, listen, checked]),
            Self::Apache => format!("{APACHE_MAIN}{}", text(&[gateway, listen])),
        }
    }
}

fn sample_text(file: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/proxies");
    std::fs::read_to_string(format!("{folder}/{file}")).unwrap()
}

/// Where a proxy finds the others.
struct Places {
    internal: SocketAddr,
    gateway: SocketAddr,
    api: SocketAddr,
}

/// A data plane, an upstream, and a proxy between them and the client.
struct Front {
    sample: Sample,
    asking: Asking,
    upstream: Upstream,
    proxy: ServerProcess,
}

impl Front {
    /// Nothing when the program is not installed.
    async fn of(sample: Sample, tenant_header: Option<&str>) -> Option<Self> {
        Self::changed(sample, tenant_header, |text| text).await
    }

    /// With another configuration than the sample's.
    async fn changed(
        sample: Sample,
        tenant_header: Option<&str>,
        change: impl FnOnce(String) -> String,
    ) -> Option<Self> {
        let upstream = Upstream::start().await;
        let asking = asking_before(vec![upstream_at(upstream.address)], tenant_header);
        let places = Places {
            internal: asking.internal.local_addr(),
            gateway: asking.gateway.local_addr(),
            api: upstream.address,
        };
        let text = change(sample.configuration(&places));
        let proxy = ServerProcess::start(sample.program(), &text, &[]).await?;
        let front = Self { sample, asking, upstream, proxy };
        front.until_it_forwards().await;
        Some(front)
    }

    /// Health checks take a moment before the first request passes.
    async fn until_it_forwards(&self) {
        for _ in 0..500 {
            if self.send("GET", "/v1/nowhere", "").await.status != 503 {
                return;
            }
            let pause = std::time::Duration::from_millis(20);
            let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
        }
        panic!("{:?} never forwards: {}", self.sample, self.proxy.log());
    }

    async fn send(&self, method: &str, target: &str, headers: &str) -> Answer {
        self.send_with_body(method, target, headers, "").await
    }

    async fn send_with_body(
        &self,
        method: &str,
        target: &str,
        headers: &str,
        body: &str,
    ) -> Answer {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: api.test\r\n{headers}{length}\r\n{body}");
        let mut client = Client::connect(self.proxy.address()).await;
        client.write(request.as_bytes()).await;
        client.answer_to(method).await
    }

    async fn send_with_key(&self, method: &str, target: &str, headers: &str) -> Answer {
        let bearer = format!("Authorization: Bearer {}\r\n{headers}", self.asking.world.token);
        self.send(method, target, &bearer).await
    }

    /// The status and the error that the client sees, which must be the gateway's own.
    fn refusal(&self, answer: &Answer) -> (u16, Value) {
        let context = format!("{:?}: {answer:?}\n{}", self.sample, self.proxy.log());
        assert_eq!(answer.header("content-type"), Some("application/json"), "{context}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{context}");
        let mut envelope = answer.json();
        let id = envelope["error"]["requestId"].as_str();
        assert_eq!(id, answer.header("x-request-id"), "{context}");
        let challenges =
            answer.head.lines().filter(|line| line.starts_with("www-authenticate:")).count();
        let scope = envelope["error"]["details"]["failed"] == "scope";
        assert_eq!(challenges, usize::from(answer.status == 401 || scope), "{context}");
        (answer.status, envelope["error"].take())
    }
}

async fn start_proxy(sample: Sample, places: &Places) -> Option<ServerProcess> {
    ServerProcess::start(sample.program(), &sample.configuration(places), &[]).await
}

#[tokio::test]
async fn an_allowed_request_reaches_the_api_with_an_identity_and_without_its_key() {
    for sample in ALL {
        let Some(front) = Front::of(sample, None).await else { continue };
        let world = &front.asking.world;
        let answer =
            front.send_with_key("GET", "/v1/reports/rep_1?x=%2F&y", "Accept: a/b\r\n").await;
        let told = answer.told();
        let headers = &told["headers"];
        assert_eq!(told["target"], "/v1/reports/rep_1?x=%2F&y", "{sample:?}");
        assert!(!told.to_string().contains(&world.token), "{sample:?} {told}");
        for (name, value) in [
            ("keyward-tenant", TENANT.to_string()),
            ("keyward-environment", "live".to_owned()),
            ("keyward-key-id", world.authority.id.to_string()),
            ("keyward-key-name", "N%C3%A4chtlich 1%25".to_owned()),
            ("keyward-scopes", "reports:read reports:write".to_owned()),
            ("keyward-role", "admin".to_owned()),
            ("keyward-actor", OWNER.to_string()),
            ("accept", "a/b".to_owned()),
        ] {
            assert_eq!(headers[name], value, "{sample:?} {name} {told}");
        }
        // Envoy names a client on its own machine by the machine's address
        if !sample.is_envoy() {
            assert_eq!(headers["x-forwarded-for"], "127.0.0.1", "{sample:?}");
        }
        let token = headers["keyward-assertion"].as_str().unwrap();
        let now = Timestamp::from_millis(START_MS);
        let verified =
            keyward_core::assertion::verify(token, &verify_key(), AUDIENCE, now).unwrap();
        let claims = verified.claims().unwrap();
        assert_eq!((claims.method, claims.path.as_ref()), ("GET", "/v1/reports/rep_1"));
        assert_eq!(headers["keyward-request-id"], claims.request_id);
        // Caddy hands on nothing of the answer to a question when it is yes
        let accepted = (sample != Sample::Caddy).then_some("reports:read");
        assert_eq!(answer.header("keyward-accepted-scopes"), accepted, "{sample:?}");
        let bearer = format!("Authorization: Bearer {}\r\n", world.token);
        let answer = front.send_with_body("POST", "/v1/reports", &bearer, "a body").await;
        let told = answer.told();
        assert_eq!((&told["method"], &told["body"]), (&"POST".into(), &"a body".into()));
        let carried = format!("x-api-key: {}\r\n", world.token);
        let told = front.send("GET", "/v1/reports", &carried).await.told();
        assert!(!told.to_string().contains(&world.token), "{sample:?} {told}");
    }
}

#[tokio::test]
async fn nothing_a_client_says_of_itself_reaches_the_api() {
    let forged = "Keyward-Tenant: evil\r\nKeyward-Environment: evil\r\nKeyward-Key-Id: evil\r\n\
                  Keyward-Key-Name: evil\r\nKeyward-Scopes: evil\r\nKeyward-Role: evil\r\n\
                  Keyward-Actor: evil\r\nKeyward-Request-Id: evil\r\nKeyward-Assertion: evil\r\n\
                  keyward_tenant: evil\r\nkeyward_scopes: evil\r\nKeyward-Decision: evil\r\n\
                  Keyward-Proxy-Token: evil\r\nX-Tenant-Id: evil\r\nX_Tenant_Id: evil\r\n\
                  X-Tenant_Id: evil\r\nX_Tenant-Id: evil\r\n\
                  X-Organization-Id: evil\r\nX-User-Email: evil\r\nX-User-Id: evil\r\n\
                  X-User-Name: evil\r\nX_User-Name: evil\r\nRemote-User: evil\r\n\
                  Remote_User: evil\r\nX_Remote_User: evil\r\nX-Forwarded-User: evil\r\n\
                  X_Forwarded_User: evil\r\nX-Http-Method-Override: evil\r\n\
                  X_Http_Method_Override: evil\r\nX-Rewrite-Url: /evil\r\n\
                  X_Rewrite_Url: /evil\r\nX-Original-Url: /evil\r\nX_Original_Url: /evil\r\n\
                  X-Original-Uri: /evil\r\nX-Forwarded-Uri: /evil\r\n\
                  X-Forwarded-Method: DELETE\r\nX-Original-Method: DELETE\r\n\
                  X-Forwarded-For: 198.51.100.66\r\n";
    for sample in ALL {
        let Some(front) = Front::of(sample, None).await else { continue };
        let mut told = front.send_with_key("GET", "/v1/reports", forged).await.told();
        assert_eq!(told["headers"]["keyward-tenant"], TENANT.to_string(), "{sample:?}");
        // these two speak of the path and the method that were asked for, and grant nothing
        for name in ["x-forwarded-uri", "x-forwarded-method", "x-original-method"] {
            told["headers"].as_object_mut().unwrap().remove(name);
        }
        assert!(!told.to_string().contains("evil"), "{sample:?} {told}");
        // Envoy passes what a client wrote on, and Keyward believes it from a client at a trusted
        // address, as the one of this test is
        if sample.is_envoy() {
            continue;
        }
        let list = keyward_core::ip::IpAllowlist::parse(&["198.51.100.0/24"]).unwrap();
        front.asking.world.change_key(|key| key.ip_allowlist = list);
        let answer = front.send_with_key("GET", "/v1/reports", forged).await;
        let (status, error) = front.refusal(&answer);
        assert_eq!((status, &error["code"]), (403, &"ip_not_allowed".into()), "{sample:?}");
        assert_eq!(front.upstream.requests(), 1, "{sample:?}");
    }
}

#[tokio::test]
async fn every_refusal_comes_through_as_keyward_says_it() {
    for sample in ALL {
        let Some(front) = Front::of(sample, None).await else { continue };
        let refused = async |method: &str, target: &str, headers: &str| {
            let answer = front.send(method, target, headers).await;
            let (status, error) = front.refusal(&answer);
            let code = error["code"].as_str().unwrap().to_owned();
            (status, code, answer.header("allow").map(str::to_owned))
        };
        let bearer = format!("Authorization: Bearer {}\r\n", front.asking.world.token);
        let plain = |status: u16, code: &str| (status, code.to_owned(), None);
        let reports = "/v1/reports";
        assert_eq!(refused("GET", reports, "").await, plain(401, "missing_api_key"));
        let wrong = "Authorization: Bearer wrong\r\n";
        assert_eq!(refused("GET", reports, wrong).await, plain(401, "invalid_api_key"));
        let page = format!("{bearer}Origin: https://page.test\r\n");
        assert_eq!(refused("GET", reports, &page).await, plain(403, "browser_origin_refused"));
        assert_eq!(refused("GET", "/v1/audit", &bearer).await, plain(403, "forbidden"));
        assert_eq!(refused("GET", "/v1/nowhere", &bearer).await, plain(403, "forbidden"));
        assert_eq!(refused("GET", "/v1//reports", &bearer).await, plain(400, "invalid_path"));
        let (status, code, allow) = refused("PATCH", reports, &bearer).await;
        assert_eq!((status, code.as_str()), (405, "method_not_allowed"), "{sample:?}");
        assert_eq!(allow.as_deref(), Some("GET, HEAD, POST"), "{sample:?}");
        let revoke = |key: &mut keyward_core::authority::KeyAuthority| {
            key.revoked_at = Some(Timestamp::from_millis(1));
        };
        assert_eq!(front.upstream.requests(), 0, "{sample:?}");
        front.send("GET", reports, &bearer).await.told();
        front.asking.world.change_key(revoke);
        assert_eq!(refused("GET", reports, &bearer).await, plain(401, "unauthorized"));
        front.asking.world.change_key(|_| {});
        front.send("GET", reports, &bearer).await.told();
        assert_eq!(front.upstream.requests(), 2, "{sample:?}");
    }
}

#[tokio::test]
async fn what_may_pass_later_says_when() {
    for sample in ALL {
        let Some(front) = Front::of(sample, None).await else { continue };
        front.asking.plane.lease().grant(Lease::OVER);
        let answer = front.send_with_key("GET", "/v1/reports", "").await;
        let html = answer.header("content-type") == Some("text/html");
        if sample == Sample::EnvoyHttp || (sample == Sample::HaProxy && html) {
            // over HTTP Envoy says a 503 in its own words; HAProxy's health check was faster
            assert_eq!(answer.status, 503);
        } else {
            let (status, error) = front.refusal(&answer);
            assert_eq!((status, &error["code"]), (503, &"unavailable".into()), "{sample:?}");
            assert_eq!(answer.header("retry-after"), Some("1"), "{sample:?}");
        }
        front.asking.plane.lease().grant(FOR_EVER);
        front.until_it_forwards().await;
        for _ in 0..=FAILURE_BURST {
            front.send("GET", "/v1/reports", "Authorization: Bearer wrong\r\n").await;
        }
        let answer = front.send_with_key("GET", "/v1/reports", "").await;
        let (status, error) = front.refusal(&answer);
        assert_eq!((status, &error["code"]), (429, &"rate_limited".into()), "{sample:?}");
        assert_eq!(answer.header("retry-after"), Some("2"), "{sample:?}");
        assert_eq!(front.upstream.requests(), 0, "{sample:?}");
    }
}

#[tokio::test]
async fn without_keyward_nothing_passes() {
    for sample in ALL.into_iter().filter(|sample| sample.asks()) {
        let upstream = Upstream::start().await;
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let away = nobody.local_addr().unwrap();
        drop(nobody);
        let places = Places { internal: away, gateway: away, api: upstream.address };
        let Some(proxy) = start_proxy(sample, &places).await else { continue };
        let answer = raw(proxy.address(), b"GET /v1/reports HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.status, 503, "{sample:?} {answer:?}");
        if !sample.is_envoy() {
            assert_eq!(answer.header("retry-after"), Some("1"), "{sample:?}");
            assert_eq!(answer.json()["error"]["code"], "unavailable", "{sample:?}");
        }
        assert_eq!(upstream.requests(), 0, "{sample:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_keywards_opens_nothing() {
    for sample in [Sample::Nginx, Sample::Caddy] {
        let api = Upstream::start().await;
        let impostor = Upstream::start().await;
        let internal = impostor.address;
        let places = Places { internal, gateway: internal, api: api.address };
        let Some(proxy) = start_proxy(sample, &places).await else { continue };
        let answer = raw(proxy.address(), b"GET /v1/reports HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.status >= 500, "{sample:?} {answer:?}");
        assert_eq!((impostor.requests(), api.requests()), (1, 0), "{sample:?}");
    }
}

#[tokio::test]
async fn the_path_that_was_decided_about_is_the_path_that_arrives() {
    let targets = [
        "/v1/reports/a%20b",
        "/v1/reports/rep_1?path=%2e%2e%2f&x=//",
        "/v1/reports/%E2%82%AC",
        "/v1/reports/a+b",
        "/v1/reports/a:b@c!$&'()*,=",
        "/v1/reports/~-._",
        "/v1/reports/%2e%2e/audit",
        "/v1/reports/../audit",
        "/v1/reports/./1",
        "/v1/reports//1",
        "//v1/reports",
        "/v1/reports/a%2fb",
        "/v1/reports/a%5cb",
        "/v1/reports/a\\b",
        "/v1/reports/a;b=1",
        "/v1/reports/a%3bb",
        "/v1/reports/%00",
        "/v1/reports/%61",
        "/v1/reports/%2561",
        "/v1/reports/%zz",
        "/v1/reports/%",
        "/v1/%72eports",
        "/V1/reports",
        "/v1/reports/",
        "http://api.test/v1/reports",
        "http://other.test/v1/reports",
        "*",
    ];
    // and those of the corpus that are written without an escape
    let corpus = include_str!("../confusion/paths.tsv").lines();
    // Caddy encodes what RFC 3986 has no place for, which is the same name in other bytes
    let foreign = ['\\', '"', '<', '>', '^', '`', '{', '|', '}', '[', ']'];
    let plain = corpus.filter(|line| !line.starts_with('#') && !line.contains(foreign));
    let plain = plain.filter_map(|line| Some(line.split_once('\t')?.1));
    let plain: Vec<&str> = plain.filter(|target| target.starts_with('/')).collect();
    assert!(plain.len() >= 300, "{}", plain.len());
    for sample in ALL {
        let Some(front) = Front::of(sample, None).await else { continue };
        for target in targets.iter().chain(&plain).copied() {
            let before = front.upstream.requests();
            let answer = front.send_with_key("GET", target, "").await;
            if answer.header("x-upstream").is_some() {
                let told = answer.told();
                // a proxy may take scheme and host away; the path is the one that was sent
                let absolute = target.split_once("://").filter(|_| !target.starts_with('/'));
                let path = absolute
                    .map_or(target, |(_, rest)| rest.find('/').map_or("/", |slash| &rest[slash..]));
                // Apache takes slashes away from the front, before anything can be set about it
                let path = match sample {
                    Sample::Apache => format!("/{}", path.trim_start_matches('/')),
                    _ => path.to_owned(),
                };
                assert_eq!(told["target"], path, "{sample:?} {target}");
                let token = told["headers"]["keyward-assertion"].as_str().unwrap();
                let now = Timestamp::from_millis(START_MS);
                let verified =
                    keyward_core::assertion::verify(token, &verify_key(), AUDIENCE, now).unwrap();
                let decided = verified.claims().unwrap().path.into_owned();
                assert_eq!(path.split('?').next().unwrap(), decided, "{sample:?} {target}");
            } else {
                assert!((400..500).contains(&answer.status), "{sample:?} {target} {answer:?}");
                assert_eq!(front.upstream.requests(), before, "{sample:?} {target}");
            }
        }
        assert!(front.upstream.requests() >= 5, "{sample:?} lets nothing pass");
    }
}

#[tokio::test]
async fn a_product_with_a_tenant_header_is_served_too() {
    for sample in ALL {
        // of the proxies that send only what is named, the sample tells to add it
        if sample == Sample::EnvoyHttp {
            continue;
        }
        let Some(front) = Front::of(sample, Some("x-acme-org")).await else { continue };
        for (sent, status) in [
            (String::new(), 403),
            (format!("X-Acme-Org: {OTHER_TENANT}\r\n"), 403),
            (format!("X-Acme-Org: {TENANT}\r\n"), 200),
        ] {
            let answer = front.send_with_key("GET", "/v1/reports", &sent).await;
            assert_eq!(answer.status, status, "{sample:?} {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_key_that_reaches_a_proxy_without_tls_is_refused_by_the_gateway_behind_it() {
    let Some(elsewhere) = other_address() else {
        eprintln!("skipped: this machine has no address that others could reach");
        return;
    };
    for sample in ALL.into_iter().filter(|sample| !sample.asks()) {
        let world = World::new();
        let upstream = Upstream::start().await;
        let policy = PlanePolicy {
            trusted_proxies: Networks::new(vec!["127.0.0.0/8".parse().unwrap()]),
            ..PlanePolicy::default()
        };
        let plane = world.plane_with(vec![upstream_at(upstream.address)], policy, None);
        let mut options = options();
        options.behind_tls = true;
        let server = start(&plane, options);
        let gateway = server.local_addr();
        // of the sample only the health check speaks with another listener
        let places = Places { internal: gateway, gateway, api: upstream.address };
        let configuration = sample.configuration(&places).replace("option httpchk", "");
        let configuration = configuration.replace("http-check send", "# http-check send");
        let configuration = configuration.replace("{{listen}}", "0.0.0.0:{{port}}");
        let started = ServerProcess::start(sample.program(), &configuration, &[]).await;
        let Some(proxy) = started else { continue };
        let request = format!(
            "GET /v1/reports HTTP/1.1\r\nHost: api.test\r\nx-api-key: {}\r\n\r\n",
            world.token
        );
        let port = proxy.address().port();
        let refused = raw(SocketAddr::new(elsewhere.ip(), port), request.as_bytes()).await;
        let (status, code, _) = refused.refusal();
        assert_eq!((status, code.as_str()), (403, "tls_required"), "{sample:?}");
        assert_eq!(upstream.requests(), 0, "{sample:?}");
        let rows = plane.drain_exposures();
        let exposed: Vec<_> = rows.iter().map(|row| (row.key, row.exposed.by)).collect();
        assert_eq!(exposed, [(world.authority.id, Exposure::ClearText)], "{sample:?}");
        // nobody else reads what stays on one machine
        raw(proxy.address(), request.as_bytes()).await.told();
        assert!(plane.drain_exposures().is_empty(), "{sample:?}");
    }
}

/// nginx as the sample has it, but with a cache for Keyward's answers. `more` stands beside it.
async fn front_with_cache(more: &str) -> Option<Front> {
    let cached = format!(
        "proxy_cache kept; proxy_cache_valid any 10m; {more}
         proxy_cache_key \"$http_authorization $request_uri\";"
    );
    let zone = "access_log off; proxy_cache_path {{folder}}/kept keys_zone=kept:1m;";
    Front::changed(Sample::Nginx, None, |text| {
        assert!(text.contains("proxy_cache off;"), "the sample keeps nothing");
        text.replace("proxy_cache off;", &cached).replacen("access_log off;", zone, 1)
    })
    .await
}

#[tokio::test]
async fn a_proxy_that_would_keep_decisions_is_told_not_to() {
    let Some(front) = front_with_cache("").await else { return };
    let world = &front.asking.world;
    for _ in 0..2 {
        front.send_with_key("GET", "/v1/reports", "").await.told();
    }
    world.change_key(|key| key.revoked_at = Some(Timestamp::from_millis(1)));
    let answer = front.send_with_key("GET", "/v1/reports", "").await;
    assert_eq!(front.refusal(&answer).1["code"], "unauthorized");
    world.change_key(|key| key.revoked_at = None);
    front.send_with_key("GET", "/v1/reports", "").await.told();
    // with a proxy that is told not to listen, a revoked key lives on: there was a cache
    let deaf = "proxy_ignore_headers Cache-Control;";
    let Some(front) = front_with_cache(deaf).await else { return };
    front.send_with_key("GET", "/v1/reports", "").await.told();
    front.asking.world.change_key(|key| key.revoked_at = Some(Timestamp::from_millis(1)));
    front.send_with_key("GET", "/v1/reports", "").await.told();
}
