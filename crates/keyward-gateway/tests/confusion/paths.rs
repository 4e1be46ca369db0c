//! Paths: the route that was decided is the route that is executed, or none is.

use keyward_core::assertion;
use keyward_core::catalog::RouteMatch;
use keyward_core::time::Timestamp;
use keyward_testkit::{Program, ServerProcess};
use serde_json::Value;

use crate::conversation::{converse, percent_decoded, statuses, unescape};
use crate::frames::{END_HEADERS, END_STREAM, Fate, HEADERS, Wire, block};
use crate::support::*;
use crate::witness::{Executed, Maker, Witness, values};

/// The routes of the product that a request of this corpus may take, as the upstreams name them.
const ROUTES: [(&str, &str); 4] = [
    ("/v1/reports", "reports"),
    ("/v1/reports:build", "build"),
    ("/v1/reports/{id}", "report"),
    ("/v1/reports/{id}/files/{name}", "file"),
];
/// Where Debian keeps the modules of Apache.
pub(crate) const APACHE_MODULES: &str = "/usr/lib/apache2/modules";

/// A target, and what must come of it: the name of a route, or the code of a refusal.
struct Case {
    verdict: &'static str,
    text: &'static str,
    target: Vec<u8>,
}

impl Case {
    fn is_permitted(&self) -> bool {
        ROUTES.iter().any(|(_, name)| *name == self.verdict)
    }

    fn is_permitted_over_http2(&self) -> bool {
        self.is_permitted() && self.target.starts_with(b"/")
    }

    fn has_fragment(&self) -> bool {
        self.target.contains(&b'#')
    }

    fn request(&self, number: usize, token: &str, more: &str) -> Vec<u8> {
        let headers = format!(
            " HTTP/1.1\r\nhost: api.test\r\nauthorization: Bearer {token}\r\n\
             x-case: {number}\r\n{more}\r\n"
        );
        [b"GET ".as_slice(), &self.target, headers.as_bytes()].concat()
    }
}

fn corpus() -> Vec<Case> {
    let lines = include_str!("paths.tsv").lines().filter(|line| !line.starts_with('#'));
    let cases: Vec<Case> = lines
        .map(|line| {
            let (verdict, text) = line.split_once('\t').expect("a verdict and a target");
            Case { verdict, text, target: unescape(text) }
        })
        .collect();
    assert!(cases.len() >= 300, "{} paths", cases.len());
    cases
}

/// Whether the path that was decided, the path that arrived and the path that was executed are
/// one, and so are the routes.
fn check_execution(world: &World, entry: &Value) -> Result<(), String> {
    let token = values(entry, "keyward-assertion").concat();
    let now = Timestamp::from_millis(START_MS);
    let verified = assertion::verify(&token, &verify_key(), AUDIENCE, now)
        .map_err(|error| format!("executed without an assertion: {error}"))?;
    let claims = verified.claims().map_err(|error| error.to_string())?;
    let decided: &str = &claims.path;
    let arrived = entry["target"].as_str().unwrap_or_default();
    if arrived.split('?').next() != Some(decided) {
        return Err(format!("{decided:?} was decided and {arrived:?} arrived"));
    }
    let executed = entry["executed"].as_str().unwrap_or_default();
    if percent_decoded(decided) != executed.as_bytes() {
        return Err(format!("{decided:?} was decided and {executed:?} executed"));
    }
    let RouteMatch::Route(route) = world.catalog.route("GET", decided) else {
        return Err(format!("{decided:?} is on no route"));
    };
    let named = ROUTES.iter().find(|(template, _)| *template == route.template);
    match named {
        Some((_, name)) if entry["route"] == *name => Ok(()),
        _ => Err(format!("{} was decided and {} executed", route.template, entry["route"])),
    }
}

fn of_case(executed: &Executed, number: usize) -> &[Value] {
    executed.get(&number.to_string()).map_or(&[], Vec::as_slice)
}

/// Every case straight to the gateway, on connections that are kept.
async fn straight(maker: Maker) {
    let Some(witness) = Witness::start(maker).await else { return };
    let world = World::new();
    let plane = world.plane(witness.upstreams());
    let server = start(&plane, options());
    let mut client = Client::connect(server.local_addr()).await;
    let cases = corpus();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        client.write(&case.request(number, &world.token, "")).await;
        let answer = client.answer().await;
        let got = match answer.status {
            200 => "executed".to_owned(),
            status if answer.body.is_empty() => format!("a bare {status}"),
            _ => answer.refusal().1,
        };
        let wanted = if case.is_permitted() { "executed" } else { case.verdict };
        if got != wanted {
            wrong.push(format!("{}: {got} instead of {wanted}", case.text));
        }
        if answer.closed {
            client = Client::connect(server.local_addr()).await;
        }
    }
    let executed = witness.executed().await;
    for (number, case) in cases.iter().enumerate() {
        let entries = of_case(&executed, number);
        if entries.len() != usize::from(case.is_permitted()) {
            wrong.push(format!("{}: executed {} times", case.text, entries.len()));
        }
        for entry in entries {
            if let Err(what) = check_execution(&world, entry) {
                wrong.push(format!("{}: {what}", case.text));
            }
            if entry["route"] != case.verdict {
                wrong
                    .push(format!("{}: {} instead of {}", case.text, entry["route"], case.verdict));
            }
        }
    }
    assert!(wrong.is_empty(), "behind the gateway {maker} disagrees:\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_path_is_read_alike_by_hyper_over_http2() {
    straight(Maker::HyperOverHttp2).await;
}

#[tokio::test]
async fn every_path_is_read_alike_by_hyper() {
    straight(Maker::Hyper).await;
}

#[tokio::test]
async fn every_path_is_read_alike_by_nginx() {
    straight(Maker::Nginx).await;
}

#[tokio::test]
async fn every_path_is_read_alike_by_node() {
    straight(Maker::Node).await;
}

#[tokio::test]
async fn every_path_is_read_alike_by_python() {
    straight(Maker::Python).await;
}

/// Every case by a caller that speaks HTTP/2, on a connection of its own: what is wrong with the
/// bytes of a field may end it. There a target begins with a slash, and a fragment is cut off where
/// the fields are read, before anything is decided.
async fn over_http2(maker: Maker) {
    let Some(witness) = Witness::start(maker).await else { return };
    let world = World::new();
    let plane = world.plane(witness.upstreams());
    let mut options = options();
    options.protocols.h2c = true;
    let server = start(&plane, options);
    let cases = corpus();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let (number, bearer) = (number.to_string(), format!("Bearer {}", world.token));
        let fields: [(&str, &[u8]); 6] = [
            (":method", b"GET"),
            (":scheme", b"http"),
            (":authority", b"api.test"),
            (":path", &case.target),
            ("authorization", bearer.as_bytes()),
            ("x-case", number.as_bytes()),
        ];
        let mut wire = Wire::open(server.local_addr(), &[]).await;
        wire.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields)).await;
        let fate = wire.fate(1).await;
        if !case.has_fragment() && (fate == Fate::Answered) != case.is_permitted_over_http2() {
            wrong.push(format!("{}: {fate:?} instead of {}", case.text, case.verdict));
        }
    }
    let executed = witness.executed().await;
    for (number, case) in cases.iter().enumerate() {
        let entries = of_case(&executed, number);
        let allowed = usize::from(case.is_permitted_over_http2() || case.has_fragment());
        if entries.len() > allowed || (entries.len() < allowed && !case.has_fragment()) {
            wrong.push(format!("{}: executed {} times", case.text, entries.len()));
        }
        for entry in entries {
            if let Err(what) = check_execution(&world, entry) {
                wrong.push(format!("{}: {what}", case.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{maker} disagrees with callers of HTTP/2:\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_path_over_http2_is_read_alike_by_hyper() {
    over_http2(Maker::Hyper).await;
}

#[tokio::test]
async fn every_path_over_http2_is_read_alike_by_hyper_over_http2() {
    over_http2(Maker::HyperOverHttp2).await;
}

#[tokio::test]
async fn every_path_over_http2_is_read_alike_by_nginx() {
    over_http2(Maker::Nginx).await;
}

/// Every case through a proxy, which may refuse it or write it anew. Whatever reaches the gateway
/// then is decided and executed as one.
async fn through(front: Program, template: &str, maker: Maker) {
    let Some(witness) = Witness::start(maker).await else { return };
    let world = World::new();
    let plane = world.plane(witness.upstreams());
    let server = start(&plane, options());
    let gateway = server.local_addr().to_string();
    let values = [("gateway", gateway.as_str()), ("modules", APACHE_MODULES)];
    let Some(proxy) = ServerProcess::start(front, template, &values).await else { return };
    let cases = corpus();
    let mut statuses_seen = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let request = case.request(number, &world.token, "connection: close\r\n");
        let received = converse(proxy.address(), &request).await;
        statuses_seen.push(statuses(&received).first().copied());
    }
    let executed = witness.executed().await;
    let (mut wrong, mut passed) = (Vec::new(), 0);
    for (number, case) in cases.iter().enumerate() {
        let (entries, status) = (of_case(&executed, number), statuses_seen[number]);
        if entries.len() > 1 || (status == Some(200)) != (entries.len() == 1) {
            let count = entries.len();
            wrong.push(format!("{}: answered {status:?}, executed {count} times", case.text));
        }
        for entry in entries {
            passed += 1;
            if let Err(what) = check_execution(&world, entry) {
                wrong.push(format!("{}: {what}", case.text));
            }
        }
    }
    assert!(wrong.is_empty(), "behind {front:?} {maker} disagrees:\n{}", wrong.join("\n"));
    let permitted = cases.iter().filter(|case| case.is_permitted()).count();
    assert!(passed >= permitted / 2, "{front:?} let only {passed} of {permitted} pass");
}

#[tokio::test]
async fn behind_nginx_the_path_decided_is_the_path_executed() {
    through(Program::Nginx, include_str!("fronts/nginx.conf"), Maker::Python).await;
}

#[tokio::test]
async fn behind_haproxy_the_path_decided_is_the_path_executed() {
    through(Program::HaProxy, include_str!("fronts/haproxy.cfg"), Maker::Nginx).await;
}

#[tokio::test]
async fn behind_caddy_the_path_decided_is_the_path_executed() {
    through(Program::Caddy, include_str!("fronts/Caddyfile"), Maker::Node).await;
}

#[tokio::test]
async fn behind_apache_the_path_decided_is_the_path_executed() {
    through(Program::Apache, include_str!("fronts/apache.conf"), Maker::Nginx).await;
}
