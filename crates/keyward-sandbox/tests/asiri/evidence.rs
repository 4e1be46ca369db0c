//! Evidence: origin, hash, freshness, and no use of high-risk items before a review.

use reqwest::Method;
use serde_json::json;

use crate::support::Caller;
use crate::{DAY_MS, asiri, lagos_pay};

#[tokio::test]
async fn ap10_a_payload_is_hashed_checked_and_never_answered() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let payload = json!({ "reviewer": "Yusuf Danjuma", "reviewed": 61, "removed": 3 });
    let documented = &asiri.document["components"]["examples"]["EvidenceItemCreate"]["value"];
    assert_eq!(documented["rawPayload"], payload, "the example of the document");

    let mut body = asiri.item("low", &payload);
    let item = asiri.create_item(&who, body.clone()).await;
    assert_eq!(item["rawPayloadHash"], documented["rawPayloadHash"]);
    assert_eq!((&item["workflowState"], &item["freshness"]), (&json!("accepted"), &json!("fresh")));
    assert_eq!(item["sourceId"], "src_lp_identity");
    assert_eq!(item["collectedAt"], body["collectedAt"]);
    assert_eq!(item["controlMappings"], body["controlMappings"]);
    for target in ["/v1/evidence/items?limit=100", "/v1/evidence/items/evi_lp_0003"] {
        let text = at.get(&who, target).await.is(200).to_string();
        assert!(!text.contains("rawPayload\""), "{text}");
    }
    let source = json!("src_lp_identity");
    let source = asiri.one(&who, "EvidenceSource", "/v1/evidence/sources", &source).await;
    assert_eq!(source["lastCollectedAt"], body["collectedAt"]);

    body["rawPayloadHash"] = documented["rawPayloadHash"].clone();
    asiri.create_item(&who, body.clone()).await;
    body["rawPayload"]["removed"] = json!(4);
    let count = asiri.total(&who, "/v1/evidence/items?limit=100").await;
    at.post(&who, "/v1/evidence/items", body).await.refused(422, "validation_failed");
    assert_eq!(asiri.total(&who, "/v1/evidence/items?limit=100").await, count);

    let text = asiri.create_item(&who, asiri.item("low", &json!("a text"))).await;
    let hash = "sha256:734194ede5b063e654d63cb95a682ca1551b45e3cc86e88f1a85c1286eedd4ac";
    assert_eq!(text["rawPayloadHash"], hash);
}

#[tokio::test]
async fn ap10_high_risk_evidence_is_used_only_after_review() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let item = asiri.create_item(&who, asiri.item("high", &json!({ "late": 1 }))).await;
    let id = &item["id"];
    assert_eq!(item["workflowState"], "awaiting_review");
    let build = json!({ "type": "audit_summary", "format": "json", "evidenceIds": [id] });
    let set = json!({ "evidenceIds": [id] });
    let report = "/v1/reports/rep_lp_0024/evidence";
    let refused = asiri.use_item(&who, id).await.refused(409, "conflict");
    assert!(refused["message"].as_str().unwrap().contains("review"), "{refused}");
    at.post(&who, "/v1/reports/build", build.clone()).await.refused(409, "conflict");
    at.call(&who, Method::PUT, report, Some(set.clone())).await.refused(409, "conflict");
    asiri.use_item(&who, &json!("evi_lp_0003")).await.refused(409, "conflict");

    for role in ["analyst", "developer", "admin", "control-owner", "auditor"] {
        let unqualified = Caller { role, ..who.clone() };
        asiri.review(&unqualified, id, "approve").await.refused(403, "rbac_denied");
    }
    asiri.use_item(&who, id).await.refused(409, "conflict");
    let reviewer = Caller { role: "compliance-manager", ..who.clone() };
    asiri.review(&reviewer, id, "perhaps").await.refused(422, "validation_failed");
    let approved = asiri.review(&reviewer, id, "approve").await.is(200);
    let approved = asiri.is_a("EvidenceItem", approved);
    assert_eq!(approved["workflowState"], "approved");
    assert_eq!(approved["reviewedByRole"], "compliance-manager");
    asiri.review(&reviewer, id, "reject").await.refused(409, "conflict");

    let used = asiri.is_a("EvidenceUse", asiri.use_item(&who, id).await.is(201));
    assert_eq!(used["rawPayloadHash"], item["rawPayloadHash"]);
    let trail = format!("/v1/evidence/items/{}/uses", id.as_str().unwrap());
    assert_eq!(asiri.total(&who, &trail).await, 1);
    at.post(&who, "/v1/reports/build", build).await.is(202);
    let report = at.call(&who, Method::PUT, report, Some(set)).await.is(200);
    assert_eq!(asiri.is_a("Report", report)["evidenceIds"], json!([id]));
}

#[tokio::test]
async fn ap10_rejected_evidence_is_never_used() {
    let asiri = asiri().await;
    let who = lagos_pay();
    let bad = asiri.create_item(&who, asiri.item("high", &json!({ "late": 2 }))).await;
    let rejected = asiri.review(&who, &bad["id"], "reject").await.is(200);
    assert_eq!(rejected["workflowState"], "rejected");
    asiri.use_item(&who, &bad["id"]).await.refused(409, "conflict");
    asiri.use_item(&who, &json!("evi_none")).await.refused(404, "not_found");
}

#[tokio::test]
async fn ap10_freshness_moves_with_time() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let item = asiri.create_item(&who, asiri.item("low", &json!([1, 2]))).await;
    for (days, freshness, status) in [(0, "fresh", 201), (31, "aging", 201), (60, "stale", 409)] {
        at.clock.advance_ms(days * DAY_MS);
        let seen = asiri.one(&who, "EvidenceItem", "/v1/evidence/items", &item["id"]).await;
        assert_eq!(seen["freshness"], freshness);
        asiri.use_item(&who, &item["id"]).await.is(status);
    }
    let summary = at.get(&who, "/v1/evidence/summary").await.is(200);
    assert_eq!(summary["byFreshness"], json!({ "stale": summary["total"] }));
}

#[tokio::test]
async fn evidence_names_what_exists() {
    let asiri = asiri().await;
    let (at, who) = (&asiri.at, lagos_pay());
    let items = "/v1/evidence/items";
    for (field, value, status) in [
        ("sourceId", json!("src_none"), 422),
        ("sourceId", json!("src_lp_oldhr"), 409),
        ("controlMappings", json!(["ctl_lp_iam02", "ctl_none"]), 422),
        ("controlMappings", json!([]), 422),
        ("fileIds", json!(["fil_none"]), 422),
        ("fileIds", json!(["fil_lp_0008"]), 409),
        ("collectedAt", json!("yesterday"), 422),
        ("riskLevel", json!("extreme"), 422),
        ("workflowState", json!("approved"), 422),
    ] {
        let mut body = asiri.item("low", &json!({}));
        body[field] = value.clone();
        let got = at.post(&who, items, body).await;
        assert_eq!(got.status, status, "{field}: {value}: {}", got.body);
    }
    let new = json!({ "name": "Door log", "kind": "manual" });
    let source = at.post(&who, "/v1/evidence/sources", new.clone()).await.is(201);
    let source = asiri.is_a("EvidenceSource", source);
    assert_eq!(source["health"], "silent", "nothing was collected yet");
    at.post(&who, "/v1/evidence/sources", new).await.refused(409, "conflict");
    let path = format!("/v1/evidence/sources/{}", source["id"].as_str().unwrap());
    let changed = at.patch(&who, &path, json!({ "owner": "Yusuf Danjuma" })).await.is(200);
    assert_eq!(asiri.is_a("EvidenceSource", changed)["owner"], "Yusuf Danjuma");
    at.patch(&who, &path, json!({ "state": "retired" })).await.refused(422, "validation_failed");
    let retire = format!("{path}/retire");
    let retired = at.call(&who, Method::POST, &retire, None).await.is(200);
    assert_eq!(asiri.is_a("EvidenceSource", retired)["state"], "retired");
    at.call(&who, Method::POST, &retire, None).await.refused(409, "conflict");
}
