//! What the log says of a request, and what it never says.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{LAGOS_PAY, PROFILE, Process};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn an6_a_key_is_logged_by_its_prefix_and_ids_are_carried_through() {
    let mut arguments = vec!["--profile", PROFILE];
    for listener in ["--gateway-listen", "--control-listen", "--internal-listen"] {
        arguments.extend([listener, "127.0.0.1:0"]);
    }
    arguments.extend(["--sandbox-listen", "127.0.0.1:0", "--log-format", "json"]);
    let process = Process::dev(&arguments).await;
    let key = process.site.demo_key(LAGOS_PAY);
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let mut expected = BTreeMap::new();
    for (path, status) in [("/v1/reports", 200), ("/v1/nothing", 403)] {
        let got = key.with("traceparent", &parent).get(path).await;
        assert_eq!(got.status, status, "{}", got.text);
        expected.insert(got.header("x-request-id").unwrap().to_owned(), status);
    }
    let id_and_secret = key.secret().rsplit('_').next().unwrap().to_owned();
    let in_url = process.site.anonymous().at(&process.site.gateways[0]);
    let path = format!("/v1/reports?api_key={}", key.secret());
    in_url.get(&path).await.refused(400, "credential_in_url");
    let ended = process.stop().await;
    for secret in [&id_and_secret[22..], &key.secret()[key.secret().len() - 20..]] {
        assert!(!ended.stderr.contains(secret), "the log holds a part of the secret");
    }
    for line in ended.stderr.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let Some(status) = line["request_id"].as_str().and_then(|id| expected.remove(id)) else {
            continue;
        };
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["trace_id"], TRACE, "{line}");
        assert_eq!(line["key_prefix"], "asiri_live_", "{line}");
        assert!(line["key_id"].as_str().unwrap().starts_with("key_"), "{line}");
    }
    assert!(expected.is_empty(), "not in the log: {expected:?}");
}
