//! What the log says of a request, and what it never says.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use keyward_gateway::PlanePolicy;

use crate::support::*;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn one_line_for_each_request_and_no_secret_in_any() {
    let written = Written::default();
    let sink = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || sink.clone())
        .finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let world = World::new();
    let upstream = Upstream::start().await;
    let policy = PlanePolicy { request_log: true, ..PlanePolicy::default() };
    let plane = world.plane_with(vec![upstream_at(upstream.address)], policy, None);
    let server = start(&plane, options());
    let ask = async |target: &str, more: &str| {
        let token = &world.token;
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\ncontent-length: 7\r\n\
             {more}\r\npayload"
        );
        raw(server.local_addr(), head.as_bytes()).await
    };
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let more = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\ncookie: c00kie\r\n");
    let passed = ask("/v1/reports?customer=quiet", &more).await;
    ask(&format!("/v1/reports?key={}", world.token), "").await;
    ask("/v1/hidden", "").await;
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["target"] == "keyward::request")
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    let key = &world.authority;
    let expected = json!({
        "message": "request", "request_id": passed.header("x-request-id"), "trace_id": trace,
        "method": "POST", "route": "/v1/reports", "status": 200, "tenant": TENANT.to_string(),
        "env": "live", "key_id": key.id.to_string(), "key_prefix": "acme_live_",
        "integration": key.name, "duration_ms": 0, "ip": "127.0.0.1",
    });
    assert_eq!(lines[0]["fields"], expected);
    assert_eq!(lines[1]["fields"]["error_code"], "credential_in_url");
    assert_eq!(lines[2]["fields"]["error_code"], "forbidden");
    assert_eq!(lines[2]["fields"]["trace_id"].as_str().unwrap().len(), 32);
    let secret = &world.token["acme_live_".len() + 22..];
    for absent in [secret, "quiet", "payload", "c00kie", "hidden"] {
        assert!(!text.contains(absent), "{absent} is in the log: {text}");
    }
}
