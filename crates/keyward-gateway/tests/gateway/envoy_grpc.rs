//! What Envoy asks over gRPC, as bytes: messages are written and read by the numbers of Envoy's
//! definitions here, not by the code under test.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use keyward_gateway::CHECK_PATH;

use crate::forward_auth::{As, Asking, PROXY_TOKEN, asking, asking_with_nobody, refusal};
use crate::support::*;

/// A message that is being written.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: usize) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap());
    }

    /// A member of text, bytes or another message.
    fn with(mut self, number: usize, bytes: &[u8]) -> Self {
        self.varint(number << 3 | 2);
        self.varint(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    fn with_number(mut self, number: usize, value: usize) -> Self {
        self.varint(number << 3);
        self.varint(value);
        self
    }
}

/// The members of a message: their numbers, and their bytes or value.
fn members(mut bytes: &[u8]) -> Vec<(usize, Vec<u8>, usize)> {
    fn varint(bytes: &mut &[u8]) -> usize {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = varint(&mut bytes);
        let taken = if tag & 7 == 2 { value } else { 0 };
        found.push((tag >> 3, bytes[..taken].to_vec(), value));
        bytes = &bytes[taken..];
    }
    found
}

fn member(bytes: &[u8], number: usize) -> Option<Vec<u8>> {
    members(bytes).into_iter().find(|(at, ..)| *at == number).map(|(_, bytes, _)| bytes)
}

fn text(bytes: &[u8], number: usize) -> String {
    String::from_utf8(member(bytes, number).unwrap_or_default()).unwrap()
}

/// What Envoy says of a request.
#[derive(Clone)]
struct Question {
    source: &'static str,
    method: String,
    path: String,
    host: &'static str,
    headers: Vec<(String, String)>,
    /// Whether headers come one by one, or joined.
    raw: bool,
}

impl Question {
    fn new(method: &str, target: &str, client: &str, headers: &str) -> Self {
        let lines = headers.lines().filter_map(|line| line.split_once(": "));
        let mut headers: Vec<(String, String)> =
            lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        for (name, value) in [
            (":authority", "api.test"),
            (":method", method),
            (":path", target),
            ("x-forwarded-for", client),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "ebc6e1cc-0318-4139-9f51-8c78701eadb4"),
        ] {
            headers.push((name.to_owned(), value.to_owned()));
        }
        Self {
            source: "127.0.0.1",
            method: method.to_owned(),
            path: target.to_owned(),
            host: "api.test",
            headers,
            raw: true,
        }
    }

    /// `CheckRequest`, with members that are not read here among the others.
    fn message(&self) -> Vec<u8> {
        let mut http = Message::default()
            .with(1, b"17")
            .with(2, self.method.as_bytes())
            .with(4, self.path.as_bytes())
            .with(5, self.host.as_bytes())
            .with(6, b"http")
            .with_number(9, 0)
            .with(10, b"HTTP/1.1");
        let mut map = Message::default();
        for (name, value) in &self.headers {
            let pair = Message::default().with(1, name.as_bytes());
            if self.raw {
                map = map.with(1, &pair.with(3, value.as_bytes()).0);
            } else {
                http = http.with(3, &pair.with(2, value.as_bytes()).0);
            }
        }
        if self.raw {
            http = http.with(13, &map.0);
        }
        let peer = |address: &str| {
            let socket = Message::default().with(2, address.as_bytes()).with_number(3, 41_000);
            let address = Message::default().with(1, &socket.0);
            Message::default().with(1, &address.0)
        };
        let time = Message::default().with_number(1, 1_800_000_000);
        let request = Message::default().with(1, &time.0).with(2, &http.0);
        let attributes = Message::default()
            .with(1, &peer(self.source).0)
            .with(2, &peer("127.0.0.1").0)
            .with(4, &request.0);
        Message::default().with(1, &attributes.0).0
    }
}

/// Something that Envoy leaves out.
type Change = fn(&mut Question);

/// The answer to a call: the status of gRPC, and the message.
struct Called {
    status: String,
    message: Vec<u8>,
}

async fn connect(asking: &Asking) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(asking.internal.local_addr()).await.unwrap();
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn call(asking: &Asking, body: Vec<u8>, token: &str) -> Called {
    let mut sender = asking.calls.get_or_init(|| connect(asking)).await.clone();
    let mut request = Request::post(format!("http://keyward.internal{CHECK_PATH}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "200m");
    if !token.is_empty() {
        request = request.header("keyward-proxy-token", token);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let answer = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let head = answer.headers().get("grpc-status").cloned();
    let whole = answer.into_body().collect().await.unwrap();
    let trailer = whole.trailers().and_then(|it| it.get("grpc-status")).cloned();
    let bytes = whole.to_bytes();
    let message = bytes.get(5..).unwrap_or_default().to_vec();
    if !bytes.is_empty() {
        assert_eq!(bytes[0], 0);
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        assert_eq!(length as usize, message.len());
    }
    let status = trailer.or(head).unwrap();
    Called { status: status.to_str().unwrap().to_owned(), message }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(message);
    body
}

/// The headers that Envoy is told to set; each in the place of what is there.
fn options(message: &[u8], number: usize) -> Vec<String> {
    let all = members(message).into_iter().filter(|(at, ..)| *at == number);
    all.map(|(_, option, _)| {
        let header = member(&option, 1).unwrap();
        assert_eq!(member(&option, 2), Some(Vec::new()), "append is said, and is false");
        assert!(members(&option).contains(&(3, Vec::new(), 2)), "what is there is overwritten");
        format!("{}: {}", text(&header, 1), text(&header, 2))
    })
    .collect()
}

/// The answer to a question as a client or an upstream would see it.
fn answer_of(called: &Called) -> Answer {
    assert_eq!(called.status, "0");
    let status = member(&called.message, 1).unwrap();
    let code = members(&status).first().map_or(0, |(_, _, code)| *code);
    let (denied, ok) = (member(&called.message, 2), member(&called.message, 3));
    assert_eq!((denied.is_none(), ok.is_some()), (code == 0, code == 0));
    let (status, mut lines, body) = match (&denied, &ok) {
        (Some(denied), None) => {
            let status = members(&member(denied, 1).unwrap())[0].2;
            (status, options(denied, 2), text(denied, 3))
        }
        (None, Some(ok)) => {
            let mut lines = options(ok, 2);
            lines.extend(options(ok, 6));
            let removed = members(ok).into_iter().filter(|(at, ..)| *at == 5);
            lines.extend(
                removed
                    .map(|(_, name, _)| format!("removed: {}", String::from_utf8(name).unwrap())),
            );
            (200, lines, String::new())
        }
        _ => panic!("neither or both"),
    };
    lines.insert(0, format!("HTTP/1.1 {status}"));
    let status = u16::try_from(status).unwrap();
    Answer { status, head: lines.join("\n"), body, closed: false }
}

/// Asks as Envoy does about one request.
pub(crate) async fn ask_over_grpc(
    asking: &Asking,
    client: &str,
    method: &str,
    target: &str,
    headers: &str,
) -> Answer {
    let question = Question::new(method, target, client, headers);
    // the token of a proxy is metadata of its call, and no header of the request
    let token = headers.lines().find_map(|line| line.strip_prefix("Keyward-Proxy-Token: "));
    answer_of(&call(asking, framed(&question.message()), token.unwrap_or_default()).await)
}

fn bearer(asking: &Asking) -> String {
    format!("Authorization: Bearer {}\r\n", asking.world.token)
}

#[tokio::test]
async fn what_speaks_of_the_caller_is_removed_and_what_is_ours_is_set() {
    let asking = asking();
    let forged = "Keyward-Tenant: evil\r\nkeyward_tenant: evil\r\nKeyward-Future: evil\r\n\
                  X-User-Plan: evil\r\nx_organization_id: evil\r\nAccept: a/b\r\n";
    let headers = format!("{}{forged}", bearer(&asking));
    let answer = ask_over_grpc(&asking, "203.0.113.9", "GET", "/v1/reports", &headers).await;
    assert_eq!(answer.status, 200);
    let removed: Vec<&str> =
        answer.head.lines().filter_map(|line| line.strip_prefix("removed: ")).collect();
    for name in [
        "authorization",
        "x-api-key",
        "keyward_tenant",
        "keyward-future",
        "x-user-plan",
        "x_organization_id",
        "x-http-method-override",
    ] {
        assert_eq!(removed.iter().filter(|it| **it == name).count(), 1, "{name}: {removed:?}");
    }
    for name in ["keyward-tenant", "keyward-assertion", "accept", "x-forwarded-for", "host"] {
        assert!(!removed.contains(&name), "{name}");
    }
    assert_eq!(answer.header("keyward-tenant"), Some(TENANT.to_string().as_str()));
}

#[tokio::test]
async fn headers_count_one_by_one_or_joined() {
    let asking = asking();
    let twice = format!("{0}{0}", bearer(&asking));
    for raw in [true, false] {
        for (headers, status) in [(bearer(&asking), 200), (twice.clone(), 401)] {
            let mut question = Question::new("GET", "/v1/reports", "203.0.113.9", &headers);
            question.raw = raw;
            if !raw {
                // as Envoy joins them
                let values: Vec<String> = question
                    .headers
                    .iter()
                    .filter(|(name, _)| name == "authorization")
                    .map(|(_, value)| value.clone())
                    .collect();
                question.headers.retain(|(name, _)| name != "authorization");
                question.headers.push(("authorization".to_owned(), values.join(",")));
            }
            let answer = answer_of(&call(&asking, framed(&question.message()), "").await);
            assert_eq!(answer.status, status, "{raw} {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_description_that_leaves_something_out_is_refused() {
    let asking = asking();
    let whole = Question::new("GET", "/v1/reports", "203.0.113.9", &bearer(&asking));
    let changes: [(&str, Change); 6] = [
        ("method", |it| it.method.clear()),
        ("path", |it| it.path.clear()),
        ("host", |it| it.host = ""),
        ("source", |it| it.source = ""),
        ("source", |it| it.source = "/run/envoy.sock"),
        ("headers", |it| it.headers.push(("bad name".to_owned(), String::new()))),
    ];
    for (what, change) in changes {
        let mut question = whole.clone();
        change(&mut question);
        let answer = answer_of(&call(&asking, framed(&question.message()), "").await);
        assert_eq!(refusal(As::EnvoyGrpc, &answer).0, 400, "{what}");
    }
    for message in [Vec::new(), Message::default().with(1, b"").0] {
        let answer = answer_of(&call(&asking, framed(&message), "").await);
        assert_eq!(refusal(As::EnvoyGrpc, &answer).0, 400);
    }
}

#[tokio::test]
async fn a_call_that_is_none_grants_nothing() {
    let asking = asking();
    let message = Question::new("GET", "/v1/reports", "203.0.113.9", &bearer(&asking)).message();
    let mut compressed = framed(&message);
    compressed[0] = 1;
    let mut longer = framed(&message);
    longer.push(0);
    for (body, status) in [
        (Vec::new(), "3"),
        (vec![0, 0, 0], "3"),
        (longer, "3"),
        (compressed, "12"),
        (framed(&[0xff; 16]), "3"),
        (framed(&vec![0; 300 * 1024]), "3"),
    ] {
        let called = call(&asking, body, "").await;
        assert_eq!((called.status.as_str(), called.message.len()), (status, 0));
    }
    assert_eq!(asking.plane.drain_usage(10).len(), 0);
}

#[tokio::test]
async fn the_token_of_a_proxy_comes_as_metadata_and_not_as_a_header_of_a_client() {
    let asking = asking_with_nobody();
    let headers = format!("{}keyward-proxy-token: {PROXY_TOKEN}\r\n", bearer(&asking));
    let question = Question::new("GET", "/v1/reports", "203.0.113.9", &headers);
    let message = framed(&question.message());
    let answer = answer_of(&call(&asking, message.clone(), "").await);
    assert_eq!(refusal(As::EnvoyGrpc, &answer).1["details"]["failed"], "proxy");
    assert_eq!(answer_of(&call(&asking, message, PROXY_TOKEN).await).status, 200);
}
