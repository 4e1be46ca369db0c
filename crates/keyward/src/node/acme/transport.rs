//! HTTP to an authority.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http_body_util::{BodyExt as _, Limited};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::config::acme::AcmeSettings;
use crate::config::{ConfigError, Problem};

/// The largest answer that is read, in bytes: a chain of certificates.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Who asks (RFC 8555 §6.1).
const AGENT: &str = concat!("keyward/", env!("CARGO_PKG_VERSION"));

/// A client that speaks with one authority and notes when it asks for patience.
#[derive(Clone)]
pub(super) struct Transport {
    client: reqwest::Client,
    /// Seconds; 0 when nothing was asked for.
    asked: Arc<AtomicU64>,
}

impl Transport {
    /// One that believes the system's authorities, or those of `ca-file` instead.
    ///
    /// # Errors
    /// When that file cannot be used.
    pub(super) fn new(settings: &AcmeSettings) -> anyhow::Result<Self> {
        let mut client = reqwest::Client::builder()
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT);
        if let Some(path) = &settings.ca_file {
            client = client.tls_certs_only(believed(path).map_err(ConfigError::from)?);
        }
        let client = client.build().context("the client of the authority cannot be made")?;
        Ok(Self { client, asked: Arc::default() })
    }

    /// How long the authority asked to be left alone since this was last asked (RFC 8555 §6.6).
    pub(super) fn asked_pause(&self) -> Option<Duration> {
        let seconds = self.asked.swap(0, Ordering::Relaxed);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    async fn send(
        self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, Error> {
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let Ok(body) = body.collect().await;
        let request = http::Request::from_parts(parts, body.to_bytes());
        let request = reqwest::Request::try_from(request).map_err(other)?;
        let response = self.client.execute(request).await.map_err(other)?;
        let status = response.status();
        if !status.is_success() {
            self.note(response.headers());
            // a proxy in between does not speak of problems
            let kind = response.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
            if !kind.is_some_and(|kind| kind.contains("json")) {
                return Err(Error::Other(format!("it answered {status}").into()));
            }
        }
        let response = http::Response::<reqwest::Body>::from(response);
        Ok(response.map(|body| Limited::new(body, MAX_ANSWER_BYTES)).into())
    }

    fn note(&self, headers: &http::HeaderMap) {
        let asked = headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        if let Some(seconds) = asked.and_then(|it| it.trim().parse().ok()) {
            self.asked.fetch_max(seconds, Ordering::Relaxed);
        }
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().send(request))
    }
}

/// The certificates of a file.
fn believed(path: &Path) -> Result<Vec<reqwest::Certificate>, Problem> {
    let unusable = |error: &dyn std::error::Error| {
        let text = format!("acme.ca-file {} cannot be used: {error}", path.display());
        Problem::new(text, "name a PEM file with the certificates of authorities")
    };
    let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(&error))?;
    if found.is_empty() {
        return Err(unusable(&std::io::Error::other("there is no certificate in it")));
    }
    Ok(found)
}

fn other(error: reqwest::Error) -> Error {
    Error::Other(Box::new(error))
}
