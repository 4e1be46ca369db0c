//! The sandbox over real sockets, on a document that uses every member there is.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod support;

use keyward_sandbox::{MAX_BODY_BYTES, MAX_FILE_BYTES, MAX_ROWS, parse_yaml};
use serde_json::{Value, json};
use support::{AUDIENCE, Caller, SECRET, Started, caller, got, sign};

const DAY_MS: i64 = 86_400_000;

async fn workshop() -> Started {
    let document = parse_yaml(include_str!("fixture/openapi.yaml")).unwrap();
    let seeds = parse_yaml(include_str!("fixture/seeds.yaml")).unwrap();
    support::start(&document, &seeds, &["acme", "globex"]).await
}

fn ids(page: &Value) -> Vec<&str> {
    let rows = page.as_array().or_else(|| page["data"].as_array()).unwrap();
    let id = |row: &'_ Value| row.get("id").or_else(|| row.get("proofId")).cloned();
    assert!(rows.iter().all(|row| id(row).is_some()));
    rows.iter().map(|row| row.get("id").unwrap_or(&row["proofId"]).as_str().unwrap()).collect()
}

async fn new_proof(at: &Started, who: &Caller, more: Value) -> Value {
    let mut body = json!({
        "sourceId": "src_1", "payload": {"b": 1, "a": [true]}, "collectedAt": "2027-01-14T08:00:00Z"
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    at.post(who, "/v2/proofs", body).await.is(201)
}

#[tokio::test]
async fn a_call_without_the_right_assertion_is_refused() {
    let at = workshop().await;
    let ada = caller(1);
    let url = format!("{}/v2/jobs", at.base_url);
    let bare = got(at.client.get(&url).header("keyward-request-id", "req_mine")).await;
    assert_eq!(bare.header("x-request-id"), Some("req_mine"));
    assert_eq!(bare.header("www-authenticate"), Some("Keyward-Assertion"));
    bare.refused(401, "unauthorized");
    // who calls is never read from the identity headers
    got(at.client.get(&url).header("keyward-tenant", ada.tenant.to_string()))
        .await
        .refused(401, "unauthorized");
    let now = 1_800_000_000;
    let tokens = [
        sign(&ada, "POST", "/v2/jobs", now, AUDIENCE, SECRET),
        sign(&ada, "GET", "/v2/machines", now, AUDIENCE, SECRET),
        sign(&ada, "GET", "/v2/jobs", now, "other", SECRET),
        sign(&ada, "GET", "/v2/jobs", now - 3_600, AUDIENCE, SECRET),
        sign(&ada, "GET", "/v2/jobs", now, AUDIENCE, b"another secret of 32 bytes, or more"),
        "x.y.z".to_owned(),
    ];
    for token in tokens {
        got(at.client.get(&url).header("keyward-assertion", token))
            .await
            .refused(401, "unauthorized");
    }
    let good = at.assertion(&ada, "GET", "/v2/jobs");
    got(at.client.get(&url).header("keyward-assertion", &good)).await.is(200);
    let other_id = at.client.get(&url).header("keyward-assertion", &good);
    got(other_id.header("keyward-request-id", "req_other")).await.refused(401, "unauthorized");
    let twice = at.client.get(&url).header("keyward-assertion", &good);
    got(twice.header("keyward-assertion", &good)).await.refused(401, "unauthorized");
}

#[tokio::test]
async fn ai3_tenants_and_environments_share_nothing() {
    let at = workshop().await;
    let (ada, eve) = (caller(1), caller(2));
    let tester = Caller { environment: "test", ..ada.clone() };
    let job = at.post(&ada, "/v2/jobs", json!({"kind": "plain"})).await.is(202);
    let path = format!("/v2/jobs/{}", job["id"].as_str().unwrap());
    at.get(&ada, &path).await.is(200);
    for stranger in [&eve, &tester] {
        at.get(stranger, &path).await.refused(404, "not_found");
        at.delete(stranger, &path).await.refused(404, "not_found");
        assert_eq!(at.get(stranger, "/v2/jobs").await.is(200)["data"], json!([]));
    }
    assert_eq!(ids(&at.get(&tester, "/v2/machines").await.is(200)), ["mac_bench"]);
    assert_eq!(at.get(&eve, "/v2/machines").await.is(200), json!([]));
    let runs = "/v2/machines/mac_lathe/runs";
    at.post(&eve, runs, json!({"outcome": "fail"})).await.refused(404, "not_found");
    let seeded = at.get(&ada, "/v2/machines/by-serial/L-1").await.is(200);
    assert_eq!(seeded, json!({"id": "mac_lathe", "serial": "L-1"}));
    // a tenant made later has its seeds too
    at.sandbox.add_tenant("acme", support::tenant(9)).unwrap();
    assert_eq!(ids(&at.get(&caller(9), "/v2/machines").await.is(200)).len(), 4);
}

#[tokio::test]
async fn a_job_completes_when_somebody_looks() {
    let at = workshop().await;
    let ada = caller(1);
    let job = at.post(&ada, "/v2/jobs", json!({"kind": "audit"})).await.is(202);
    assert_eq!(job["status"], "queued");
    assert_eq!(job["requestedBy"], ada.actor);
    assert_eq!(job["keyId"], "key_0000000000000000000009");
    assert_eq!(job["requestId"], "req_from_gateway");
    assert_eq!(job["createdAt"], "2027-01-15T08:00:00.000Z");
    assert_eq!(job["dueAt"], "2027-01-16T08:00:00.000Z");
    assert_eq!(job["machineCount"], 4);
    assert!(job["ticket"].as_str().is_some_and(|id| id.starts_with("tck_") && id.len() == 26));
    assert!(job.get("sources").is_none());
    let path = format!("/v2/jobs/{}", job["id"].as_str().unwrap());
    at.clock.advance_ms(499);
    assert_eq!(at.get(&ada, &path).await.is(200)["status"], "queued");
    at.delete(&ada, &path).await.refused(409, "conflict");
    at.clock.advance_ms(1);
    assert_eq!(at.get(&ada, &path).await.is(200)["status"], "running");
    // long after, each move has the instant at which it was due
    at.clock.advance_ms(DAY_MS / 2);
    let done = at.get(&ada, &path).await.is(200);
    assert_eq!(done["status"], "completed");
    assert_eq!(done["startedAt"], "2027-01-15T08:00:00.500Z");
    assert_eq!(done["completedAt"], "2027-01-15T08:00:02.500Z");
    assert_eq!(done["label"], "Audit");
    let doomed = at.post(&ada, "/v2/jobs", json!({"kind": "doomed"})).await.is(202);
    at.clock.advance_ms(2_500);
    let failed = at.get(&ada, "/v2/jobs?status=failed").await.is(200);
    assert_eq!(ids(&failed), [doomed["id"].as_str().unwrap()]);
    assert_eq!(failed["data"][0]["result"], json!({"error": "out of paper"}));
    let gone = at.delete(&ada, &path).await;
    assert_eq!(gone.is(204), json!(""));
    at.get(&ada, &path).await.refused(404, "not_found");
}

#[tokio::test]
async fn bodies_are_checked_against_the_schema() {
    let at = workshop().await;
    let ada = caller(1);
    let planted = json!({"kind": "plain", "colour": "planted-colour"});
    let error = at.post(&ada, "/v2/jobs", planted).await.refused(422, "validation_failed");
    assert_eq!(
        error["details"]["issues"],
        json!([{"path": "/colour", "message": "unknown field"}])
    );
    let error = at.post(&ada, "/v2/jobs", json!({})).await.refused(422, "validation_failed");
    assert_eq!(error["details"]["issues"], json!([{"path": "/kind", "message": "required"}]));
    let bad = json!({"sourceId": "", "payload": 1, "collectedAt": "planted-yesterday"});
    let error = at.post(&ada, "/v2/proofs", bad).await.refused(422, "validation_failed");
    let paths: Vec<_> = error["details"]["issues"].as_array().unwrap().iter().collect();
    assert!(paths.iter().any(|issue| issue["path"] == "/sourceId"));
    assert!(paths.iter().any(|issue| issue["path"] == "/collectedAt"));
    assert!(!error.to_string().contains("planted"), "values are not repeated: {error}");
    at.post(&ada, "/v2/jobs", json!([])).await.refused(422, "validation_failed");
    let send = |kind: &'static str, body: Vec<u8>| {
        let token = at.assertion(&ada, "POST", "/v2/jobs");
        let request = at.client.post(format!("{}/v2/jobs", at.base_url));
        let request = request.header("keyward-assertion", token).header("content-type", kind);
        got(request.body(body))
    };
    send("text/plain", b"kind=plain".to_vec()).await.refused(415, "unsupported_media_type");
    send("application/json", b"{\"kind\"".to_vec()).await.refused(400, "invalid_request");
    send("application/json", vec![]).await.refused(400, "invalid_request");
    send("application/json; charset=utf-8", br#"{"kind":"plain"}"#.to_vec()).await.is(202);
    let large = vec![b' '; MAX_BODY_BYTES + 1];
    send("application/json", large).await.refused(413, "payload_too_large");
    let deep = "[".repeat(200_000);
    send("application/json", deep.into_bytes()).await.refused(400, "invalid_request");
}

#[tokio::test]
async fn ap10_the_hash_of_a_payload_is_computed_and_checked() {
    let at = workshop().await;
    let ada = caller(1);
    // sha256 of {"a":[true],"b":1}
    let hash = "sha256:708747538ba81fd60b5aac8c646370de5e24abf70ab1872f67458a5a4f3af05d";
    let proof = new_proof(&at, &ada, json!({})).await;
    let computed = proof["payloadHash"].as_str().unwrap().to_owned();
    assert_eq!(computed, hash);
    assert!(proof.get("payload").is_none(), "the payload is private");
    let same = new_proof(&at, &ada, json!({"payloadHash": computed})).await;
    assert_eq!(same["payloadHash"], proof["payloadHash"]);
    let wrong = json!({
        "sourceId": "s",
        "payload": "text",
        "collectedAt": "2027-01-14T08:00:00Z",
        "payloadHash": computed,
    });
    let error = at.post(&ada, "/v2/proofs", wrong).await.refused(422, "validation_failed");
    assert_eq!(error["details"]["field"], "payloadHash");
    let path = format!("/v2/proofs/{}", proof["proofId"].as_str().unwrap());
    let patched = at.patch(&ada, &path, json!({"payload": "abc"})).await.is(200);
    assert_eq!(
        patched["payloadHash"],
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    for kept in ["payloadHash", "workflow", "proofId", "freshness"] {
        let error = at.patch(&ada, &path, json!({kept: "x"})).await;
        assert_eq!(error.refused(422, "validation_failed")["details"]["field"], kept);
    }
}

#[tokio::test]
async fn ap10_freshness_follows_the_clock() {
    let at = workshop().await;
    let ada = caller(1);
    let fresh = at.get(&ada, "/v2/proofs?freshness=fresh").await.is(200);
    assert_eq!(ids(&fresh), ["prf_fresh"]);
    let others = at.get(&ada, "/v2/proofs?freshness=aging,stale").await.is(200);
    // a row without the number of days falls to the next step
    assert_eq!(ids(&others), ["prf_aging", "prf_stale", "prf_risky"]);
    at.clock.advance_ms(30 * DAY_MS);
    let row = at.get(&ada, "/v2/proofs/prf_fresh").await.is(200);
    assert_eq!(row["freshness"], "aging");
    assert!(row["payloadHash"].as_str().is_some_and(|hash| hash.starts_with("sha256:")));
    assert_eq!(ids(&at.get(&ada, "/v2/proofs?tags=x").await.is(200)), ["prf_fresh"]);
}

#[tokio::test]
async fn ap10_high_risk_is_unusable_until_a_qualified_owner_reviewed_it() {
    let at = workshop().await;
    let ada = caller(1);
    let proof = new_proof(&at, &ada, json!({"risk": "high", "workflow": "reviewed"})).await;
    assert_eq!(proof["workflow"], "pending", "the initial state is the document's");
    let id = proof["proofId"].as_str().unwrap();
    let (use_it, review) = (format!("/v2/proofs/{id}/use"), format!("/v2/proofs/{id}/review"));
    let job = json!({"kind": "plain", "proofIds": ["prf_fresh", id]});
    let error = at.post(&ada, &use_it, json!({})).await.refused(409, "conflict");
    assert_eq!(error["message"], "A qualified owner must review this first.");
    let error = at.post(&ada, "/v2/jobs", job.clone()).await.refused(409, "conflict");
    assert_eq!(error["message"], "Review this proof first.");
    assert_eq!(error["details"]["id"], id);
    let untouched = at.get(&ada, "/v2/proofs/prf_fresh").await.is(200);
    assert!(untouched.get("usedAt").is_none(), "nothing changed");
    let clerk = Caller { role: "clerk", ..ada.clone() };
    let approve = json!({"decision": "approve"});
    at.post(&clerk, &review, approve.clone()).await.refused(403, "rbac_denied");
    at.post(&ada, &review, json!({"decision": "maybe"})).await.refused(422, "validation_failed");
    let reviewed = at.post(&ada, &review, approve.clone()).await.is(200);
    assert_eq!(reviewed["workflow"], "reviewed");
    assert_eq!(reviewed["reviewedBy"], ada.actor);
    let error = at.post(&ada, &review, approve).await.refused(409, "conflict");
    assert_eq!(error["details"]["state"], "reviewed");
    at.post(&ada, &use_it, json!({})).await.is(200);
    let accepted = at.post(&ada, "/v2/jobs", job).await.is(202);
    assert_eq!(accepted["sources"], json!(["a", "src_1"]));
    assert!(at.get(&ada, "/v2/proofs/prf_fresh").await.is(200)["usedAt"].is_string());
    let unknown = json!({"kind": "plain", "proofIds": ["prf_none"]});
    let error = at.post(&ada, "/v2/jobs", unknown).await.refused(422, "validation_failed");
    assert_eq!(error["details"]["field"], "proofIds");
    let many: Vec<_> = (0..101).map(|n| format!("prf_{n}")).collect();
    let many = json!({"kind": "plain", "proofIds": many});
    at.post(&ada, "/v2/jobs", many).await.refused(422, "validation_failed");
    at.post(&ada, "/v2/proofs/prf_fresh/use", json!({})).await.is(200);
}

#[tokio::test]
async fn lists_have_pages_and_refuse_what_they_do_not_know() {
    let at = workshop().await;
    let ada = caller(1);
    let mut made = Vec::new();
    for _ in 0..7 {
        let job = at.post(&ada, "/v2/jobs", json!({"kind": "plain"})).await.is(202);
        made.insert(0, job["id"].as_str().unwrap().to_owned());
    }
    let first = at.get(&ada, "/v2/jobs?limit=2").await.is(200);
    assert_eq!(ids(&first), made[..2]);
    // a row that comes in between moves nothing
    at.post(&ada, "/v2/jobs", json!({"kind": "audit"})).await.is(202);
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = at.get(&ada, &format!("/v2/jobs?cursor={cursor}")).await.is(200);
    assert_eq!(ids(&second), made[2..5]);
    let cursor = second["nextCursor"].as_str().unwrap();
    let last = at.get(&ada, &format!("/v2/jobs?cursor={cursor}&kind=plain")).await.is(200);
    assert_eq!(ids(&last), made[5..]);
    assert_eq!(last["nextCursor"], Value::Null);
    for bad in ["limit=4", "limit=0", "limit=x", "colour=red", "kind=red", "kind=plain,red"] {
        let error = at.get(&ada, &format!("/v2/jobs?{bad}")).await.refused(400, "invalid_request");
        assert_eq!(error["details"]["parameter"], bad.split('=').next().unwrap());
    }
    let error = at.get(&ada, "/v2/jobs?cursor=x").await.refused(422, "validation_failed");
    assert_eq!(error["details"]["field"], "cursor");
    at.get(&ada, "/v2/overview?x=1").await.refused(400, "invalid_request");
    // a bare array says where it goes on in a header
    let bare = at.get(&ada, "/v2/machines?limit=3").await;
    let cursor = bare.header("x-next-cursor").unwrap().to_owned();
    assert_eq!(ids(&bare.is(200)), ["mac_lathe", "mac_saw", "mac_press"]);
    let rest = at.get(&ada, &format!("/v2/machines?cursor={cursor}")).await;
    assert_eq!(rest.header("x-next-cursor"), None);
    assert_eq!(ids(&rest.is(200)), ["mac_old"]);
    let metal = at.get(&ada, "/v2/machines?tags=metal&online=true").await.is(200);
    assert_eq!(ids(&metal), ["mac_lathe", "mac_press"]);
}

#[tokio::test]
async fn a_result_changes_the_row_it_is_about() {
    let at = workshop().await;
    let ada = caller(1);
    let runs = "/v2/machines/mac_lathe/runs";
    let run = at.post(&ada, runs, json!({"outcome": "fail", "log": "abc"})).await.is(201);
    assert_eq!(run["machineId"], "mac_lathe");
    assert!(run["logHash"].as_str().is_some_and(|hash| hash.starts_with("ba7816bf")));
    at.post(&ada, "/v2/machines/mac_saw/runs", json!({"outcome": "pass"})).await.is(201);
    assert_eq!(ids(&at.get(&ada, runs).await.is(200)), [run["id"].as_str().unwrap()]);
    at.get(&ada, "/v2/machines/mac_none/runs").await.refused(404, "not_found");
    at.get(&ada, "/v2/machines/by-serial/O-1").await.refused(404, "not_found");
    let overview = at.get(&ada, "/v2/overview").await.is(200);
    assert_eq!(
        overview,
        json!({
            "total": 4,
            "byStatus": {"passing": 2, "failing": 1, "broken": 1},
            "byTag": {"metal": 2, "big": 1, "wood": 1},
            "failing": 2,
            "passRate": 66.7,
            "empty": null,
            "lastRunAt": "2027-01-15T08:00:00.000Z",
            "environment": "live",
        })
    );
}

#[tokio::test]
async fn patches_merge_and_unique_fields_stay_unique() {
    let at = workshop().await;
    let ada = caller(1);
    let path = "/v2/machines/mac_saw";
    let body = json!({"note": {"a": {"b": 1, "c": 2}}, "lastRunAt": null});
    at.patch(&ada, path, body).await.is(200);
    let row = at.patch(&ada, path, json!({"note": {"a": {"b": null}}})).await.is(200);
    assert_eq!(row["note"], json!({"a": {"c": 2}}));
    assert!(row.get("lastRunAt").is_none());
    assert_eq!(row["updatedBy"], "key_0000000000000000000009");
    let error = at.patch(&ada, path, json!({"serial": "L-1"})).await.refused(409, "conflict");
    assert_eq!(error["details"]["field"], "serial");
    at.patch(&ada, path, json!({"serial": "S-1"})).await.is(200);
    at.post(&ada, "/v2/machines", json!({"serial": "P-1"})).await.refused(409, "conflict");
    at.patch(&ada, "/v2/machines/mac_none", json!({})).await.refused(404, "not_found");
}

#[tokio::test]
async fn bytes_go_through_signed_urls() {
    let at = workshop().await;
    let ada = caller(1);
    let body = json!({"name": "a.txt", "sizeBytes": 5, "contentType": "text/plain"});
    let file = at.post(&ada, "/v2/files", body).await.is(201);
    let id = file["id"].as_str().unwrap();
    let upload = &file["upload"];
    assert_eq!((&upload["method"], &upload["maxBytes"]), (&json!("PUT"), &json!(1000)));
    assert_eq!(upload["expiresAt"], "2027-01-15T08:05:00.000Z");
    assert_eq!(upload["headers"], json!({"content-type": "text/plain"}));
    let (complete, link) = (format!("/v2/files/{id}/complete"), format!("/v2/files/{id}/link"));
    at.post(&ada, &complete, json!({})).await.refused(409, "conflict");
    let url = upload["url"].as_str().unwrap();
    assert!(url.starts_with(&at.base_url));
    let wrong = at.fetch(url).await;
    assert_eq!(wrong.header("allow"), Some("PUT"));
    wrong.refused(405, "method_not_allowed");
    at.put(url, b"four").await.refused(422, "validation_failed");
    at.put(url, &[0; 1001]).await.refused(413, "payload_too_large");
    at.put(url, b"hello").await.is(204);
    at.put(url, b"world").await.refused(409, "conflict");
    assert_eq!(at.post(&ada, &complete, json!({})).await.is(200)["status"], "scanning");
    at.get(&ada, &link).await.refused(409, "conflict");
    at.clock.advance_ms(1_000);
    let clean = at.get(&ada, &link).await.is(200);
    assert_eq!(clean["sha256"].as_str().map(str::len), Some(64));
    let url = clean["download"]["url"].as_str().unwrap();
    let bytes = at.fetch(url).await;
    assert_eq!(bytes.header("content-type"), Some("text/plain"));
    assert_eq!(bytes.header("content-disposition"), Some("attachment"));
    assert_eq!(bytes.is(200), "hello");
    at.get(&caller(2), &link).await.refused(404, "not_found");
    at.clock.advance_ms(300_000);
    at.fetch(url).await.refused(410, "gone");
}

#[tokio::test]
async fn a_bent_url_opens_nothing() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let at = workshop().await;
    let ada = caller(1);
    let link = at.get(&ada, "/v2/exports/exp_seed/link").await.is(200);
    assert_eq!(link["sizeBytes"], 5);
    let url = link["download"]["url"].as_str().unwrap();
    assert_eq!(at.fetch(url).await.is(200), "hello");
    let (front, token) = url.rsplit_once('/').unwrap();
    let (body, tag) = token.split_once('.').unwrap();
    let grant = String::from_utf8(URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
    let eves = support::tenant(2).to_string();
    let other = URL_SAFE_NO_PAD.encode(grant.replace(&ada.tenant.to_string(), &eves));
    let later = URL_SAFE_NO_PAD.encode(grant.replace("\"x\":1", "\"x\":2"));
    assert!(other != body && later != body);
    let long = "A".repeat(5_000);
    for token in [format!("{other}.{tag}"), format!("{later}.{tag}"), body.to_owned(), long] {
        at.fetch(&format!("{front}/{token}")).await.refused(401, "unauthorized");
    }
    at.fetch(&format!("{url}A")).await.refused(401, "unauthorized");
}

#[tokio::test]
async fn an_export_carries_the_row_as_json() {
    let at = workshop().await;
    let ada = caller(1);
    let job = at.post(&ada, "/v2/jobs", json!({"kind": "plain"})).await.is(202);
    let id = job["id"].as_str().unwrap();
    let export = format!("/v2/jobs/{id}/export");
    at.post(&ada, &export, json!({})).await.refused(409, "conflict");
    at.clock.advance_ms(2_500);
    let made = at.post(&ada, &export, json!({})).await.is(201);
    let link = format!("/v2/exports/{}/link", made["id"].as_str().unwrap());
    let url = at.get(&ada, &link).await.is(200)["download"]["url"].as_str().unwrap().to_owned();
    let content = at.fetch(&url).await;
    assert_eq!(content.header("content-type"), Some("application/json"));
    let content = content.is(200);
    assert_eq!((&content["id"], &content["status"]), (&job["id"], &json!("completed")));
    at.post(&ada, "/v2/jobs/job_none/export", json!({})).await.refused(404, "not_found");
}

#[tokio::test]
async fn rows_and_bytes_of_a_tenant_are_bounded() {
    let at = workshop().await;
    let ada = caller(1);
    let body = json!({"log": "x".repeat(200 * 1024), "outcome": "pass"});
    let mut refused = None;
    for _ in 0..200 {
        let got = at.post(&ada, "/v2/machines/mac_lathe/runs", body.clone()).await;
        if got.status.as_u16() != 201 {
            refused = Some(got.refused(409, "conflict"));
            break;
        }
    }
    assert_eq!(refused.unwrap()["details"]["limitBytes"], 32 * 1024 * 1024);
    // the other environment has its own room
    let tester = Caller { environment: "test", ..ada.clone() };
    at.post(&tester, "/v2/machines/mac_bench/runs", body).await.is(201);
    let eve = caller(2);
    for _ in 0..MAX_ROWS {
        at.post(&eve, "/v2/jobs", json!({"kind": "plain"})).await.is(202);
    }
    let over = at.post(&eve, "/v2/jobs", json!({"kind": "plain"})).await.refused(409, "conflict");
    assert_eq!(over["details"]["limit"], MAX_ROWS);
    let large = json!({"name": "x", "sizeBytes": MAX_FILE_BYTES});
    at.post(&eve, "/v2/files", large).await.refused(422, "validation_failed");
}

#[tokio::test]
async fn unknown_paths_and_methods_have_the_envelope() {
    let at = workshop().await;
    let ada = caller(1);
    at.get(&ada, "/v2/nothing").await.refused(404, "not_found");
    at.get(&ada, "/jobs").await.refused(404, "not_found");
    at.get(&ada, "/v2/audit").await.refused(404, "not_found");
    at.get(&ada, "/v2/jobs/%ff").await.refused(404, "not_found");
    let wrong = at.delete(&ada, "/v2/jobs").await;
    assert_eq!(wrong.header("allow"), Some("GET, POST"));
    wrong.refused(405, "method_not_allowed");
}
