//! What the log says of a request, and what it never says.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing::subscriber::DefaultGuard;

use keyward_gateway::PlanePolicy;

use crate::streams::Scene;
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

impl Written {
    /// Takes down what this thread logs from now on.
    fn listen() -> (Self, DefaultGuard) {
        let written = Self::default();
        let sink = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || sink.clone())
            .finish();
        (written, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of requests.
    fn requests(&self) -> Vec<Value> {
        let lines = self.text();
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &Value| line["target"] == "keyward::request").collect()
    }
}

#[tokio::test]
async fn one_line_for_each_request_and_no_secret_in_any() {
    let (written, _listening) = Written::listen();
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
    let (text, lines) = (written.text(), written.requests());
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

#[tokio::test]
async fn a_caller_that_hangs_up_is_recorded_all_the_same() {
    let (written, _listening) = Written::listen();
    let world = World::new();
    let (address, mut accepted) = raw_upstream().await;
    let policy = PlanePolicy { request_log: true, ..PlanePolicy::default() };
    let plane = world.plane_with(vec![upstream_at(address)], policy, None);
    let server = start(&plane, options());
    let mut client = Client::connect(server.local_addr()).await;
    let token = &world.token;
    let head = format!("DELETE /v1/reports/1 HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n\r\n");
    client.write(head.as_bytes()).await;
    let mut upstream = accepted.recv().await.unwrap();
    upstream.head().await;
    drop(client);
    assert!(upstream.is_closed().await);
    let lines = written.requests();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let fields = &lines[0]["fields"];
    assert_eq!((&fields["outcome"], &fields["status"]), (&json!("client_gone"), &json!(499)));
    assert_eq!((&fields["route"], fields.get("error_code")), (&json!("/v1/reports/{id}"), None));
    let rows = plane.drain_usage(10);
    assert_eq!((rows.len(), rows[0].permitted, rows[0].last.is_some()), (1, 1, true));
    let counted = metrics_of(&plane);
    let labels = r#"{route="DELETE /v1/reports/{id}",decision="permit",code="client_gone"}"#;
    assert!(counted.contains(&format!("keyward_gateway_requests_total{labels} 1\n")), "{counted}");
    assert!(counted.contains(r#"responses_total{class="4xx"} 0"#), "{counted}");
}

#[tokio::test]
async fn a_request_cut_by_the_end_of_a_drain_is_recorded_as_ours() {
    let (written, _listening) = Written::listen();
    let world = World::new();
    let (address, mut accepted) = raw_upstream().await;
    let policy = PlanePolicy { request_log: true, ..PlanePolicy::default() };
    let plane = world.plane_with(vec![upstream_at(address)], policy, None);
    let server = start(&plane, options());
    let mut client = Client::connect(server.local_addr()).await;
    let token = &world.token;
    let head = format!("GET /v1/reports HTTP/1.1\r\nhost: a\r\nx-api-key: {token}\r\n\r\n");
    client.write(head.as_bytes()).await;
    let mut upstream = accepted.recv().await.unwrap();
    upstream.head().await;
    assert!(!server.drain(std::time::Duration::ZERO).await);
    assert!(client.is_closed().await);
    let fields = &written.requests()[0]["fields"];
    assert_eq!((&fields["error_code"], &fields["status"]), (&json!("unavailable"), &json!(503)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_cut_has_a_line_of_its_own() {
    let cut = async || {
        let mut scene = Scene::set().await;
        let mut stream = scene.my_events().await;
        scene.revoke();
        scene.pass_ms(1_000).await;
        assert!(stream.is_cut().await);
        scene
    };
    // tests beside this one log the same: a first event that happens while a listener comes may
    // pass it by, so it happens before
    cut().await;
    let (written, _listening) = Written::listen();
    let scene = cut().await;
    let (lines, key) = (written.requests(), &scene.world.authority);
    let mut fields = lines[0]["fields"].clone();
    let request_id = fields.as_object_mut().unwrap().remove("request_id").unwrap();
    assert!(request_id.as_str().unwrap().starts_with("req_"));
    let expected = json!({
        "message": "stream cut", "outcome": "authority_lost", "failed": "state",
        "error_code": "unauthorized", "reason": "revoked", "method": "GET",
        "route": "/v1/reports", "tenant": TENANT.to_string(), "env": "live",
        "key_id": key.id.to_string(), "key_prefix": "acme_live_", "integration": key.name,
        "duration_ms": 1_000, "ip": "127.0.0.1",
    });
    assert_eq!((lines.len(), fields), (1, expected));
}
