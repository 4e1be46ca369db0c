//! Secret keys stay on servers: a page cannot use one, and is not invited to.

use std::time::Duration;

use http::Method;
use keyward_api::operation::OPERATIONS;
use keyward_testkit::Browser;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::document::routes;
use crate::harness::{Actor, Got, LAGOS_PAY, TestNode, node_on_every_engine};

/// Nothing takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a browser adds to the calls of a page, and no page can take away.
const MARKS: [(&str, &str); 6] = [
    ("origin", "https://app.lagos-pay.example"),
    ("origin", "null"),
    ("origin", "http://127.0.0.1"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-site", "same-site"),
    ("sec-fetch-site", "same-origin"),
];

/// Nothing in the answer lets a page read it.
#[track_caller]
fn invites_nobody(got: &Got) {
    let mut names = got.headers.keys().map(http::HeaderName::as_str);
    let inviting = names.find(|name| name.starts_with("access-control-"));
    assert_eq!(inviting, None, "{}", got.text);
}

#[tokio::test]
async fn an4_a_secret_key_from_a_page_is_refused_with_the_reason() {
    node_on_every_engine(async |node| {
        let key = node.demo_key(LAGOS_PAY);
        for route in routes() {
            for (name, value) in MARKS {
                let got = route.call(&key.with(name, value)).await;
                let error = got.refused_at(403, "browser_origin_refused", "browser_origin");
                let message = error["message"].as_str().unwrap();
                assert!(message.contains("secret key"), "{message}");
                assert!(message.contains("server"), "{message}");
                invites_nobody(&got);
            }
        }
        // what people type into the address bar comes from no page
        key.with("sec-fetch-site", "none").get("/v1/reports").await.is(200);
    })
    .await;
}

#[tokio::test]
async fn an4_no_answer_invites_a_page() {
    node_on_every_engine(async |node| {
        let key = node.demo_key(LAGOS_PAY);
        let nobody = node.anonymous().at(&node.gateways[0]);
        for route in routes() {
            for who in [&key, &nobody] {
                let got = preflight(who, &route.method, &route.target).await;
                assert!((400..500).contains(&got.status), "{}: {}", route.id, got.status);
                got.envelope();
                invites_nobody(&got);
                let got = nobody.with("origin", "https://a.example");
                invites_nobody(&route.call(&got).await);
            }
        }
        invites_nobody(&key.get("/v1/reports").await);
        for path in ["/v1/nowhere", "/", "/v1//reports", "/v1/reports/rep_nobody"] {
            invites_nobody(&key.get(path).await);
            invites_nobody(&key.with("origin", "https://a.example").get(path).await);
        }
        own_api_invites_nobody(node).await;
    })
    .await;
}

/// The same of Keyward's own operations: pages are no callers of theirs either.
async fn own_api_invites_nobody(node: &TestNode) {
    let operator = node.operator();
    for operation in OPERATIONS {
        let path = operation.path.replace(['{', '}'], "");
        for who in [&operator, &node.anonymous()] {
            let got = preflight(who, &operation.method.to_string().parse().unwrap(), &path).await;
            invites_nobody(&got);
        }
    }
    invites_nobody(&operator.with("origin", "https://a.example").get("/v1/whoami").await);
}

async fn preflight(who: &Actor, method: &Method, path: &str) -> Got {
    let who = who
        .with("origin", "https://a.example")
        .with("access-control-request-method", method.as_str())
        .with("access-control-request-headers", "authorization");
    who.send(Method::OPTIONS, path, None).await
}

/// A page that tries everything a page can, and tells its own server how each attempt ended.
const PAGE: &str = "<!doctype html><title>A page</title><script type='module'>
const url = '{{url}}/v1/reports', secret = '{{secret}}'
const authorization = `Bearer ${secret}`
const told = async (attempt) => {
  try { return (await attempt()).status } catch (error) { return error.name }
}
const byOldRequest = () => new Promise((resolve, reject) => {
  const request = new XMLHttpRequest()
  request.open('GET', url)
  request.setRequestHeader('authorization', authorization)
  request.onload = () => resolve(request)
  request.onerror = () => reject(new TypeError('refused'))
  request.send()
})
const post = { method: 'POST', headers: { authorization }, body: '{}' }
const result = {
  get: await told(() => fetch(url, { headers: { authorization } })),
  post: await told(() => fetch(`${url}/build`, post)),
  withCookies: await told(() =>
    fetch(url, { headers: { authorization }, credentials: 'include' })),
  oldRequest: await told(byOldRequest),
  withoutKey: await told(() => fetch(url)),
  // headers that need a preflight are dropped here, and the answer cannot be read
  opaque: await told(() => fetch(url, { headers: { authorization }, mode: 'no-cors' })),
}
await fetch('/result', { method: 'POST', body: JSON.stringify(result) })
</script>";

#[tokio::test]
async fn an4_a_page_in_a_real_browser_cannot_use_a_key() {
    node_on_every_engine(async |node| {
        let key = node.minted(&["reports:read", "reports:write"]).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}/", listener.local_addr().unwrap());
        let page = PAGE.replace("{{url}}", &node.gateways[0]).replace("{{secret}}", &key.secret);
        let Some(browser) = Browser::open(&origin) else { return };
        let result = timeout(PATIENCE, serve_page(&listener, &page)).await.expect("a result");
        drop(browser);
        let refused = "TypeError";
        let wanted = json!({
            "get": refused, "post": refused, "withCookies": refused, "oldRequest": refused,
            "withoutKey": refused, "opaque": 0,
        });
        assert_eq!(result, wanted);
        node.note_usage().await;
        assert_eq!(node.record(&key.id).await["lastUsedAt"], Value::Null);
        // the same calls from a server
        node.bearer(&key.secret).get("/v1/reports").await.is(200);
    })
    .await;
}

/// Serves the page until it has told its result. Browsers open connections ahead of need, so no
/// connection waits for another.
async fn serve_page(listener: &TcpListener, page: &str) -> Value {
    let (tell, mut told) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (page, tell) = (page.to_owned(), tell.clone());
                tokio::spawn(serve_one(accepted.unwrap().0, page, tell));
            }
            result = told.recv() => return result.unwrap(),
        }
    }
}

async fn serve_one(mut stream: TcpStream, page: String, tell: mpsc::UnboundedSender<Value>) {
    let request = read_request(&mut stream).await;
    let body = if request.starts_with("GET / ") { page.as_str() } else { "" };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let result = request.strip_prefix("POST /result").and_then(|it| it.split_once("\r\n\r\n"));
    if let Some((_, result)) = result {
        let _ = tell.send(serde_json::from_str(result).unwrap());
    }
}

/// A whole request; an empty text when the browser only tried the connection.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    loop {
        let mut chunk = [0; 4 * 1024];
        let count = stream.read(&mut chunk).await.unwrap_or(0);
        received.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&received).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return String::new();
            }
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest);
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if body.len() >= length || count == 0 {
            return text;
        }
    }
}
