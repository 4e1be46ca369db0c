//! An upstream of its own over real sockets, with assertions as the gateway signs them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

use keyward_core::Timestamp;
use keyward_core::assertion::{Claims, LEEWAY_SECONDS, LIFETIME_SECONDS, SigningKey};
use keyward_upstream::{
    AssertionLayer, AssertionVerifier, Caller, Jwks, MAX_AGE, Now, REFRESH_AFTER, RETRY_AFTER,
};

use super::{OTHER_SECRET, PATH, SECRET, TENANT, claims, serve, signed};

const NOW: i64 = 1_800_000_000;
/// Nothing here takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time that stands still until a test moves it.
#[derive(Clone, Default)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn now(&self) -> Now {
        let passed = Arc::clone(&self.0);
        Arc::new(move || Timestamp::from_millis(NOW * 1_000 + passed.load(Ordering::SeqCst)))
    }

    fn pass(&self, time: Duration) {
        self.0.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn seconds(&self) -> i64 {
        NOW + self.0.load(Ordering::SeqCst) / 1_000
    }
}

/// An upstream that tells who called.
async fn upstream(verifier: AssertionVerifier) -> SocketAddr {
    async fn tell(Extension(caller): Extension<Caller>) -> Json<Value> {
        Json(json!({
            "tenant": caller.tenant, "key": caller.key, "scopes": caller.scopes,
            "role": &*caller.role, "actor": caller.actor, "requestId": caller.request_id,
            "environment": caller.environment.as_str(),
        }))
    }
    let router = Router::new().route(PATH, get(tell).post(tell)).route("/v1/other", get(tell));
    serve(router.layer(AssertionLayer::new(Arc::new(verifier)))).await
}

async fn call(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let request = client.get(format!("http://{address}{path}"));
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

async fn status(address: SocketAddr, token: &str) -> u16 {
    call(address, PATH, &[("keyward-assertion", token)]).await.0
}

#[tokio::test]
async fn a_request_of_the_gateway_tells_who_calls() {
    let time = Time::default();
    let verifier = AssertionVerifier::shared("reports", [SECRET]).unwrap().at(time.now());
    let address = upstream(verifier).await;
    let key = SigningKey::hs256(SECRET).unwrap();
    let token = signed(&key, &claims(NOW));
    let id = ("keyward-request-id", "req_0000000000000000000004");
    let (status, told) =
        call(address, "/v1/reports?a=b", &[("keyward-assertion", &token), id]).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(
        told,
        json!({
            "tenant": TENANT, "key": "key_0000000000000000000001",
            "scopes": ["reports:read"], "role": "analyst", "actor": "usr_0000000000000000000003",
            "requestId": "req_0000000000000000000004", "environment": "live",
        })
    );
}

#[tokio::test]
async fn every_other_request_is_refused() {
    let time = Time::default();
    let verifier = AssertionVerifier::shared("reports", [SECRET]).unwrap().at(time.now());
    let address = upstream(verifier).await;
    let key = SigningKey::hs256(SECRET).unwrap();
    let good = signed(&key, &claims(NOW));
    let assertion = |token: &str| ("keyward-assertion", token.to_owned());
    let nobody = "eyJhbGciOiJub25lIn0";
    let body = good.split('.').nth(1).unwrap();
    let eddsa = signed(&SigningKey::eddsa(&[7; 32]).unwrap(), &claims(NOW));
    let other = SigningKey::hs256(OTHER_SECRET).unwrap();
    let of = |change: &dyn Fn(&mut Claims<'_>)| {
        let mut claims = claims(NOW);
        change(&mut claims);
        assertion(&signed(&key, &claims))
    };
    let early = NOW - LIFETIME_SECONDS - LEEWAY_SECONDS - 1;
    for (why, headers) in [
        ("none", vec![]),
        ("two", vec![assertion(&good), assertion(&good)]),
        ("empty", vec![assertion("")]),
        ("no algorithm", vec![assertion(&format!("{nobody}.{body}."))]),
        ("another algorithm", vec![assertion(&eddsa)]),
        ("another secret", vec![assertion(&signed(&other, &claims(NOW)))]),
        ("torn", vec![assertion(good.get(..good.len() - 2).unwrap())]),
        ("too long", vec![assertion(&"a.".repeat(5_000))]),
        ("another audience", vec![of(&|it| it.aud = "billing")]),
        ("another issuer", vec![of(&|it| it.iss = "somebody")]),
        ("another method", vec![of(&|it| it.method = "POST")]),
        ("another path", vec![of(&|it| it.path = "/v1/other".into())]),
        ("not our ids", vec![of(&|it| it.tenant = "lagos")]),
        ("expired", vec![assertion(&signed(&key, &claims(early)))]),
        ("not yet", vec![assertion(&signed(&key, &claims(NOW + LEEWAY_SECONDS + 1)))]),
        ("another id", vec![assertion(&good), ("keyward-request-id", "req_x".to_owned())]),
    ] {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, refusal) = call(address, PATH, &headers).await;
        assert_eq!(
            (status, refusal["error"]["code"].as_str()),
            (401, Some("unauthorized")),
            "{why}"
        );
    }
    assert_eq!(status(address, &good).await, 200);
}

#[tokio::test]
async fn a_shared_secret_is_changed_without_a_gap() {
    let time = Time::default();
    let both = AssertionVerifier::shared("reports", [SECRET, OTHER_SECRET]).unwrap().at(time.now());
    let address = upstream(both).await;
    for secret in [SECRET, OTHER_SECRET] {
        let token = signed(&SigningKey::hs256(secret).unwrap(), &claims(NOW));
        assert_eq!(status(address, &token).await, 200);
    }
    let none: [&[u8]; 0] = [];
    assert!(AssertionVerifier::shared("reports", none).is_err());
    assert!(AssertionVerifier::shared("reports", [&b"short"[..]]).is_err());
}

/// The internal listener of a gateway, as far as its keys go.
#[derive(Clone, Default)]
struct Gateway {
    answer: Arc<parking_lot::Mutex<Option<Value>>>,
    fetches: Arc<AtomicU64>,
}

impl Gateway {
    async fn listen(&self) -> SocketAddr {
        async fn keys(State(it): State<Gateway>) -> Result<Json<Value>, StatusCode> {
            it.fetches.fetch_add(1, Ordering::SeqCst);
            it.answer.lock().clone().map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE)
        }
        serve(Router::new().route("/jwks.json", get(keys)).with_state(self.clone())).await
    }

    fn publish(&self, keys: &[&SigningKey]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk().unwrap()).collect();
        *self.answer.lock() = Some(json!({ "keys": keys }));
    }

    fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::SeqCst)
    }

    async fn upstream(&self, time: &Time) -> SocketAddr {
        let url = format!("http://{}/jwks.json", self.listen().await);
        let keys = Jwks::at(url.parse().unwrap()).unwrap();
        upstream(AssertionVerifier::published("reports", keys).at(time.now())).await
    }
}

#[tokio::test]
async fn published_keys_are_fetched_once_and_again_when_there_are_others() {
    let (time, gateway) = (Time::default(), Gateway::default());
    let (one, other) = (SigningKey::eddsa(&[1; 32]).unwrap(), SigningKey::eddsa(&[2; 32]).unwrap());
    gateway.publish(&[&one]);
    let address = gateway.upstream(&time).await;
    let token = |key: &SigningKey| signed(key, &claims(time.seconds()));
    for _ in 0..5 {
        assert_eq!(status(address, &token(&one)).await, 200);
    }
    assert_eq!(gateway.fetches(), 1);
    // an unknown id is looked for, but not as often as anybody likes
    time.pass(RETRY_AFTER);
    for _ in 0..5 {
        assert_eq!(status(address, &token(&other)).await, 401);
    }
    assert_eq!(gateway.fetches(), 2);
    gateway.publish(&[&other]);
    time.pass(RETRY_AFTER);
    assert_eq!(status(address, &token(&other)).await, 200);
    assert_eq!(gateway.fetches(), 3);
    assert_eq!(status(address, &token(&one)).await, 401, "what is not published is not believed");
    // a secret of nobody, named like a key
    let forged = signed(&SigningKey::hs256(SECRET).unwrap(), &claims(time.seconds()));
    assert_eq!(status(address, &forged).await, 401);
}

#[tokio::test]
async fn known_keys_outlast_a_gateway_that_is_away_for_a_while() {
    let (time, gateway) = (Time::default(), Gateway::default());
    let key = SigningKey::eddsa(&[1; 32]).unwrap();
    gateway.publish(&[&key]);
    let address = gateway.upstream(&time).await;
    let token = || signed(&key, &claims(time.seconds()));
    assert_eq!(status(address, &token()).await, 200);
    *gateway.answer.lock() = None;
    time.pass(REFRESH_AFTER + Duration::from_secs(1));
    assert_eq!(status(address, &token()).await, 200);
    let fetched = async {
        while gateway.fetches() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, fetched).await.expect("keys are fetched beside requests");
    time.pass(MAX_AGE);
    let (status, refusal) = call(address, PATH, &[("keyward-assertion", &token())]).await;
    assert_eq!((status, refusal["error"]["code"].as_str()), (503, Some("unavailable")));
}

#[tokio::test]
async fn a_set_that_is_too_large_or_no_set_is_not_read() {
    for answer in [json!({ "keys": "x".repeat(100_000) }), json!([1]), json!({ "keys": [{}] })] {
        let (time, gateway) = (Time::default(), Gateway::default());
        *gateway.answer.lock() = Some(answer);
        let address = gateway.upstream(&time).await;
        let token = signed(&SigningKey::eddsa(&[1; 32]).unwrap(), &claims(NOW));
        assert!([401, 503].contains(&status(address, &token).await));
    }
}
