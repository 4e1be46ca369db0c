//! Headers: the upstream sees one truthful value of each that tells who calls, whatever the caller
//! wrote beside it.

use serde_json::Value;

use keyward_core::id::KeyId;
use keyward_gateway::PlanePolicy;

use crate::conversation::unescape;
use crate::support::*;
use crate::witness::{Executed, Maker, Witness};

/// The tenant header of the product under test.
pub(crate) const TENANT_HEADER: &str = "x-workspace";

/// Headers that are set for the upstream and by nobody else.
const OURS: [&str; 16] = [
    "host",
    "keyward-actor",
    "keyward-assertion",
    "keyward-environment",
    "keyward-key-id",
    "keyward-key-name",
    "keyward-request-id",
    "keyward-role",
    "keyward-scopes",
    "keyward-tenant",
    "traceparent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "x-case",
];

/// Headers that no upstream gets, since it might believe them.
const NOBODYS: [&str; 46] = [
    "authorization",
    "cf-connecting-ip",
    "client-ip",
    "cookie",
    "expect",
    "fastly-client-ip",
    "forwarded",
    "http2-settings",
    "keep-alive",
    "keyward-future",
    "keyward-user",
    "proxy-authorization",
    "proxy-connection",
    "proxy-user",
    "remote-addr",
    "remote-user",
    "te",
    "trailer",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "via",
    "x-api-key",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded-by",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-user",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-organization-id",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-remote-user",
    "x-rewrite-url",
    "x-tenant-id",
    "x-user-email",
    "x-user-id",
    "x-workspace",
    "x-workspace-id",
];

/// Headers among those that frame, prove or are checked, and so cannot be sent at will.
const NOT_AT_WILL: [&str; 6] =
    ["authorization", "host", "transfer-encoding", "x-api-key", "x-case", "x-workspace"];

/// The pause behind a refused credential, by the test's clock.
const PAUSE_MS: i64 = 10_000;

/// The lines of a case, and the code of its refusal or nothing.
pub(crate) struct Case {
    pub(crate) lines: Vec<u8>,
    refusal: Option<String>,
}

fn case(lines: impl Into<Vec<u8>>, refusal: Option<&str>) -> Case {
    Case { lines: lines.into(), refusal: refusal.map(str::to_owned) }
}

/// Every way to write a name that a server may read as this one.
fn spellings(name: &str) -> Vec<String> {
    let title = |name: &str| {
        let words = name.split('-').map(|word| word[..1].to_ascii_uppercase() + &word[1..]);
        words.collect::<Vec<_>>().join("-")
    };
    let mut found = vec![name.to_owned(), name.to_ascii_uppercase(), title(name)];
    if name.contains('-') {
        let under = name.replace('-', "_");
        found.extend([under.to_ascii_uppercase(), name.replacen('-', "_", 1), under]);
    }
    found
}

/// What is written beside the truth, in every spelling and with many values.
fn forged() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in OURS.iter().chain(&NOBODYS) {
        for spelling in spellings(name) {
            // another spelling of a header that is checked is not that header
            let is_checked = NOT_AT_WILL.contains(&spelling.to_ascii_lowercase().as_str());
            if is_checked || spelling.eq_ignore_ascii_case("x_case") {
                continue;
            }
            let long = "evil".repeat(1_000);
            let values = ["evil", "", "evil, evil", "6.6.6.6", "evil\tevil", "\u{ff}evil", &long];
            let several = if spelling == *name { values.len() } else { 2 };
            for value in &values[..several] {
                cases.push(case(format!("{spelling}: {value}\r\n"), None));
            }
            cases.push(case(format!("{spelling}: evil\r\n{spelling}: evil\r\n"), None));
        }
    }
    cases
}

/// A `Connection` header that takes something along.
fn named_by_connection() -> Vec<Case> {
    let mut cases = Vec::new();
    let hop_by_hop =
        ["http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"];
    for name in OURS.iter().chain(&NOBODYS) {
        let passes = hop_by_hop.contains(name) || *name == "x-case";
        for named in spellings(name) {
            let refusal = (!passes || named.contains('_')).then_some("invalid_request");
            if named.eq_ignore_ascii_case("x_case") || *name == "x-case" {
                continue;
            }
            for list in [
                named.clone(),
                format!("close, {named}"),
                format!("{named} , keep-alive"),
                format!(" , {named},,"),
                format!("x-other\r\nconnection: {named}"),
            ] {
                cases.push(case(format!("connection: {list}\r\n"), refusal));
            }
        }
    }
    for named in ["content-length", "content-type", "idempotency-key", "Content_Length"] {
        cases.push(case(format!("connection: {named}\r\n"), Some("invalid_request")));
    }
    for fine in ["close", "keep-alive", "x-other", "", ",", "x-other, X-Another", "accept"] {
        cases.push(case(format!("connection: {fine}\r\nx-other: 1\r\n"), None));
    }
    cases
}

/// The rest of the corpus, from its file.
fn written(token: &str, other: &str) -> Vec<Case> {
    let lines = include_str!("headers.tsv").lines().filter(|line| !line.starts_with('#'));
    let cases = lines.map(|line| {
        let (verdict, text) = line.split_once('\t').expect("a verdict and header lines");
        let text = text.replace("{token}", token).replace("{other}", other);
        case(unescape(&text), Some(verdict).filter(|verdict| *verdict != "pass"))
    });
    cases.collect()
}

/// The request of a case. It has a host, a key and a tenant unless the case is about these.
pub(crate) fn request(number: usize, case: &Case, token: &str) -> Vec<u8> {
    let text: String = case.lines.iter().copied().map(char::from).collect();
    let lower = text.to_ascii_lowercase();
    let mut head = format!("GET /v1/reports HTTP/1.1\r\nx-case: {number}\r\n").into_bytes();
    let mut unless = |mark: &str, line: String| {
        if !lower.contains(mark) {
            head.extend_from_slice(line.as_bytes());
        }
    };
    unless("x-no: host", "host: api.test\r\n".to_owned());
    unless("x-no: key", format!("authorization: Bearer {token}\r\n"));
    unless("x-no: tenant", format!("{TENANT_HEADER}: lagos-pay\r\n"));
    head.extend_from_slice(&case.lines);
    head.extend_from_slice(b"\r\n");
    head
}

pub(crate) fn all_values<'v>(entry: &'v Value, list: &str, name: &str) -> Vec<&'v str> {
    let pairs = entry[list].as_array().into_iter().flatten();
    pairs.filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str()).collect()
}

/// Whether it is an assertion and nothing else (RFC 7515 §3.1).
fn is_signed(value: &str) -> bool {
    let in_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let parts: Vec<&str> = value.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(in_part))
}

/// What is wrong about the headers that an upstream got.
pub(crate) fn check_headers(stage: &Truth, entry: &Value, request_id: &str) -> Result<(), String> {
    let id = stage.key.to_string();
    let (tenant, owner) = (TENANT.to_string(), OWNER.to_string());
    let truths = [
        ("host", stage.upstream.as_str()),
        ("keyward-tenant", &tenant),
        ("keyward-environment", "live"),
        ("keyward-key-id", &id),
        ("keyward-key-name", "N%C3%A4chtlich 1%25"),
        ("keyward-scopes", "reports:read reports:write"),
        ("keyward-role", "admin"),
        ("keyward-actor", &owner),
        ("keyward-request-id", request_id),
        ("x-request-id", request_id),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
    ];
    for (name, truth) in truths {
        let seen = all_values(entry, "headers", name);
        if seen != [truth] {
            return Err(format!("{name} is {seen:?} instead of {truth:?}"));
        }
    }
    for name in OURS {
        let seen = all_values(entry, "headers", name);
        // of an assertion any four letters may be a part
        let forged = seen.iter().any(|value| value.contains("evil") && !is_signed(value));
        if seen.len() != 1 || forged {
            return Err(format!("{name} is {seen:?}"));
        }
        let cgi = all_values(entry, "cgi", &name.to_ascii_uppercase().replace('-', "_"));
        if entry["cgi"].is_array() && cgi != seen {
            return Err(format!("behind CGI {name} is {cgi:?}"));
        }
    }
    for name in NOBODYS {
        let cgi = name.to_ascii_uppercase().replace('-', "_");
        for (list, name) in [("headers", name), ("cgi", &cgi)] {
            let seen = all_values(entry, list, name);
            if !seen.is_empty() {
                return Err(format!("{name} passed: {seen:?}"));
            }
        }
    }
    Ok(())
}

/// What every upstream is to be told.
pub(crate) struct Truth {
    pub(crate) upstream: String,
    pub(crate) key: KeyId,
}

/// All cases: what is forged, what `Connection` names, and what is written in more than one way.
pub(crate) fn corpus(token: &str, other: &str) -> Vec<Case> {
    let mut cases = forged();
    cases.extend(named_by_connection());
    cases.extend(written(token, other));
    cases
}

/// Callers that fail are held back after a while.
pub(crate) fn pass_pause(world: &World) {
    world.clock.ms.fetch_add(PAUSE_MS, std::sync::atomic::Ordering::SeqCst);
}

async fn truthful(maker: Maker) {
    let Some(witness) = Witness::start(maker).await else { return };
    let world = World::new();
    let config = witness.upstreams();
    let plane = world.plane_with(config, PlanePolicy::default(), Some(TENANT_HEADER));
    let server = start(&plane, options());
    let other = world.key_of(keyward_core::environment::Environment::Live);
    let cases = corpus(&world.token, &other);
    let mut wrong = Vec::new();
    let mut ids = Vec::new();
    let mut client = Client::connect(server.local_addr()).await;
    for (number, case) in cases.iter().enumerate() {
        client.write(&request(number, case, &world.token)).await;
        let answer = client.answer().await;
        let got = match answer.status {
            200 => None,
            status if answer.body.is_empty() => Some(format!("a bare {status}")),
            _ => Some(answer.refusal().1),
        };
        if answer.status == 401 {
            pass_pause(&world);
        }
        if got != case.refusal {
            let wanted = &case.refusal;
            wrong.push(format!("{}: {got:?} instead of {wanted:?}", case.lines.escape_ascii()));
        }
        ids.push(answer.header("x-request-id").unwrap_or_default().to_owned());
        if answer.closed || !answer.head.contains("200 OK") {
            client = Client::connect(server.local_addr()).await;
        }
    }
    let executed = witness.executed().await;
    let truth = Truth { upstream: witness.address.to_string(), key: world.authority.id };
    wrong.extend(judge(&cases, &ids, &executed, &truth));
    let count = wrong.len();
    wrong.truncate(40);
    let list = wrong.join("\n");
    assert!(wrong.is_empty(), "{maker} was told wrongly in {count} of {}:\n{list}", cases.len());
}

fn judge(cases: &[Case], ids: &[String], executed: &Executed, truth: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let lines = case.lines.escape_ascii();
        let entries = executed.get(&number.to_string()).map_or(&[][..], Vec::as_slice);
        if entries.len() != usize::from(case.refusal.is_none()) {
            wrong.push(format!("{lines}: executed {} times", entries.len()));
        }
        for entry in entries {
            if let Err(what) = check_headers(truth, entry, &ids[number]) {
                wrong.push(format!("{lines}: {what}"));
            }
        }
    }
    wrong
}

#[tokio::test]
async fn every_header_is_truthful_to_hyper_over_http2() {
    truthful(Maker::HyperOverHttp2).await;
}

#[tokio::test]
async fn every_header_is_truthful_to_hyper() {
    truthful(Maker::Hyper).await;
}

#[tokio::test]
async fn every_header_is_truthful_to_node() {
    truthful(Maker::Node).await;
}

#[tokio::test]
async fn every_header_is_truthful_to_python_and_to_cgi() {
    truthful(Maker::Python).await;
}
