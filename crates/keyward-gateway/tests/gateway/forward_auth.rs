//! Proxies that ask before they forward get the gateway's decision, in the words they understand.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use serde_json::Value;
use tokio::sync::OnceCell;

use keyward_core::Timestamp;
use keyward_core::assertion::{self, SigningKey};
use keyward_core::environment::{Environment, EnvironmentSet};
use keyward_core::ip::IpAllowlist;
use keyward_core::lease::Lease;
use keyward_gateway::{
    BoxedBody, ConnectionLimits, DataPlane, Fallback, ForwardAuth, GatewayServer, InternalServer,
    ListenerEnvironments, Networks, PlanePolicy, Protocols, ProxyToken, RuntimeShape,
    UpstreamConfig,
};

use crate::envoy_grpc::ask_over_grpc;
use crate::support::*;

pub(crate) const PROXY_TOKEN: &str = "a-secret-that-proxies-share-0123456789";
/// The client of every request, unless a test says otherwise.
const CLIENT: &str = "203.0.113.9";

/// How a test asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    Traefik,
    Caddy,
    Apisix,
    Nginx,
    Envoy,
    EnvoyGrpc,
}

const EVERYBODY: [As; 6] =
    [As::Traefik, As::Caddy, As::Apisix, As::Nginx, As::Envoy, As::EnvoyGrpc];
const OVER_HTTP: [As; 5] = [As::Traefik, As::Caddy, As::Apisix, As::Nginx, As::Envoy];

impl As {
    /// The head of what this proxy sends for a request with these headers, less the empty line.
    pub(crate) fn head(self, method: &str, target: &str, client: &str, headers: &str) -> String {
        let told = |names: &str| format!("{names}-Method: {method}\r\n{names}-Uri: {target}\r\n");
        let proxy = "Host: keyward.internal\r\n";
        let common = format!(
            "X-Forwarded-For: {client}\r\nX-Forwarded-Host: api.test\r\n\
             X-Forwarded-Proto: https\r\n"
        );
        match self {
            Self::Traefik => format!(
                "GET /authz/forward HTTP/1.1\r\n{proxy}{headers}{common}X-Forwarded-Port: 443\r\n\
                 X-Forwarded-Server: edge\r\nX-Real-Ip: {client}\r\n{}Accept-Encoding: gzip\r\n",
                told("X-Forwarded")
            ),
            Self::Caddy => format!(
                "GET /authz/forward HTTP/1.1\r\n{proxy}{headers}{common}{}",
                told("X-Forwarded")
            ),
            Self::Apisix => format!(
                "GET /authz/forward HTTP/1.1\r\n{proxy}User-Agent: lua-resty-http\r\n{common}\
                 {}{headers}",
                told("X-Forwarded")
            ),
            Self::Nginx => format!(
                "GET /authz/nginx HTTP/1.0\r\n{proxy}Connection: close\r\n{common}{}{headers}",
                told("X-Original")
            ),
            Self::Envoy => format!(
                "{method} /authz/envoy{target} HTTP/1.1\r\nhost: api.test\r\n\
                 content-length: 0\r\n{headers}x-envoy-internal: true\r\n\
                 x-forwarded-for: {client},127.0.0.1\r\nx-envoy-expected-rq-timeout-ms: 200\r\n"
            ),
            Self::EnvoyGrpc => panic!("its question is no head"),
        }
    }
}

pub(crate) struct Asking {
    pub(crate) world: World,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) internal: InternalServer,
    pub(crate) gateway: GatewayServer,
    /// The connection of a proxy that speaks gRPC, once it has one.
    pub(crate) calls: OnceCell<SendRequest<Full<Bytes>>>,
}

/// Of this machine, whatever its own address is: Envoy writes that into what it asks.
pub(crate) fn trusting() -> Networks {
    let networks = [
        "127.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.2.0/24",
        "192.168.0.0/16",
    ];
    Networks::new(networks.iter().map(|network| network.parse().unwrap()).collect())
}

fn forward_auth(environments: ListenerEnvironments) -> ForwardAuth {
    ForwardAuth {
        environments,
        audience: AUDIENCE.to_owned(),
        assertion_key: Arc::new(SigningKey::hs256(SECRET).unwrap()),
        proxy_token: Some(ProxyToken::new(PROXY_TOKEN).ok().unwrap()),
    }
}

pub(crate) fn asking() -> Asking {
    asking_before(Vec::new(), None)
}

/// That trusts no address.
pub(crate) fn asking_with_nobody() -> Asking {
    asking_with(Networks::default(), ListenerEnvironments::all_hosts(live()), None)
}

/// With a gateway that has these upstreams.
pub(crate) fn asking_before(upstreams: Vec<UpstreamConfig>, tenant_header: Option<&str>) -> Asking {
    let environments = ListenerEnvironments::all_hosts(live());
    make_asking(upstreams, trusting(), environments, tenant_header)
}

fn asking_with(
    trusted_proxies: Networks,
    environments: ListenerEnvironments,
    tenant_header: Option<&str>,
) -> Asking {
    make_asking(Vec::new(), trusted_proxies, environments, tenant_header)
}

fn make_asking(
    upstreams: Vec<UpstreamConfig>,
    trusted_proxies: Networks,
    environments: ListenerEnvironments,
    tenant_header: Option<&str>,
) -> Asking {
    let world = World::new();
    let policy = PlanePolicy {
        trusted_proxies,
        forward_auth: Some(Arc::new(forward_auth(environments))),
        ..PlanePolicy::default()
    };
    let plane = world.plane_with(upstreams, policy, tenant_header);
    let ready = Arc::clone(&plane);
    let fallback: Fallback = Arc::new(move |request| {
        let ready = request.uri().path() != "/readyz" || ready.is_deciding();
        Box::pin(async move {
            let body = Full::from(Bytes::from_static(b"elsewhere"));
            let mut response = Response::new(BoxedBody::new(body.map_err(|never| match never {})));
            if !ready {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        })
    });
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let limits = ConnectionLimits::default();
    let shape = RuntimeShape::Shared;
    let protocols = Protocols { h2c: true, ..Protocols::default() };
    let internal =
        InternalServer::bind(&[any], Arc::clone(&plane), fallback, limits, protocols, shape);
    let mut options = options();
    // as a gateway that other machines reach through a proxy is set up
    options.behind_tls = true;
    let gateway = start(&plane, options);
    Asking { world, plane, internal: internal.unwrap(), gateway, calls: OnceCell::new() }
}

impl Asking {
    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.world.token)
    }

    /// The answer to one proxy about one request.
    pub(crate) async fn ask(&self, proxy: As, method: &str, target: &str, headers: &str) -> Answer {
        self.ask_for(proxy, CLIENT, method, target, headers).await
    }

    pub(crate) async fn ask_for(
        &self,
        proxy: As,
        client: &str,
        method: &str,
        target: &str,
        headers: &str,
    ) -> Answer {
        if proxy == As::EnvoyGrpc {
            return ask_over_grpc(self, client, method, target, headers).await;
        }
        let mut head = proxy.head(method, target, client, headers);
        head.push_str("\r\n");
        let mut connection = Client::connect(self.internal.local_addr()).await;
        connection.write(head.as_bytes()).await;
        connection.answer_to(if proxy == As::Envoy { method } else { "GET" }).await
    }

    /// The gateway's own answer to the same request behind the same proxy.
    async fn of_gateway(&self, client: &str, method: &str, target: &str, headers: &str) -> Answer {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: api.test\r\nX-Forwarded-For: {client}\r\n\
             {headers}\r\n"
        );
        raw(self.gateway.local_addr(), head.as_bytes()).await
    }
}

/// What an answer of nginx' contract tells nginx to tell the client: the status and the envelope.
fn mapped(answer: &Answer) -> (u16, Value) {
    let status: u16 = answer.header("keyward-status").unwrap().parse().unwrap();
    assert_eq!(answer.status, if status == 401 { 401 } else { 403 }, "{answer:?}");
    let encoded = answer.header("keyward-error-body").unwrap();
    let envelope: Value = serde_json::from_slice(&STANDARD.decode(encoded).unwrap()).unwrap();
    let plain: Value = serde_json::from_str(answer.header("keyward-error").unwrap()).unwrap();
    assert_eq!(plain, envelope);
    (status, envelope)
}

/// The status and the error of a refusal, whatever the contract.
pub(crate) fn refusal(proxy: As, answer: &Answer) -> (u16, Value) {
    assert_eq!(answer.header("keyward-decision"), None, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    let (status, mut envelope) = match proxy {
        As::Nginx => mapped(answer),
        _ => (answer.status, answer.json()),
    };
    assert_eq!(envelope["error"]["requestId"].as_str(), answer.header("x-request-id"));
    (status, envelope["error"].take())
}

#[tokio::test]
async fn an_allowed_request_is_vouched_for_in_every_contract() {
    let asking = asking();
    let key = &asking.world.authority;
    for proxy in EVERYBODY {
        let target = "/v1/reports/rep_1?x=y";
        let answer = asking.ask(proxy, "GET", target, &asking.bearer()).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{proxy:?} {answer:?}");
        let request_id = answer.header("x-request-id").unwrap();
        for (name, value) in [
            ("keyward-tenant", TENANT.to_string()),
            ("keyward-environment", "live".to_owned()),
            ("keyward-key-id", key.id.to_string()),
            ("keyward-key-name", "N%C3%A4chtlich 1%25".to_owned()),
            ("keyward-scopes", "reports:read reports:write".to_owned()),
            ("keyward-role", "admin".to_owned()),
            ("keyward-actor", OWNER.to_string()),
            ("keyward-request-id", request_id.to_owned()),
            ("keyward-accepted-scopes", "reports:read".to_owned()),
        ] {
            assert_eq!(answer.header(name), Some(value.as_str()), "{proxy:?} {name}");
        }
        if proxy != As::EnvoyGrpc {
            assert_eq!(answer.header("keyward-decision"), Some("allow"), "{proxy:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{proxy:?}");
        }
        let now = Timestamp::from_millis(START_MS);
        let token = answer.header("keyward-assertion").unwrap();
        let verified = assertion::verify(token, &verify_key(), AUDIENCE, now).unwrap();
        let claims = verified.claims().unwrap();
        assert_eq!((claims.method, claims.path.as_ref()), ("GET", "/v1/reports/rep_1"));
        assert_eq!(claims.request_id, request_id);
        let removed = answer.header("x-envoy-auth-headers-to-remove");
        assert_eq!(removed.is_some(), proxy == As::Envoy);
        assert!(removed.is_none_or(|it| it.split(',').any(|name| name == "authorization")));
    }
}

#[tokio::test]
async fn identity_headers_are_never_empty() {
    let asking = asking();
    asking.world.change_key(|key| {
        key.name = String::new();
        key.scopes = vec!["reports:read".to_owned()];
    });
    let answer = asking.ask(As::Caddy, "GET", "/v1/reports", &asking.bearer()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("keyward-key-name"), Some("-"));
    let headers = answer.head.lines().skip(1).filter(|line| line.starts_with("keyward-"));
    let empty: Vec<&str> = headers.filter(|line| line.trim_end().ends_with(':')).collect();
    assert_eq!(empty, [""; 0]);
}

/// Requests that the gateway refuses, each for another reason.
fn refused_requests(asking: &Asking) -> Vec<(&'static str, &'static str, String)> {
    let bearer = asking.bearer();
    let test_key = asking.world.key_of(Environment::Test);
    vec![
        ("GET", "/v1/reports", String::new()),
        ("GET", "/v1/reports", "Authorization: Bearer nonsense\r\n".to_owned()),
        ("GET", "/v1/reports", format!("{bearer}x-api-key: {}\r\n", asking.world.token)),
        ("GET", "/v1/reports", format!("Authorization: Bearer {test_key}\r\n")),
        ("GET", "/v1/reports", format!("{bearer}Origin: https://evil.test\r\n")),
        ("GET", "/v1/reports", format!("{bearer}Sec-Fetch-Site: cross-site\r\n")),
        ("GET", "/v1/nowhere", bearer.clone()),
        ("PATCH", "/v1/reports", bearer.clone()),
        ("GET", "/v1/audit", bearer.clone()),
        ("GET", "/v1//reports", bearer.clone()),
        ("GET", "/v1/x/../reports", bearer.clone()),
        ("GET", "/v1/reports%2f1", bearer.clone()),
        ("GET", "/v1/reports;x=1", bearer.clone()),
        ("GET", "/v1/%72eports", bearer.clone()),
        ("GET", "/v1/reports", format!("{bearer}content-type: a/b\r\ncontent-type: a/c\r\n")),
    ]
}

#[tokio::test]
async fn every_refusal_is_the_one_of_the_gateway() {
    let asking = asking();
    for (method, target, headers) in refused_requests(&asking) {
        let own = asking.of_gateway(CLIENT, method, target, &headers).await;
        let (status, mut expected) = refusal(As::Traefik, &own);
        expected.as_object_mut().unwrap().remove("requestId");
        for proxy in EVERYBODY {
            let answer = asking.ask(proxy, method, target, &headers).await;
            let (told, mut error) = refusal(proxy, &answer);
            error.as_object_mut().unwrap().remove("requestId");
            assert_eq!((told, &error), (status, &expected), "{proxy:?} {method} {target}");
            for name in ["www-authenticate", "allow", "retry-after"] {
                assert_eq!(answer.header(name), own.header(name), "{proxy:?} {target} {name}");
            }
        }
    }
}

#[tokio::test]
async fn what_changes_holds_for_the_next_question() {
    let asking = asking();
    for proxy in EVERYBODY {
        let ask = || asking.ask(proxy, "GET", "/v1/reports", "");
        let bearer = asking.bearer();
        let ask_with_key = || asking.ask(proxy, "GET", "/v1/reports", &bearer);
        assert_eq!(refusal(proxy, &ask().await).0, 401);
        assert_eq!(ask_with_key().await.status, 200);
        asking.world.set_role("auditor");
        assert_eq!(refusal(proxy, &ask_with_key().await).1["code"], "rbac_denied");
        asking.world.set_role("admin");
        asking.world.change_key(|key| key.revoked_at = Some(Timestamp::from_millis(1)));
        let (status, error) = refusal(proxy, &ask_with_key().await);
        assert_eq!((status, &error["code"]), (401, &Value::from("unauthorized")));
        asking.world.change_key(|key| key.expires_at = Some(Timestamp::from_millis(1)));
        assert_eq!(refusal(proxy, &ask_with_key().await).1["code"], "expired_api_key");
        asking.world.change_key(|_| {});
    }
}

#[tokio::test]
async fn the_method_and_the_path_are_those_of_the_request_and_not_of_the_question() {
    let asking = asking();
    asking.world.change_key(|key| key.scopes = vec!["reports:read".to_owned()]);
    let bearer = asking.bearer();
    for proxy in EVERYBODY {
        for (method, target, status) in [
            ("GET", "/v1/reports", 200),
            ("HEAD", "/v1/reports", 200),
            ("POST", "/v1/reports", 403),
            ("DELETE", "/v1/reports/rep_1", 403),
        ] {
            // what the other contracts read says something else, and is not looked at
            let lies = match proxy {
                As::Nginx => "X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /v1/reports\r\n",
                As::Envoy | As::EnvoyGrpc => {
                    "X-Forwarded-Method: GET\r\nX-Original-URI: /v1/reports\r\n"
                }
                _ => "X-Original-Method: GET\r\nX-Original-URI: /v1/reports\r\n",
            };
            let answer = asking.ask(proxy, method, target, &format!("{bearer}{lies}")).await;
            assert_eq!(answer.status, status, "{proxy:?} {method} {target} {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_leaves_something_out_is_refused() {
    let asking = asking();
    for (proxy, left_out) in [
        (As::Traefik, "X-Forwarded-Method"),
        (As::Traefik, "X-Forwarded-Uri"),
        (As::Traefik, "X-Forwarded-Host"),
        (As::Traefik, "X-Forwarded-For"),
        (As::Nginx, "X-Original-Method"),
        (As::Nginx, "X-Original-Uri"),
        (As::Nginx, "X-Forwarded-Host"),
        (As::Nginx, "X-Forwarded-For"),
        (As::Envoy, "x-forwarded-for"),
    ] {
        let head = proxy.head("GET", "/v1/reports", CLIENT, &asking.bearer());
        let named = format!("{left_out}:");
        let line = head.lines().find(|line| line.starts_with(&named)).unwrap();
        let value = line.split_once(": ").unwrap().1;
        let gone = head.replace(&format!("{line}\r\n"), "");
        let empty = head.replace(line, &named);
        let twice = format!("{head}{left_out}: {value}\r\n");
        for (how, head) in [("gone", gone), ("empty", empty), ("twice", twice)] {
            // several lines of addresses are one list, and an empty one ends the walk
            if left_out.eq_ignore_ascii_case("x-forwarded-for") && how != "gone" {
                continue;
            }
            let answer = raw(asking.internal.local_addr(), format!("{head}\r\n").as_bytes()).await;
            let (status, error) = refusal(proxy, &answer);
            assert_eq!((status, &error["code"]), (400, &Value::from("invalid_request")), "{how}");
            let header = left_out.to_ascii_lowercase();
            assert_eq!(error["details"]["header"], header, "{how}");
        }
    }
    for target in ["", "*", "v1/reports", "http://api.test/v1/reports", "/v1/reports#x"] {
        for proxy in [As::Caddy, As::Nginx] {
            let answer = asking.ask(proxy, "GET", target, &asking.bearer()).await;
            assert_eq!(refusal(proxy, &answer).0, 400, "{target}");
        }
    }
    let answer = asking.ask(As::Caddy, "GE T", "/v1/reports", &asking.bearer()).await;
    assert_eq!(refusal(As::Caddy, &answer).1["details"]["header"], "x-forwarded-method");
}

#[tokio::test]
async fn only_trusted_proxies_may_ask() {
    let nobody = ListenerEnvironments::all_hosts(live());
    let asking = asking_with(Networks::default(), nobody, None);
    let bearer = asking.bearer();
    for proxy in EVERYBODY {
        let wrong = format!("{bearer}Keyward-Proxy-Token: {PROXY_TOKEN}x\r\n");
        for headers in [&bearer, &wrong] {
            let answer = asking.ask(proxy, "GET", "/v1/reports", headers).await;
            let (status, error) = refusal(proxy, &answer);
            assert_eq!((status, &error["code"]), (403, &Value::from("forbidden")), "{proxy:?}");
            assert_eq!(error["details"]["failed"], "proxy");
            assert!(!answer.head.contains("keyward-tenant"), "{answer:?}");
        }
        let right = format!("{bearer}Keyward-Proxy-Token: {PROXY_TOKEN}\r\n");
        let answer = asking.ask(proxy, "GET", "/v1/reports", &right).await;
        assert_eq!(answer.status, 200, "{proxy:?} {answer:?}");
    }
}

#[tokio::test]
async fn the_clients_address_is_the_one_the_trusted_proxies_saw() {
    let asking = asking();
    let list = IpAllowlist::parse(&["203.0.113.0/24"]).unwrap();
    asking.world.change_key(|key| key.ip_allowlist = list);
    for proxy in EVERYBODY {
        for (client, status) in [
            ("203.0.113.9", 200),
            ("198.51.100.7", 403),
            // what the client wrote itself stands on the left
            ("203.0.113.9, 198.51.100.7", 403),
            ("198.51.100.7, 203.0.113.9", 200),
            ("198.51.100.7, 203.0.113.9, 127.0.0.9", 200),
            ("203.0.113.9, nonsense", 403),
        ] {
            let answer =
                asking.ask_for(proxy, client, "GET", "/v1/reports", &asking.bearer()).await;
            assert_eq!(answer.status, status, "{proxy:?} {client} {answer:?}");
        }
    }
    // a proxy that is admitted by its token is believed for the nearest address alone
    let otherwise = ListenerEnvironments::all_hosts(live());
    let asking = asking_with(Networks::default(), otherwise, None);
    let list = IpAllowlist::parse(&["203.0.113.0/24"]).unwrap();
    asking.world.change_key(|key| key.ip_allowlist = list);
    let headers = format!("{}Keyward-Proxy-Token: {PROXY_TOKEN}\r\n", asking.bearer());
    for (client, status) in [("203.0.113.9", 200), ("203.0.113.9, 198.51.100.7", 403)] {
        let answer = asking.ask_for(As::Caddy, client, "GET", "/v1/reports", &headers).await;
        assert_eq!(answer.status, status, "{client}");
    }
}

#[tokio::test]
async fn callers_that_fail_too_often_are_held_back_one_by_one() {
    for proxy in EVERYBODY {
        let asking = asking();
        let wrong = "Authorization: Bearer acme_live_wrong\r\n";
        for _ in 0..=keyward_gateway::FAILURE_BURST {
            let answer = asking.ask(proxy, "GET", "/v1/reports", wrong).await;
            assert_eq!(refusal(proxy, &answer).0, 401);
        }
        let answer = asking.ask(proxy, "GET", "/v1/reports", &asking.bearer()).await;
        let (status, error) = refusal(proxy, &answer);
        assert_eq!((status, &error["code"]), (429, &Value::from("rate_limited")), "{proxy:?}");
        assert_eq!(answer.header("retry-after"), Some("2"), "{proxy:?}");
        let other = "203.0.113.10";
        let answer = asking.ask_for(proxy, other, "GET", "/v1/reports", &asking.bearer()).await;
        assert_eq!(answer.status, 200, "{proxy:?}");
    }
}

#[tokio::test]
async fn a_node_that_cannot_tell_says_when_to_try_again() {
    let asking = asking();
    asking.plane.lease().grant(Lease::OVER);
    for proxy in EVERYBODY {
        let answer = asking.ask(proxy, "GET", "/v1/reports", &asking.bearer()).await;
        let (status, error) = refusal(proxy, &answer);
        assert_eq!((status, &error["code"]), (503, &Value::from("unavailable")), "{proxy:?}");
        assert_eq!(answer.header("retry-after"), Some("1"), "{proxy:?}");
    }
}

#[tokio::test]
async fn the_host_of_the_request_says_which_environments_are_served() {
    let test: EnvironmentSet = [Environment::Test].into_iter().collect();
    let hosts = vec![("sandbox.test".to_owned(), test)];
    let asking = asking_with(trusting(), ListenerEnvironments::by_host(hosts, live()), None);
    let test_key = format!("Authorization: Bearer {}\r\n", asking.world.key_of(Environment::Test));
    for (host, headers, status) in [
        ("api.test", asking.bearer(), 200),
        ("api.test", test_key.clone(), 401),
        ("sandbox.test", test_key.clone(), 200),
        ("Sandbox.Test:8443", test_key.clone(), 200),
        ("sandbox.test.", test_key.clone(), 200),
        ("Sandbox.test.:443", test_key, 200),
        ("sandbox.test.", asking.bearer(), 401),
        ("sandbox.test", asking.bearer(), 401),
    ] {
        for proxy in OVER_HTTP {
            let head = proxy.head("GET", "/v1/reports", CLIENT, &headers);
            let head = head.replace("api.test", host);
            let answer = raw(asking.internal.local_addr(), format!("{head}\r\n").as_bytes()).await;
            assert_eq!(answer.status, status, "{proxy:?} {host} {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_product_with_a_tenant_header_has_it_checked_and_taken_away() {
    let environments = ListenerEnvironments::all_hosts(live());
    let asking = asking_with(trusting(), environments, Some("x-acme-org"));
    let bearer = asking.bearer();
    for proxy in EVERYBODY {
        for (headers, status) in [
            (bearer.clone(), 403),
            (format!("{bearer}x-acme-org: {TENANT}\r\n"), 200),
            (format!("{bearer}x-acme-org: {OTHER_TENANT}\r\n"), 403),
        ] {
            let answer = asking.ask(proxy, "GET", "/v1/reports", &headers).await;
            assert_eq!(answer.status, status, "{proxy:?} {headers}");
        }
    }
    let headers = format!("{bearer}x-acme-org: {TENANT}\r\n");
    let answer = asking.ask(As::Envoy, "GET", "/v1/reports", &headers).await;
    let removed = answer.header("x-envoy-auth-headers-to-remove").unwrap();
    assert!(removed.ends_with(",x-acme-org"), "{removed}");
}

#[tokio::test]
async fn questions_are_recorded_like_requests() {
    let asking = asking();
    for proxy in EVERYBODY {
        asking.ask(proxy, "GET", "/v1/reports", &asking.bearer()).await;
    }
    asking.ask(As::Nginx, "GET", "/v1/audit", &asking.bearer()).await;
    let usage = asking.plane.drain_usage(10);
    let [row] = usage.as_slice() else { panic!("{} rows", usage.len()) };
    assert_eq!((row.key, row.tenant), (asking.world.authority.id, TENANT));
    let metrics = metrics_of(&asking.plane);
    for line in [
        r#"route="GET /v1/reports",decision="permit",code="ok"} 6"#,
        r#"route="GET /v1/audit",decision="deny",code="forbidden"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_body_of_the_question_is_never_taken_for_another_question() {
    let asking = asking();
    let inner = As::Caddy.head("GET", "/v1/reports", CLIENT, &asking.bearer());
    let head = As::Caddy.head("POST", "/v1/reports", CLIENT, "");
    let question = format!("{head}content-length: {}\r\n\r\n{inner}\r\n", inner.len() + 2);
    let mut client = Client::connect(asking.internal.local_addr()).await;
    client.write(question.as_bytes()).await;
    assert_eq!(client.answer().await.status, 401);
    let follows = As::Caddy.head("GET", "/v1/audit", CLIENT, &asking.bearer());
    client.write(format!("{follows}\r\n").as_bytes()).await;
    // either the connection is over, or the next answer is to the next question
    if !client.is_closed().await {
        assert_eq!(client.answer().await.status, 403);
    }
}

#[tokio::test]
async fn other_paths_and_planes_without_forward_auth_answer_nothing_here() {
    let asking = asking();
    for path in ["/authz", "/authz/", "/authz/forward/", "/authz/envoyx", "/authz/Forward"] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = raw(asking.internal.local_addr(), head.as_bytes()).await;
        assert_eq!(answer.body, "elsewhere", "{path}");
    }
}
