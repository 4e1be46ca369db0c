//! Changes at once: each is whole, and none is lost.

use keyward_store::IDEMPOTENCY_LIFETIME_MS;
use serde_json::{Value, json};

use crate::harness::{DAY_MS, Got, LAGOS_PAY, TestNode, minted, node_on_every_engine};

/// How often each race is run.
const ROUNDS: usize = 8;

/// The answers that succeeded; the others gave way to them.
#[track_caller]
fn winners<'g>(answers: &'g [Got], otherwise: (u16, &str)) -> Vec<&'g Got> {
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|got| got.status < 300);
    for got in lost {
        got.refused(otherwise.0, otherwise.1);
    }
    won
}

async fn post(node: &TestNode, path: &str, body: Value) -> Got {
    node.operator().post(path, body).await
}

#[tokio::test]
async fn two_rotations_at_once_make_one_replacement() {
    node_on_every_engine(async |node| {
        for _ in 0..ROUNDS {
            let key = node.minted(&["reports:read"]).await;
            let path = node.key_path(&key.id, "/rotate");
            let rotate = || post(node, &path, json!({}));
            let (a, b, c) = tokio::join!(rotate(), rotate(), rotate());
            let answers = [a, b, c];
            let won = winners(&answers, (409, "conflict"));
            assert_eq!(won.len(), 1);
            let new = minted(won[0]);
            assert_eq!(node.record(&key.id).await["replacedBy"], json!(new.id));
            let lineage = node.operator().all(&node.path(LAGOS_PAY, "/keys")).await;
            let of_ours = lineage.iter().filter(|it| it["lineageId"] == json!(key.id));
            assert_eq!(of_ours.count(), 2);
        }
    })
    .await;
}

#[tokio::test]
async fn two_narrowings_at_once_leave_one_scope() {
    node_on_every_engine(async |node| {
        for _ in 0..ROUNDS {
            let key = node.minted(&["reports:read", "audit:read"]).await;
            let path = node.key_path(&key.id, "/narrow-scopes");
            let narrow = |scope: &str| post(node, &path, json!({ "remove": [scope] }));
            let (a, b) = tokio::join!(narrow("reports:read"), narrow("audit:read"));
            let answers = [a, b];
            let won = winners(&answers, (422, "validation_failed"));
            assert_eq!(won.len(), 1, "one of them came second, and saw what the first had done");
            let left = &node.record(&key.id).await["scopes"];
            assert_eq!(*left, won[0].is(200)["key"]["scopes"]);
            assert_eq!(left.as_array().unwrap().len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_revocation_is_undone_by_nothing_at_the_same_time() {
    node_on_every_engine(async |node| {
        for _ in 0..ROUNDS {
            let key = node.minted(&["reports:read", "audit:read"]).await;
            let path = |rest| node.key_path(&key.id, rest);
            let (edit, narrow, rotate) = (path(""), path("/narrow-scopes"), path("/rotate"));
            let operator = node.operator();
            let (edited, narrowed, rotated, revoked) = tokio::join!(
                operator.patch(&edit, json!({ "name": "renamed", "ipAllowlist": [] })),
                post(node, &narrow, json!({ "remove": ["audit:read"] })),
                post(node, &rotate, json!({})),
                node.revoke(&key.id),
            );
            winners(&[edited, narrowed, rotated], (409, "conflict"));
            let record = node.record(&key.id).await;
            assert_eq!(record["state"], "revoked");
            assert_eq!(record["revokedAt"], revoked["key"]["revokedAt"]);
            node.bearer(&key.secret).get("/v1/reports").await.refused(401, "unauthorized");
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_gets_a_key_while_they_leave() {
    node_on_every_engine(async |node| {
        for _ in 0..ROUNDS {
            let member = node.member(LAGOS_PAY, "developer").await;
            let mut body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
            body["ownerId"] = json!(member);
            let keys = node.path(LAGOS_PAY, "/keys");
            let leave = node.path(LAGOS_PAY, &format!("/members/{member}/offboard"));
            let (made, left) = tokio::join!(
                post(node, &keys, body),
                post(node, &leave, json!({ "keys": "revoke" })),
            );
            left.is(200);
            let owned = format!("{keys}?ownerId={member}&state=active");
            assert_eq!(node.operator().all(&owned).await, [] as [Value; 0]);
            for won in winners(&[made], (422, "validation_failed")) {
                let got = node.bearer(&minted(won).secret).get("/v1/reports").await;
                got.refused(401, "unauthorized");
            }
        }
        let verify = node.path(LAGOS_PAY, "/audit-events/verify");
        assert_eq!(node.operator().get(&verify).await.is(200)["valid"], true);
    })
    .await;
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_its_caller_and_ends() {
    node_on_every_engine(async |node| {
        let path = node.path(LAGOS_PAY, "/keys");
        let body = node.key_body(LAGOS_PAY, &["reports:read"]).await;
        let word = node.fresh("same");
        let other = node.admin_token(&["keys:write"], Some((LAGOS_PAY, "owner"))).await;
        let mut made = Vec::new();
        for caller in [node.operator(), other] {
            let caller = caller.with("idempotency-key", &word);
            made.push(minted(&caller.post(&path, body.clone()).await).id);
        }
        node.clock.advance_ms(IDEMPOTENCY_LIFETIME_MS + DAY_MS);
        let late = node.operator().with("idempotency-key", &word);
        made.push(minted(&late.post(&path, body.clone()).await).id);
        made.dedup();
        assert_eq!(made.len(), 3);
        for wrong in ["", &"x".repeat(256), "a\tb"] {
            let got =
                node.operator().with("idempotency-key", wrong).post(&path, body.clone()).await;
            assert!(got.status == 400 || got.status == 422, "{wrong:?}: {}", got.text);
            got.envelope();
        }
        // what is refused takes no key: the corrected request may use it
        let retry = node.operator().with("idempotency-key", &node.fresh("corrected"));
        let mut wrong = body.clone();
        wrong["scopes"] = json!(["reports"]);
        retry.post(&path, wrong).await.refused(422, "validation_failed");
        minted(&retry.post(&path, body).await);
    })
    .await;
}
