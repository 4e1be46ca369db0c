//! Every error of every listener looks the same and carries the id of its request.

use keyward_testkit::Wire;
use serde_json::json;

use crate::harness::{LAGOS_PAY, TestNode, check_envelope, node_on_every_engine};

/// Larger than any body that Keyward's own API reads.
const LARGE: usize = 2 * 1024 * 1024;
/// Larger than any header block.
const LONG: usize = 40 * 1024;

/// Sends bytes and checks the envelope of the refusal, its status and its code.
async fn refused(address: &str, request: &[u8], status: u16, code: &str) {
    let shown = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
    let mut wire = Wire::connect(address).await;
    wire.write(request).await;
    let answer = wire.answer().await.unwrap_or_else(|| panic!("no answer to {shown}"));
    let got = (answer.status, answer.body.clone());
    let error = check_envelope(answer.status, &answer.body, &|name| answer.header(name));
    assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{shown}: {got:?}");
}

fn head(line: &str, token: &str, more: &str) -> Vec<u8> {
    let text =
        format!("{line} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\n{more}\r\n");
    text.into_bytes()
}

/// Requests that no listener can read: where, what, and how it is refused.
fn unreadable() -> Vec<(Vec<u8>, u16, &'static str)> {
    let get = "GET /v1/reports HTTP/1.1\r\n";
    let post = "POST /v1/reports/build HTTP/1.1\r\nhost: api\r\n";
    let long = "x".repeat(LONG);
    let text = |text: String| text.into_bytes();
    vec![
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400, "invalid_request"),
        (text("hello\r\n\r\n".to_owned()), 400, "invalid_request"),
        (text("GET / HTTP/3.0\r\nhost: api\r\n\r\n".to_owned()), 400, "invalid_request"),
        (text(format!("{get}\r\n")), 400, "invalid_request"),
        (text(format!("{get}host: api\r\nhost: api\r\n\r\n")), 400, "invalid_request"),
        (text(format!("{get}host: api\r\nno colon\r\n\r\n")), 400, "invalid_request"),
        (text(format!("{get}host: api\r\n folded: x\r\n\r\n")), 400, "invalid_request"),
        (text(format!("{get}host: api\r\na: \x01\r\n\r\n")), 400, "invalid_request"),
        (text(format!("{post}content-length: x\r\n\r\n")), 400, "invalid_request"),
        (
            text(format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\n")),
            400,
            "invalid_request",
        ),
        (
            text(format!("{post}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n")),
            400,
            "invalid_request",
        ),
        (text(format!("{get}host: api\r\nx-long: {long}\r\n\r\n")), 431, "headers_too_large"),
        (text(format!("GET /v1/{long} HTTP/1.1\r\nhost: api\r\n\r\n")), 431, "headers_too_large"),
    ]
}

#[tokio::test]
async fn ap8_what_cannot_be_read_is_refused_with_the_envelope_on_every_listener() {
    node_on_every_engine(async |node| {
        for address in [&node.gateways[0], &node.internal, &node.control] {
            for (request, status, code) in unreadable() {
                refused(address, &request, status, code).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ap8_every_refusal_of_the_gateway_has_the_envelope() {
    node_on_every_engine(async |node| {
        let key = node.key(&["reports:read", "reports:write", "audit:read"]).await;
        let (token, gateway) = (key.secret(), &node.gateways[0]);
        for (line, more, status, code) in [
            ("GET /v1//reports", "", 400, "invalid_path"),
            ("GET /v1/reports/%2e%2e/x", "", 400, "invalid_path"),
            ("GET /v1/reports/%zz", "", 400, "invalid_path"),
            ("GET /v1/reports/../x", "", 400, "invalid_path"),
            ("GET /v1/nowhere", "", 403, "forbidden"),
            ("DELETE /v1/reports", "", 405, "method_not_allowed"),
            ("BREW /v1/reports", "", 405, "method_not_allowed"),
            ("GET /v1/reports", "origin: https://shop.example\r\n", 403, "browser_origin_refused"),
            ("GET /v1/audit/events?limit=x", "", 422, "validation_failed"),
            (
                "POST /v1/reports/build",
                "content-length: 999999999999\r\n",
                413,
                "payload_too_large",
            ),
        ] {
            refused(gateway, &head(line, token, more), status, code).await;
        }
        refused(gateway, &head("GET /v1/reports", "asiri_live_x", ""), 401, "invalid_api_key")
            .await;
        // what the product itself refuses looks the same
        let missing = key.get("/v1/reports/rep_none").await;
        missing.refused_by_product(404, "not_found");
        let wrong = key.post("/v1/reports/build", json!({ "type": "poem" })).await;
        wrong.refused_by_product(422, "validation_failed");
    })
    .await;
}

#[tokio::test]
async fn ap8_every_refusal_of_keywards_own_api_has_the_envelope() {
    node_on_every_engine(async |node| {
        let operator = node.operator();
        let token = operator.secret();
        let keys = node.path(LAGOS_PAY, "/keys");
        let large = format!("content-type: application/json\r\ncontent-length: {LARGE}\r\n");
        let json_type = "content-type: application/json\r\n";
        let form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 3\r\n";
        let create = format!("POST {keys}");
        let body = |body: &str| {
            let more = format!("{json_type}content-length: {}\r\n", body.len());
            [head(&create, token, &more), body.as_bytes().to_vec()].concat()
        };
        for (request, status, code) in [
            (head("GET /v1/nowhere", token, ""), 404, "not_found"),
            (head("GET /v1/tenants/nobody", token, ""), 404, "not_found"),
            (head("DELETE /v1/whoami", token, ""), 405, "method_not_allowed"),
            (head("PUT /v1/tenants", token, ""), 405, "method_not_allowed"),
            ([head(&create, token, form), b"a=b".to_vec()].concat(), 415, "unsupported_media_type"),
            ([head(&create, token, &large), vec![b' '; LARGE]].concat(), 413, "payload_too_large"),
            (body("{\"name\":"), 400, "invalid_request"),
            (body("[]"), 422, "validation_failed"),
            (body("{\"nmae\":\"x\"}"), 422, "validation_failed"),
            (head(&create, token, ""), 400, "invalid_request"),
            (head(&format!("GET {keys}?limit=0"), token, ""), 422, "validation_failed"),
            (head("GET /v1/whoami", "asiri_adm_x", ""), 401, "invalid_api_key"),
            (b"GET /v1/whoami HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), 401, "missing_api_key"),
        ] {
            refused(&node.control, &request, status, code).await;
        }
        let got = node.anonymous().get("/v1/nowhere").await;
        got.refused(404, "not_found");
        let got = operator.delete("/v1/whoami").await;
        got.refused(405, "method_not_allowed");
        assert_eq!(got.header("allow"), Some("GET,HEAD"));
    })
    .await;
}

#[tokio::test]
async fn ap8_every_refusal_of_the_internal_listener_has_the_envelope() {
    node_on_every_engine(async |node| {
        let operator = node.operator().at(&node.internal);
        operator.get("/v1/verify").await.refused(405, "method_not_allowed");
        operator.get("/nowhere").await.refused(404, "not_found");
        operator.post("/metrics", json!({})).await.refused(405, "method_not_allowed");
        operator.post("/v1/verify", json!({})).await.refused(400, "invalid_request");
        operator.post("/v1/verify", json!({ "key": "" })).await.refused(422, "validation_failed");
        let half = json!({ "key": "k", "method": "GET" });
        operator.post("/v1/verify", half).await.refused(422, "validation_failed");
        let large = json!({ "key": "k".repeat(LARGE) });
        operator.post("/v1/verify", large).await.refused(413, "payload_too_large");
        let nobody = node.anonymous().at(&node.internal);
        nobody.post("/v1/verify", json!({ "key": "k" })).await.refused(401, "missing_api_key");
        let text = "content-type: text/plain\r\ncontent-length: 2\r\n";
        let request = [head("POST /v1/verify", operator.secret(), text), b"{}".to_vec()].concat();
        refused(&node.internal, &request, 415, "unsupported_media_type").await;
    })
    .await;
}

#[tokio::test]
async fn ap8_the_request_id_is_ours_on_every_answer() {
    node_on_every_engine(async |node| {
        let key = node.key(&["reports:read"]).await;
        let mut seen = std::collections::BTreeSet::new();
        let mut check = |id: Option<&str>| {
            let id = id.expect("a request id").to_owned();
            assert!(id.starts_with("req_"), "{id}");
            assert!(seen.insert(id), "a request id came twice");
        };
        for _ in 0..3 {
            let forged = key.with("x-request-id", "req_mine").get("/v1/reports").await;
            forged.is(200);
            check(forged.header("x-request-id"));
            let got = node.operator().get("/v1/whoami").await;
            got.is(200);
            check(got.header("x-request-id"));
            let verify = node.operator().at(&node.internal);
            let got = verify.post("/v1/verify", json!({ "key": key.secret() })).await;
            got.is(200);
            check(got.header("x-request-id"));
            refused_by_all(node, &mut check).await;
        }
    })
    .await;
}

async fn refused_by_all(node: &TestNode, check: &mut dyn FnMut(Option<&str>)) {
    for address in [&node.control, &node.internal, &node.gateways[0]] {
        let got = node.anonymous().at(address).get("/v1/nowhere").await;
        got.envelope();
        check(got.header("x-request-id"));
    }
}
