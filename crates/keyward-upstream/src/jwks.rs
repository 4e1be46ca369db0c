//! The public keys of a gateway: fetched, kept for minutes, and fetched anew when it has others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::RwLock;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::timeout;

use keyward_core::Timestamp;
use keyward_core::assertion::VerifyKey;

use crate::verifier::Refused;

/// After this time keys are fetched anew, beside requests, which go on with those that are known.
/// A key that the gateway has taken back is believed for so long at most while it can be asked.
pub const REFRESH_AFTER: Duration = Duration::from_mins(5);
/// For how long keys are believed while they cannot be fetched anew.
pub const MAX_AGE: Duration = Duration::from_hours(1);
/// The pause between two fetches: ids that nobody has cannot make many.
pub const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Keys that are kept; the others of a larger set are not.
pub const MAX_KEYS: usize = 16;

/// The longest time of one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of the largest set that is read.
const MAX_SET_BYTES: usize = 64 * 1024;
/// Characters of the longest id of a key.
const MAX_ID_BYTES: usize = 128;

/// The published keys of a gateway, by their ids.
#[derive(Clone)]
pub struct Jwks(Arc<Shared>);

struct Shared {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    known: RwLock<Known>,
    /// Held by whoever fetches.
    fetching: Mutex<()>,
}

#[derive(Default)]
struct Known {
    keys: Vec<(String, Arc<VerifyKey>)>,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
}

impl Known {
    fn find(&self, id: &str) -> Option<Arc<VerifyKey>> {
        let found = self.keys.iter().find(|(known, _)| known == id);
        found.map(|(_, key)| Arc::clone(key))
    }
}

/// Why keys could not be fetched over TLS.
#[derive(Debug, thiserror::Error)]
#[error("TLS with the gateway: {0}")]
pub struct InvalidJwks(String);

/// Why keys could not be fetched; for the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer in time")]
    Late,
    #[error("{0}")]
    Broken(#[from] Box<dyn std::error::Error + Send + Sync>),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("not a set of keys")]
    Unreadable,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: Option<String>,
    crv: Option<String>,
    kid: Option<String>,
    x: Option<String>,
}

impl Jwks {
    /// The keys at an address, such as `http://127.0.0.1:8789/.well-known/jwks.json`. Nothing is
    /// fetched before it is needed. An `https` address is trusted by the roots of the machine.
    ///
    /// # Errors
    /// When TLS is asked for and the machine knows no certificate authority.
    pub fn at(url: Uri) -> Result<Self, InvalidJwks> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust(&url)?)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let (known, fetching) = (RwLock::default(), Mutex::default());
        Ok(Self(Arc::new(Shared { url, client, known, fetching })))
    }

    /// The key with this id.
    pub(crate) async fn key(&self, id: &str, now: Timestamp) -> Result<Arc<VerifyKey>, Refused> {
        let (found, age) = self.look(id, now);
        match (found, age) {
            (Some(key), Some(age)) if age <= REFRESH_AFTER => return Ok(key),
            (Some(key), Some(age)) if age <= MAX_AGE => {
                let this = self.clone();
                if this.may_fetch(now) {
                    tokio::spawn(async move { this.fetch(now).await });
                }
                return Ok(key);
            }
            _ => {}
        }
        self.fetch(now).await;
        match self.look(id, now) {
            (Some(key), Some(age)) if age <= MAX_AGE => Ok(key),
            (_, Some(age)) if age <= MAX_AGE => Err(Refused::UnknownKey),
            _ => Err(Refused::Unavailable),
        }
    }

    fn look(&self, id: &str, now: Timestamp) -> (Option<Arc<VerifyKey>>, Option<Duration>) {
        let known = self.0.known.read();
        (known.find(id), known.fetched_at.map(|at| between(at, now)))
    }

    fn may_fetch(&self, now: Timestamp) -> bool {
        self.0.known.read().tried_at.is_none_or(|at| between(at, now) >= RETRY_AFTER)
    }

    /// Fetches the keys, unless somebody has just tried to.
    async fn fetch(&self, now: Timestamp) {
        let _turn = self.0.fetching.lock().await;
        if !self.may_fetch(now) {
            return;
        }
        self.0.known.write().tried_at = Some(now);
        match timeout(FETCH_TIMEOUT, self.read()).await.unwrap_or(Err(FetchError::Late)) {
            Ok(keys) => {
                let mut known = self.0.known.write();
                known.keys = keys;
                known.fetched_at = Some(now);
            }
            Err(error) => {
                tracing::warn!(url = %self.0.url, %error, "the gateway's keys were not fetched");
            }
        }
    }

    async fn read(&self) -> Result<Vec<(String, Arc<VerifyKey>)>, FetchError> {
        let request = Request::get(self.0.url.clone()).body(Empty::new());
        let request = request.map_err(|_| FetchError::Unreadable)?;
        let response = self.0.client.request(request).await.map_err(|e| Box::new(e) as Box<_>)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_SET_BYTES).collect().await?.to_bytes();
        let set: Set = serde_json::from_slice(&body).map_err(|_| FetchError::Unreadable)?;
        Ok(set.keys.into_iter().filter_map(usable).take(MAX_KEYS).collect())
    }
}

/// What is believed of the gateway's certificate: the authorities of this machine. An address
/// without TLS needs none of them.
fn trust(url: &Uri) -> Result<ClientConfig, InvalidJwks> {
    let mut roots = RootCertStore::empty();
    if url.scheme_str() == Some("https") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(InvalidJwks("no certificate authority is known".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidJwks(error.to_string()))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// A key that assertions are signed with; there may be others in a set.
fn usable(jwk: Jwk) -> Option<(String, Arc<VerifyKey>)> {
    let fits = jwk.kty.as_deref() == Some("OKP") && jwk.crv.as_deref() == Some("Ed25519");
    let id = jwk.kid.filter(|id| fits && id.len() <= MAX_ID_BYTES)?;
    let key = VerifyKey::eddsa(&jwk.x?).ok()?;
    Some((id, Arc::new(key)))
}

/// The time between two readings of a clock that may have been set back.
fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::from_millis(later.as_millis().abs_diff(earlier.as_millis()))
}
