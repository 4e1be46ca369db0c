//! Upstreams of other makers, which tell what they have executed.

use std::collections::HashMap;
use std::fmt::{Display, Formatter};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use keyward_gateway::{UpstreamConfig, UpstreamProtocol};
use keyward_testkit::{Program, ServerProcess};

use crate::conversation::{converse, percent_decoded};
use crate::support::upstream_at;

/// The pause between two looks into a log.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The case of the requests that end a log.
const LAST: &str = "last";

/// Whose reading of a request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    Hyper,
    /// The same over HTTP/2.
    HyperOverHttp2,
    Nginx,
    Node,
    Python,
}

impl Display for Maker {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        write!(out, "{self:?}")
    }
}

/// An upstream that tells which requests it has executed: by which path and route, with which
/// headers and body. A request whose body breaks off is not executed.
pub(crate) struct Witness {
    pub(crate) address: SocketAddr,
    protocol: UpstreamProtocol,
    log: Log,
}

enum Log {
    Memory(Arc<Mutex<Vec<Value>>>),
    File(ServerProcess),
}

/// What was executed, by the `x-case` of the request.
pub(crate) type Executed = HashMap<String, Vec<Value>>;

impl Witness {
    /// Starts one; nothing when its program is not on this machine.
    pub(crate) async fn start(maker: Maker) -> Option<Self> {
        let (program, source) = match maker {
            Maker::Hyper => return Some(Self::on_hyper(UpstreamProtocol::Http1).await),
            Maker::HyperOverHttp2 => return Some(Self::on_hyper(UpstreamProtocol::Http2).await),
            Maker::Nginx => (Program::Nginx, include_str!("upstreams/nginx.conf")),
            Maker::Node => (Program::Node, include_str!("upstreams/server.mjs")),
            Maker::Python => (Program::Python, include_str!("upstreams/server.py")),
        };
        let process = ServerProcess::start(program, source, &[]).await?;
        let (address, protocol) = (process.address(), UpstreamProtocol::Http1);
        Some(Self { address, protocol, log: Log::File(process) })
    }

    /// Where the gateway finds it, and what it speaks there.
    pub(crate) fn upstreams(&self) -> Vec<UpstreamConfig> {
        let mut upstream = upstream_at(self.address);
        upstream.protocol = self.protocol;
        // HTTP/2 does not carry WebSockets: no upstream that speaks it may have their routes
        let mut sockets = upstream_at(SocketAddr::from(([127, 0, 0, 1], 1)));
        sockets.name = Some("billing".to_owned());
        sockets.paths = vec!["/v1/socket".to_owned()];
        match self.protocol {
            UpstreamProtocol::Http2 => vec![upstream, sockets],
            _ => vec![upstream],
        }
    }

    async fn on_hyper(protocol: UpstreamProtocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told: Arc<Mutex<Vec<Value>>> = Arc::default();
        let log = Log::Memory(Arc::clone(&told));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let told = Arc::clone(&told);
                tokio::spawn(serve(stream, told));
            }
        });
        Self { address, protocol, log }
    }

    /// All that it has executed so far. Fails when it received anything that is no request.
    pub(crate) async fn executed(&self) -> Executed {
        // behind the second of these, whatever came before the first has been executed
        for _ in 0..2 {
            let last = format!(
                "GET /v1/{LAST} HTTP/1.1\r\nhost: a\r\nx-case: {LAST}\r\nconnection: close\r\n\r\n"
            );
            converse(self.address, last.as_bytes()).await;
        }
        loop {
            let told = self.told();
            let ends = told.iter().filter(|entry| case_of(entry) == LAST).count();
            if ends >= 2 && ends.is_multiple_of(2) {
                return by_case(told);
            }
            let _ = timeout(LOOK_AGAIN, std::future::pending::<()>()).await;
        }
    }

    fn told(&self) -> Vec<Value> {
        match &self.log {
            Log::Memory(told) => told.lock().unwrap().clone(),
            Log::File(process) => {
                let log = std::fs::read(process.folder().join("told")).unwrap_or_default();
                let log = String::from_utf8_lossy(&log).into_owned();
                // the last line may be half written
                let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                lines.map(|line| serde_json::from_str(line).unwrap()).collect()
            }
        }
    }
}

/// Whether a connection begins as HTTP/2 does (RFC 9113 §3.4), which no method here does.
async fn begins_http2(stream: &TcpStream) -> Option<bool> {
    let mut first = [0; 3];
    loop {
        let count = stream.peek(&mut first).await.ok().filter(|count| *count > 0)?;
        if count == first.len() || !b"PRI".starts_with(&first[..count]) {
            return Some(first == *b"PRI");
        }
        tokio::task::yield_now().await;
    }
}

async fn serve(stream: TcpStream, told: Arc<Mutex<Vec<Value>>>) -> Option<()> {
    let service = service_fn(move |request| execute(request, Arc::clone(&told)));
    if begins_http2(&stream).await? {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        return server.serve_connection(TokioIo::new(stream), service).await.ok();
    }
    let mut server = hyper::server::conn::http1::Builder::new();
    server.max_buf_size(64 * 1024).serve_connection(TokioIo::new(stream), service).await.ok()
}

fn by_case(told: Vec<Value>) -> Executed {
    let mut executed = Executed::new();
    for entry in told {
        assert_eq!(entry["garbage"], Value::Null, "the upstream could not read a request");
        // a proxy logs also what it has given up, because its body broke off
        let given_up = entry["status"].as_u64().is_some_and(|status| status != 200);
        if given_up {
            assert_ne!(entry["method"], "", "the upstream could not read a request: {entry}");
        } else if case_of(&entry) != LAST {
            executed.entry(case_of(&entry)).or_default().push(entry);
        }
    }
    executed
}

/// The values of a header that the upstream has seen.
pub(crate) fn values<'v>(entry: &'v Value, name: &str) -> Vec<&'v str> {
    let pairs = entry["headers"].as_array().into_iter().flatten();
    let named = pairs.filter(|pair| pair[0] == name);
    named.filter_map(|pair| pair[1].as_str()).filter(|value| !value.is_empty()).collect()
}

fn case_of(entry: &Value) -> String {
    values(entry, "x-case").join(" and ")
}

async fn execute(
    request: Request<Incoming>,
    told: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?;
    let trailers: Vec<String> =
        body.trailers().into_iter().flat_map(|map| map.keys()).map(ToString::to_string).collect();
    let path = String::from_utf8_lossy(&percent_decoded(parts.uri.path())).into_owned();
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    // over HTTP/2 the host stands in the address
    let authority = parts.uri.authority().map(|host| json!(["host", host.as_str()]));
    let listed = parts.headers.iter();
    let listed = listed.map(|(name, value)| json!([name.as_str(), text(value.as_bytes())]));
    let headers: Vec<_> = authority.into_iter().chain(listed).collect();
    told.lock().unwrap().push(json!({
        "method": parts.method.as_str(),
        "target": parts.uri.path_and_query().map_or("", |whole| whole.as_str()),
        "route": route(&path),
        "executed": path,
        "headers": headers,
        "trailers": trailers,
        "body": text(&body.to_bytes()),
    }));
    Ok(Response::new(Full::from("executed")))
}

fn route(path: &str) -> &'static str {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["v1", "reports"] => "reports",
        ["v1", "reports:build"] => "build",
        ["v1", "reports", id] if !id.is_empty() => "report",
        ["v1", "reports", id, "files", name] if !id.is_empty() && !name.is_empty() => "file",
        _ if path.to_ascii_lowercase().contains("admin") => "admin",
        _ => "other",
    }
}
