//! The Asiri profile in the sandbox: its document, its sample data and the main flows of each area.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod document;
mod evidence;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use keyward_sandbox::parse_yaml;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Caller, Started, caller, start};

const DOCUMENT: &str = include_str!("../../../../profiles/asiri/openapi.yaml");
const SEEDS: &str = include_str!("../../../../profiles/asiri/seeds.yaml");
const SLUGS: [&str; 3] = ["lagos-pay", "kuramo-health", "benue-freight"];
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

const LAGOS_PAY: u128 = 1;
const KURAMO_HEALTH: u128 = 2;

struct Asiri {
    document: Value,
    at: Started,
}

async fn asiri() -> Asiri {
    let document = parse_yaml(DOCUMENT).unwrap();
    let at = start(&document, &parse_yaml(SEEDS).unwrap(), &SLUGS).await;
    Asiri { document, at }
}

fn lagos_pay() -> Caller {
    caller(LAGOS_PAY)
}

fn in_test(who: &Caller) -> Caller {
    Caller { environment: "test", ..who.clone() }
}

impl Asiri {
    /// The value, once it has been found to be what the document says.
    #[track_caller]
    fn is_a(&self, schema: &str, value: Value) -> Value {
        self.conforms(&json!({ "$ref": format!("#/components/schemas/{schema}") }), &value, schema);
        value
    }

    #[track_caller]
    fn conforms(&self, schema: &Value, value: &Value, what: &str) {
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let errors: Vec<_> = validator.iter_errors(value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{what}: {errors:?} in {value}");
    }

    /// Follows a reference of the document, if the value is one.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else {
            return value;
        };
        self.document.pointer(reference.trim_start_matches('#')).unwrap()
    }

    /// The path with each parameter replaced by its documented example.
    fn example_path(&self, path: &str, item: &Value) -> String {
        let mut filled = path.to_owned();
        for parameter in item["parameters"].as_array().into_iter().flatten() {
            let parameter = self.resolved(parameter);
            let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
            filled = filled.replace(&name, parameter["example"].as_str().unwrap());
        }
        filled
    }

    /// An item with this risk and payload, from the identity provider, collected now.
    fn item(&self, risk: &str, payload: &Value) -> Value {
        use keyward_core::Clock as _;
        json!({
            "sourceId": "src_lp_identity",
            "title": "Privileged access review",
            "collectedAt": self.at.clock.now().to_string(),
            "controlMappings": ["ctl_lp_iam02"],
            "riskLevel": risk,
            "rawPayload": payload,
        })
    }

    async fn create_item(&self, who: &Caller, body: Value) -> Value {
        let item = self.at.post(who, "/v1/evidence/items", body).await.is(201);
        self.is_a("EvidenceItem", item)
    }

    async fn use_item(&self, who: &Caller, id: &Value) -> support::Got {
        let path = format!("/v1/evidence/items/{}/use", id.as_str().unwrap());
        self.at.post(who, &path, json!({ "purpose": "auditor_reliance" })).await
    }

    async fn review(&self, who: &Caller, id: &Value, decision: &str) -> support::Got {
        let path = format!("/v1/evidence/items/{}/review", id.as_str().unwrap());
        self.at.post(who, &path, json!({ "decision": decision, "note": "Looked at." })).await
    }

    async fn one(&self, who: &Caller, schema: &str, path: &str, id: &Value) -> Value {
        let target = format!("{path}/{}", id.as_str().unwrap());
        let got = self.at.get(who, &target).await.is(200);
        self.is_a(schema, got)
    }

    async fn total(&self, who: &Caller, target: &str) -> usize {
        let page = self.at.get(who, target).await.is(200);
        assert_eq!(page["nextCursor"], Value::Null, "{target} has one page");
        page["data"].as_array().unwrap().len()
    }

    /// A file that went through the scan.
    async fn upload(&self, who: &Caller, name: &str, bytes: &[u8]) -> Value {
        let body = json!({
            "fileName": name, "contentType": "text/plain", "sizeBytes": bytes.len(),
        });
        let file = self.at.post(who, "/v1/files/presign", body).await.is(201);
        let file = self.is_a("FileWithUpload", file);
        self.at.put(file["upload"]["url"].as_str().unwrap(), bytes).await;
        let path = format!("/v1/files/{}/complete", file["id"].as_str().unwrap());
        let done = self.at.call(who, Method::POST, &path, None).await.is(200);
        assert_eq!(self.is_a("File", done)["state"], "scanning");
        self.at.clock.advance_ms(500);
        self.one(who, "File", "/v1/files", &file["id"]).await
    }
}

fn ids(page: &Value) -> BTreeSet<String> {
    page["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().into()).collect()
}

#[tokio::test]
async fn a_report_is_queued_built_and_exported() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let before = at.get(&who, "/v1/reports/overview").await.is(200);
    let body = json!({ "type": "audit_summary", "format": "json" });
    let report = asiri.is_a("Report", at.post(&who, "/v1/reports/build", body).await.is(202));
    assert_eq!(report["state"], "queued");
    let hidden = report.as_object().unwrap().keys().any(|name| name.starts_with("draft"));
    assert!(!hidden, "drafts are not answered: {report}");
    let id = &report["id"];

    at.clock.advance_ms(500);
    assert_eq!(asiri.one(&who, "Report", "/v1/reports", id).await["state"], "running");
    let export = format!("/v1/reports/{}/export", id.as_str().unwrap());
    at.post(&who, &export, json!({ "recipient": "auditor" })).await.refused(409, "conflict");

    at.clock.advance_ms(1_000);
    let report = asiri.one(&who, "Report", "/v1/reports", id).await;
    assert_eq!(report["state"], "completed");
    assert_eq!(report["failingControls"], before["controlsByStatus"]["failing"]);
    assert_eq!(report["evidenceByFreshness"], before["evidenceByFreshness"]);
    let after = at.get(&who, "/v1/reports/overview").await.is(200);
    assert_eq!(after["reportsTotal"].as_i64(), before["reportsTotal"].as_i64().map(|n| n + 1));
    assert_eq!(after["lastReportCompletedAt"], report["completedAt"]);

    let job = at.post(&who, &export, json!({ "recipient": "auditor" })).await.is(202);
    let job = asiri.is_a("ReportExport", job);
    let url = format!("/v1/reports/exports/{}/download-url", job["id"].as_str().unwrap());
    at.get(&who, &url).await.refused(409, "conflict");
    at.clock.advance_ms(500);
    let ready = asiri.one(&who, "ReportExport", "/v1/reports/exports", &job["id"]).await;
    assert_eq!(ready["state"], "ready");
    let download = asiri.is_a("ReportExportDownload", at.get(&who, &url).await.is(200));
    let document = at.fetch(download["download"]["url"].as_str().unwrap()).await.is(200);
    assert_eq!(document["id"], *id);
    let exports = format!("/v1/reports/exports?reportId={}", id.as_str().unwrap());
    assert_eq!(asiri.total(&who, &exports).await, 1);
    at.post(&who, "/v1/reports/rep_none/export", json!({ "recipient": "auditor" }))
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn a_build_fails_when_asked_to_in_test_only() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let body = json!({ "type": "vendor_risk", "format": "csv", "simulate": "failure" });
    at.post(&who, "/v1/reports/build", body.clone()).await.refused(422, "validation_failed");
    let tester = in_test(&who);
    let report = at.post(&tester, "/v1/reports/build", body).await.is(202);
    at.clock.advance_ms(1_500);
    let report = asiri.one(&tester, "Report", "/v1/reports", &report["id"]).await;
    assert_eq!(report["state"], "failed");
    assert!(report["failureReason"].is_string() && report["simulate"].is_null(), "{report}");
    let export = format!("/v1/reports/{}/export", report["id"].as_str().unwrap());
    at.post(&tester, &export, json!({ "recipient": "internal" })).await.refused(409, "conflict");

    let wrong = json!({ "type": "audit_summary", "format": "xml", "colour": "red" });
    at.post(&who, "/v1/reports/build", wrong).await.refused(422, "validation_failed");
    let unknown = json!({ "type": "audit_summary", "format": "csv", "evidenceIds": ["evi_none"] });
    at.post(&who, "/v1/reports/build", unknown).await.refused(422, "validation_failed");
}

#[tokio::test]
async fn a_test_result_moves_its_control() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let id = json!("ctl_lp_iam02");
    let before = at.get(&who, "/v1/controls/status").await.is(200);
    let body = json!({
        "result": "fail",
        "testedAt": "2027-01-15T07:00:00Z",
        "summary": "2 of 61 administrator accounts have no second factor.",
        "evidenceIds": ["evi_lp_0001"],
    });
    let results = "/v1/controls/ctl_lp_iam02/test-results";
    let earlier = asiri.total(&who, results).await;
    let result = asiri.is_a("TestResult", at.post(&who, results, body.clone()).await.is(201));
    assert_eq!(result["recordedBy"], who.actor);
    assert_eq!(asiri.total(&who, results).await, earlier + 1);
    let all = at.get(&who, "/v1/controls/test-results?limit=1").await.is(200);
    assert_eq!(all["data"][0]["id"], result["id"], "the newest comes first");

    let control = asiri.one(&who, "Control", "/v1/controls", &id).await;
    assert_eq!((&control["status"], &control["lastResult"]), (&json!("failing"), &json!("fail")));
    assert_eq!(control["testHealth"], "current");
    let after = at.get(&who, "/v1/controls/status").await.is(200);
    let failing = |status: &Value| status["byStatus"]["failing"].as_i64().unwrap();
    assert_eq!(failing(&after), failing(&before) + 1);
    assert!(after["passingPercent"].as_f64() < before["passingPercent"].as_f64());

    at.clock.advance_ms(100 * DAY_MS);
    let overdue = at.get(&who, "/v1/controls/test-health?testHealth=overdue").await.is(200);
    assert!(ids(&overdue).contains("ctl_lp_iam02"), "{overdue}");

    at.post(&who, "/v1/controls/ctl_none/test-results", body.clone())
        .await
        .refused(404, "not_found");
    at.get(&who, "/v1/controls/ctl_none/test-results").await.refused(404, "not_found");
    let mut unknown = body;
    unknown["evidenceIds"] = json!(["evi_none"]);
    at.post(&who, results, unknown).await.refused(422, "validation_failed");
    let unset = json!({ "result": "pass" });
    at.post(&who, results, unset).await.refused(422, "validation_failed");
}

#[tokio::test]
async fn controls_map_to_frameworks() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let frameworks = ids(&at.get(&who, "/v1/controls/frameworks").await.is(200));
    assert!(["ndpa", "cbn-rbcf", "pci-dss", "iso-27001"].iter().all(|f| frameworks.contains(*f)));
    let status = at.get(&who, "/v1/controls/status").await.is(200);
    for framework in &frameworks {
        let target = format!("/v1/controls/mappings?frameworks={framework}&limit=100");
        let page = at.get(&who, &target).await.is(200);
        for row in page["data"].as_array().unwrap() {
            let mapped = row["mappings"].as_array().unwrap();
            assert!(mapped.iter().any(|m| m["framework"] == **framework), "{row}");
        }
        assert_eq!(ids(&page).len(), status["byFramework"][framework]);
    }
    let mapping = at.get(&who, "/v1/controls/ctl_lp_iam02/mappings").await.is(200);
    let mapping = asiri.is_a("ControlMapping", mapping);
    assert!(mapping.get("testHealth").is_none(), "only the mapping is answered: {mapping}");
    at.get(&who, "/v1/controls/ctl_none/mappings").await.refused(404, "not_found");
}

#[tokio::test]
async fn a_file_is_uploaded_scanned_attached_and_deleted() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let body = json!({ "fileName": "a.txt", "contentType": "text/plain", "sizeBytes": 5 });
    let file = at.post(&who, "/v1/files/presign", body.clone()).await.is(201);
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    let complete = format!("{path}/complete");
    let download = format!("{path}/download-url");
    let url = file["upload"]["url"].as_str().unwrap();
    at.call(&who, Method::POST, &complete, None).await.refused(409, "conflict");
    at.put(url, b"too long").await.refused(422, "validation_failed");
    at.put(url, b"hello").await;
    at.get(&who, &download).await.refused(409, "conflict");
    at.call(&who, Method::POST, &complete, None).await.is(200);
    at.get(&who, &download).await.refused(409, "conflict");
    at.clock.advance_ms(500);
    let got = asiri.is_a("FileDownload", at.get(&who, &download).await.is(200));
    let url = got["download"]["url"].as_str().unwrap();
    assert_eq!(at.fetch(url).await.is(200), "hello");

    let mut item = asiri.item("low", &json!({}));
    item["fileIds"] = json!([file["id"]]);
    asiri.create_item(&who, item).await;
    at.delete(&who, &path).await.refused(409, "conflict");
    let loose = asiri.upload(&who, "b.txt", b"bytes").await;
    assert_eq!(loose["state"], "clean");
    let path = format!("/v1/files/{}", loose["id"].as_str().unwrap());
    at.delete(&who, &path).await.is(204);
    at.get(&who, &path).await.refused(404, "not_found");

    let infected = asiri.upload(&who, "eicar.txt", b"harmless").await;
    assert_eq!(infected["state"], "infected");
    let path = format!("/v1/files/{}/download-url", infected["id"].as_str().unwrap());
    at.get(&who, &path).await.refused(409, "conflict");

    let late = at.post(&who, "/v1/files/presign", body).await.is(201);
    at.clock.advance_ms(16 * 60 * 1_000);
    at.put(late["upload"]["url"].as_str().unwrap(), b"hello").await.refused(410, "gone");
    at.fetch(url).await.refused(410, "gone");
    let large = json!({ "fileName": "a", "contentType": "text/plain", "sizeBytes": 6_000_000 });
    at.post(&who, "/v1/files/presign", large).await.refused(422, "validation_failed");
}

#[tokio::test]
async fn sample_files_can_be_downloaded() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let page = at.get(&who, "/v1/files?state=clean").await.is(200);
    for id in ids(&page) {
        let got = at.get(&who, &format!("/v1/files/{id}/download-url")).await.is(200);
        let bytes = at.fetch(got["download"]["url"].as_str().unwrap()).await;
        assert_eq!(bytes.status, 200, "{id}");
        let row = page["data"].as_array().unwrap().iter().find(|row| row["id"] == *id).unwrap();
        assert_eq!(bytes.header("content-type"), row["contentType"].as_str());
        assert_eq!(row["uploadedAt"], row["createdAt"], "{id} is as old as it says");
    }
}

#[tokio::test]
async fn workspaces_and_environments_share_nothing() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let strangers = [caller(KURAMO_HEALTH), in_test(&who), caller(99)];
    for list in ["/v1/reports", "/v1/controls", "/v1/evidence/items", "/v1/evidence/sources"] {
        let mine = ids(&at.get(&who, &format!("{list}?limit=100")).await.is(200));
        assert!(mine.len() >= 11, "{list}");
        for stranger in &strangers {
            let theirs = ids(&at.get(stranger, &format!("{list}?limit=100")).await.is(200));
            assert!(mine.is_disjoint(&theirs), "{list} of {stranger:?}");
            for id in &mine {
                at.get(stranger, &format!("{list}/{id}")).await.refused(404, "not_found");
            }
        }
    }
    for stranger in &strangers {
        let mut body = asiri.item("low", &json!({}));
        body["controlMappings"] = json!(["ctl_lp_iam01"]);
        at.post(stranger, "/v1/evidence/items", body).await.refused(422, "validation_failed");
        asiri.use_item(stranger, &json!("evi_lp_0001")).await.refused(404, "not_found");
    }
    assert_eq!(asiri.total(&caller(99), "/v1/reports").await, 0);
}

#[tokio::test]
async fn what_keyward_serves_is_not_served_here() {
    let asiri = asiri().await;
    for target in ["/v1/audit/events", "/v1/openapi.json", "/v1/webhooks/endpoints"] {
        asiri.at.get(&lagos_pay(), target).await.refused(404, "not_found");
    }
}
