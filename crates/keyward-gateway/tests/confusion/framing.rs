//! Framing: however the end of a body is written, the upstream sees one request with the bytes
//! that were decided on, or none.

use std::net::SocketAddr;

use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;

use crate::conversation::{converse, statuses};
use crate::framing_cases::{self, Case, Outcome};
use crate::support::*;
use crate::witness::{Executed, Maker, Witness};

/// Conversations at a time.
const AT_ONCE: usize = 64;
/// The fewest mutations that are worth the name of a corpus.
const FEWEST: usize = 600;
/// Trailers that an upstream may not see, since their values are not ours.
const NO_TRAILERS: [&str; 7] = [
    "authorization",
    "content-length",
    "host",
    "keyward-tenant",
    "keyward-assertion",
    "transfer-encoding",
    "x-forwarded-for",
];

/// The bytes of a case: the request, and one more that follows it on the connection.
pub(crate) fn conversation(number: usize, case: &Case, token: &str) -> Vec<u8> {
    let (before, after) = (&case.before, &case.after);
    let name = |part: &str| {
        format!("host: api.test\r\nauthorization: Bearer {token}\r\nx-case: {number}{part}\r\n")
    };
    let next = format!(
        "GET /v1/reports/next HTTP/1.1\r\n{}connection: close\r\n\r\n",
        name(framing_cases::NEXT)
    );
    [before, name("").as_bytes(), after, next.as_bytes()].concat()
}

fn bodies(executed: &Executed, case: &str) -> Vec<String> {
    let entries = executed.get(case).map_or(&[][..], Vec::as_slice);
    entries.iter().map(|entry| entry["body"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What is wrong with a case; nothing when all is well.
fn judge(number: usize, case: &Case, received: &str, executed: &Executed) -> Option<String> {
    let own = bodies(executed, &number.to_string());
    let next = bodies(executed, &format!("{number}{}", framing_cases::NEXT));
    let seen = statuses(received);
    let text = |body: &[u8]| body.iter().copied().map(char::from).collect::<String>();
    let (statuses, own_wanted, next_wanted) = match &case.outcome {
        Outcome::Refused => (vec![400], vec![], 0),
        Outcome::TooLarge => (vec![413], vec![], 0),
        Outcome::Executed(body) => (vec![200, 200], vec![text(body)], 1),
        Outcome::Last(body) => (vec![200], vec![text(body)], 0),
        Outcome::ThenRefused(body) => (vec![200, 400], vec![text(body)], 0),
    };
    if seen == statuses && own == own_wanted && next.len() == next_wanted {
        return None;
    }
    let name = &case.name;
    Some(format!("{name}: answered {seen:?}, executed {own:?} and {} more", next.len()))
}

async fn ask(address: SocketAddr, number: usize, case: &Case, token: &str) -> (usize, String) {
    (number, converse(address, &conversation(number, case, token)).await)
}

async fn read_by(maker: Maker) {
    let Some(witness) = Witness::start(maker).await else { return };
    let world = World::new();
    let plane = world.plane(witness.upstreams());
    let server = start(&plane, options());
    let cases = framing_cases::all();
    assert!(cases.len() >= FEWEST, "{} mutations", cases.len());
    let (address, token) = (server.local_addr(), world.token.as_str());
    let asking = cases.iter().enumerate().map(|(number, case)| ask(address, number, case, token));
    let received: Vec<_> = stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
    let executed = witness.executed().await;
    let judged = received
        .iter()
        .filter_map(|(number, received)| judge(*number, &cases[*number], received, &executed));
    let mut wrong: Vec<String> = judged.collect();
    for (case, entries) in &executed {
        if case.contains(framing_cases::SMUGGLED) {
            wrong.push(format!("the upstream executed a request within a body: {entries:?}"));
        }
        wrong.extend(entries.iter().filter_map(foreign_trailer));
    }
    let (count, list) = (wrong.len(), wrong.join("\n"));
    assert!(wrong.is_empty(), "{maker} disagrees about {count} of {}:\n{list}", cases.len());
}

pub(crate) fn foreign_trailer(entry: &Value) -> Option<String> {
    let trailers = entry["trailers"].as_array().into_iter().flatten();
    let mut names = trailers.filter_map(Value::as_str);
    let foreign = names.find(|name| NO_TRAILERS.contains(name))?;
    Some(format!("the upstream was sent the trailer {foreign}: {entry}"))
}

#[tokio::test]
async fn every_framing_is_read_alike_by_hyper_over_http2() {
    read_by(Maker::HyperOverHttp2).await;
}

#[tokio::test]
async fn every_framing_is_read_alike_by_hyper() {
    read_by(Maker::Hyper).await;
}

#[tokio::test]
async fn every_framing_is_read_alike_by_nginx() {
    read_by(Maker::Nginx).await;
}

#[tokio::test]
async fn every_framing_is_read_alike_by_node() {
    read_by(Maker::Node).await;
}

#[tokio::test]
async fn every_framing_is_read_alike_by_python() {
    read_by(Maker::Python).await;
}
