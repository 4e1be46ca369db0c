//! A sandbox on a real socket, a clock that tests move, and callers with signed assertions.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use keyward_core::assertion::{Claims, ISSUER, LIFETIME_SECONDS, SigningKey, VerifyKey};
use keyward_core::id::TenantId;
use keyward_core::{Clock, Timestamp};
use keyward_sandbox::{Sandbox, SandboxConfig, SandboxError};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

pub(crate) const AUDIENCE: &str = "workshop";
pub(crate) const SECRET: &[u8] = b"a secret of the tests, 32 bytes or more";

/// Time stands still until a test moves it; randomness counts up.
pub(crate) struct ManualClock {
    millis: AtomicI64,
    random: AtomicU64,
}

impl ManualClock {
    pub(crate) fn advance_ms(&self, millis: i64) {
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.millis.load(Ordering::SeqCst)).unwrap() * 1_000_000
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let next = self.random.fetch_add(1, Ordering::SeqCst).to_be_bytes();
            chunk.copy_from_slice(&next[8 - chunk.len()..]);
        }
    }
}

pub(crate) struct Started {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) base_url: String,
    pub(crate) client: reqwest::Client,
    pub(crate) sandbox: Sandbox,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Got {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// The message of an error with this status and code, whose envelope is whole.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        let error = &self.body["error"];
        assert_eq!(error["code"], code, "{}", self.body);
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(error["requestId"], *self.headers["x-request-id"].to_str().unwrap());
        error.clone()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

pub(crate) fn tenant(number: u128) -> TenantId {
    TenantId::from_bits(number)
}

/// Builds without a socket, for what is refused at start.
pub(crate) fn build(document: &Value, seeds: &Value) -> Result<Sandbox, SandboxError> {
    build_at(document, seeds, "http://127.0.0.1:1", Arc::new(new_clock()), vec![])
}

fn new_clock() -> ManualClock {
    ManualClock { millis: AtomicI64::new(1_800_000_000_000), random: AtomicU64::new(1) }
}

fn build_at(
    document: &Value,
    seeds: &Value,
    base_url: &str,
    clock: Arc<ManualClock>,
    tenants: Vec<(String, TenantId)>,
) -> Result<Sandbox, SandboxError> {
    let config = SandboxConfig {
        base_url: base_url.to_owned(),
        audience: AUDIENCE.to_owned(),
        verify_key: VerifyKey::hs256(SECRET).unwrap(),
        clock,
        tenants,
    };
    Sandbox::build(document, seeds, config)
}

/// Serves a document with its seeds; the tenants are numbered from 1 in the order of the slugs.
pub(crate) async fn start(document: &Value, seeds: &Value, slugs: &[&str]) -> Started {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let clock = Arc::new(new_clock());
    let tenants = slugs.iter().zip(1..).map(|(slug, n)| ((*slug).to_owned(), tenant(n))).collect();
    let sandbox = build_at(document, seeds, &base_url, clock.clone(), tenants).unwrap();
    let router = sandbox.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    Started { clock, base_url, client, sandbox }
}

/// Somebody who calls through the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
    pub(crate) environment: &'static str,
    pub(crate) role: &'static str,
    pub(crate) actor: &'static str,
}

pub(crate) fn caller(tenant_number: u128) -> Caller {
    Caller {
        tenant: tenant(tenant_number),
        environment: "live",
        role: "owner",
        actor: "usr_0000000000000000000007",
    }
}

/// An assertion about this caller, made at `iat` seconds.
pub(crate) fn sign(
    who: &Caller,
    method: &str,
    path: &str,
    iat: i64,
    audience: &str,
    secret: &[u8],
) -> String {
    let tenant = who.tenant.to_string();
    let claims = Claims {
        iss: ISSUER,
        aud: audience,
        iat,
        exp: iat + LIFETIME_SECONDS,
        sub: "key_0000000000000000000009",
        tenant: &tenant,
        environment: who.environment,
        scopes: vec!["jobs:read"],
        role: who.role,
        actor: who.actor,
        method,
        path: path.into(),
        request_id: "req_from_gateway",
    };
    SigningKey::hs256(secret).unwrap().sign(&claims)
}

impl Started {
    pub(crate) fn assertion(&self, who: &Caller, method: &str, path: &str) -> String {
        let now = self.clock.now().as_seconds();
        sign(who, method, path, now, AUDIENCE, SECRET)
    }

    pub(crate) async fn call(
        &self,
        who: &Caller,
        method: Method,
        target: &str,
        body: Option<Value>,
    ) -> Got {
        let path = target.split('?').next().unwrap();
        let mut request = self
            .client
            .request(method.clone(), format!("{}{target}", self.base_url))
            .header("keyward-assertion", self.assertion(who, method.as_str(), path))
            .header("keyward-request-id", "req_from_gateway");
        if let Some(body) = body {
            request = request.json(&body);
        }
        got(request).await
    }

    pub(crate) async fn get(&self, who: &Caller, target: &str) -> Got {
        self.call(who, Method::GET, target, None).await
    }

    pub(crate) async fn post(&self, who: &Caller, target: &str, body: Value) -> Got {
        self.call(who, Method::POST, target, Some(body)).await
    }

    pub(crate) async fn patch(&self, who: &Caller, target: &str, body: Value) -> Got {
        self.call(who, Method::PATCH, target, Some(body)).await
    }

    pub(crate) async fn delete(&self, who: &Caller, target: &str) -> Got {
        self.call(who, Method::DELETE, target, None).await
    }

    /// Sends bytes to a signed URL, with nothing but the URL.
    pub(crate) async fn put(&self, url: &str, bytes: &[u8]) -> Got {
        got(self.client.put(url).body(bytes.to_vec())).await
    }

    /// Reads a signed URL, with nothing but the URL.
    pub(crate) async fn fetch(&self, url: &str) -> Got {
        got(self.client.get(url)).await
    }
}

pub(crate) async fn got(request: reqwest::RequestBuilder) -> Got {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
    Got { status, headers, body }
}
