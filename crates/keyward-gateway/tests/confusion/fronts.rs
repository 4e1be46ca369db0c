//! The corpora of framings and headers through real proxies of other makers. They may refuse a
//! request or write it anew: whatever reaches the gateway then is decided, executed and answered as
//! one, and the upstream is told the truth about its caller.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;

use keyward_gateway::{GatewayServer, PlanePolicy};
use keyward_testkit::{Program, ServerProcess};

use crate::conversation::{converse_for, statuses};
use crate::framing::{conversation, foreign_trailer};
use crate::framing_cases::{self, Case, NEXT, Outcome, SMUGGLED};
use crate::headers;
use crate::paths::APACHE_MODULES;
use crate::support::*;
use crate::witness::{Executed, Maker, Witness};

/// Conversations at a time.
const AT_ONCE: usize = 200;
/// For how long a proxy may wait for the rest of a request that has none.
const REST: Duration = Duration::from_secs(1);

/// Ends a connection that a case leaves open.
const LAST: &[u8] = b"GET /v1/none HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n\r\n";

/// A proxy of another maker, with its configuration.
#[derive(Clone, Copy)]
struct Front(Program, &'static str);

const NGINX: Front = Front(Program::Nginx, include_str!("fronts/nginx.conf"));
const HAPROXY: Front = Front(Program::HaProxy, include_str!("fronts/haproxy.cfg"));
const CADDY: Front = Front(Program::Caddy, include_str!("fronts/Caddyfile"));
const APACHE: Front = Front(Program::Apache, include_str!("fronts/apache.conf"));

/// A proxy before a gateway before a witness.
struct Chain {
    world: World,
    witness: Witness,
    proxy: ServerProcess,
    _server: GatewayServer,
}

impl Chain {
    /// `None` when one of the programs is not on this machine.
    async fn start(front: Front, maker: Maker, tenant_header: Option<&str>) -> Option<Self> {
        let witness = Witness::start(maker).await?;
        let world = World::new();
        let upstreams = witness.upstreams();
        let plane = world.plane_with(upstreams, PlanePolicy::default(), tenant_header);
        let server = start(&plane, options());
        let gateway = server.local_addr().to_string();
        let values = [("gateway", gateway.as_str()), ("modules", APACHE_MODULES)];
        let proxy = ServerProcess::start(front.0, front.1, &values).await?;
        Some(Self { world, witness, proxy, _server: server })
    }
}

// -- framings -----------------------------------------------------------------------------------

async fn ask(address: SocketAddr, number: usize, case: &Case, token: &str) -> (usize, String) {
    (number, converse_for(REST, address, &conversation(number, case, token)).await)
}

/// What was executed, by name. A proxy may make one line of a folded one: the name is the first
/// word.
fn by_name(executed: &Executed) -> HashMap<&str, Vec<&Value>> {
    let mut named: HashMap<&str, Vec<&Value>> = HashMap::new();
    for (case, entries) in executed {
        let name = case.split_ascii_whitespace().next().unwrap_or_default();
        named.entry(name).or_default().extend(entries);
    }
    named
}

/// What is wrong with a case behind a proxy; nothing when all is well.
fn judge(
    number: usize,
    case: &Case,
    received: &str,
    executed: &HashMap<&str, Vec<&Value>>,
) -> Option<String> {
    let named = |name: String| executed.get(&*name).map_or(&[][..], Vec::as_slice);
    let own = named(number.to_string());
    let next = named(format!("{number}{NEXT}")).len();
    let answered = statuses(received).iter().filter(|status| **status == 200).count();
    let differs = |entry: &&Value| match &case.outcome {
        Outcome::Refused | Outcome::TooLarge => false,
        Outcome::Executed(body) | Outcome::Last(body) | Outcome::ThenRefused(body) => {
            let body: String = body.iter().copied().map(char::from).collect();
            entry["body"] != *body
        }
    };
    let once = own.len() <= 1 && next <= 1;
    let is_right = once && answered <= own.len() + next && !own.iter().any(differs);
    (!is_right).then(|| {
        format!("{}: answered {answered} times, executed {own:?} and {next} more", case.name)
    })
}

async fn framings(front: Front) {
    for maker in [Maker::Hyper, Maker::Nginx, Maker::Node, Maker::Python] {
        let Some(chain) = Chain::start(front, maker, None).await else { return };
        let cases = framing_cases::all();
        let (address, token) = (chain.proxy.address(), chain.world.token.as_str());
        let asking = cases.iter().enumerate().map(|(at, case)| ask(address, at, case, token));
        let received: Vec<_> = stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
        let executed = chain.witness.executed().await;
        let named = by_name(&executed);
        let judged = received
            .iter()
            .filter_map(|(number, received)| judge(*number, &cases[*number], received, &named));
        let mut wrong: Vec<String> = judged.collect();
        for (case, entries) in &executed {
            if case.contains(SMUGGLED) {
                wrong.push(format!("a request within a body was executed: {entries:?}"));
            }
            wrong.extend(entries.iter().filter_map(foreign_trailer));
        }
        let program = front.0;
        let list = wrong.join("\n");
        assert!(wrong.is_empty(), "behind {program:?} {maker} disagrees:\n{list}");
        let is_executed = |case: &&Case| matches!(case.outcome, Outcome::Executed(_));
        let (passed, good) = (executed.len(), cases.iter().filter(is_executed).count());
        assert!(passed >= good, "{program:?} let only {passed} requests of {good} cases pass");
    }
}

#[tokio::test]
async fn behind_nginx_every_framing_is_read_alike() {
    framings(NGINX).await;
}

#[tokio::test]
async fn behind_haproxy_every_framing_is_read_alike() {
    framings(HAPROXY).await;
}

#[tokio::test]
async fn behind_caddy_every_framing_is_read_alike() {
    framings(CADDY).await;
}

#[tokio::test]
async fn behind_apache_every_framing_is_read_alike() {
    framings(APACHE).await;
}

// -- headers ------------------------------------------------------------------------------------

async fn truthful(front: Front) {
    for maker in [Maker::Hyper, Maker::Node, Maker::Python] {
        let tenant_header = Some(headers::TENANT_HEADER);
        let Some(chain) = Chain::start(front, maker, tenant_header).await else { return };
        let other = chain.world.key_of(keyward_core::environment::Environment::Live);
        let cases = headers::corpus(&chain.world.token, &other);
        let address = chain.proxy.address();
        let mut answered = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let request = headers::request(number, case, &chain.world.token);
            let received = converse_for(REST, address, &[&request, LAST].concat()).await;
            answered.push(statuses(&received).first().copied());
            headers::pass_pause(&chain.world);
        }
        let executed = chain.witness.executed().await;
        let truth = headers::Truth {
            upstream: chain.witness.address.to_string(),
            key: chain.world.authority.id,
        };
        let (mut wrong, mut passed) = (Vec::new(), 0);
        for (number, case) in cases.iter().enumerate() {
            let entries = executed.get(&number.to_string()).map_or(&[][..], Vec::as_slice);
            let lines = case.lines.escape_ascii();
            if entries.len() != usize::from(answered[number] == Some(200)) {
                let (status, times) = (answered[number], entries.len());
                wrong.push(format!("{lines}: answered {status:?}, executed {times} times"));
            }
            for entry in entries {
                passed += 1;
                let id = headers::all_values(entry, "headers", "x-request-id");
                if let Err(what) = headers::check_headers(&truth, entry, id.first().unwrap_or(&""))
                {
                    wrong.push(format!("{lines}: {what}"));
                }
            }
        }
        let (program, all, list) = (front.0, wrong.len(), wrong.join("\n"));
        assert!(wrong.is_empty(), "behind {program:?} {maker} was told wrongly in {all}:\n{list}");
        assert!(passed >= cases.len() / 4, "{program:?} let only {passed} of {} pass", cases.len());
    }
}

#[tokio::test]
async fn behind_nginx_every_header_is_truthful() {
    truthful(NGINX).await;
}

#[tokio::test]
async fn behind_haproxy_every_header_is_truthful() {
    truthful(HAPROXY).await;
}

#[tokio::test]
async fn behind_caddy_every_header_is_truthful() {
    truthful(CADDY).await;
}

#[tokio::test]
async fn behind_apache_every_header_is_truthful() {
    truthful(APACHE).await;
}
