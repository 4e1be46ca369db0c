//! Signed URLs to the sandbox itself: one method, one row, for a while.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_core::environment::Environment;
use keyward_core::id::TenantId;
use keyward_core::mac::MacKey;
use keyward_core::{Clock, Error, ErrorCode, Timestamp};
use serde::{Deserialize, Serialize};

use crate::SandboxError;

/// Where signed URLs lead.
pub(crate) const FILES_PATH: &str = "/_sandbox/files/";
/// Bytes of a token that are looked at.
const MAX_TOKEN_BYTES: usize = 2_048;

/// What a signed URL allows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Grant {
    #[serde(rename = "m")]
    pub(crate) method: String,
    #[serde(rename = "t")]
    pub(crate) tenant: TenantId,
    #[serde(rename = "e")]
    pub(crate) environment: Environment,
    #[serde(rename = "c")]
    pub(crate) collection: String,
    #[serde(rename = "r")]
    pub(crate) id: String,
    #[serde(rename = "x")]
    pub(crate) expires_ms: i64,
}

/// Makes and checks signed URLs. Its key is drawn at start: URLs end with the process, as the
/// data does.
pub(crate) struct UrlSigner {
    key: MacKey,
    base_url: String,
}

impl UrlSigner {
    pub(crate) fn new(base_url: &str, clock: &dyn Clock) -> Result<Self, SandboxError> {
        let http = base_url.starts_with("http://") || base_url.starts_with("https://");
        if !http || base_url.contains(['?', '#']) {
            let text =
                "base_url must be an http(s) URL without query, such as http://127.0.0.1:4010";
            return Err(SandboxError::Config(text.to_owned()));
        }
        let mut secret = [0_u8; 32];
        clock.fill_random(&mut secret);
        let key = MacKey::new(&secret);
        Ok(Self { key, base_url: base_url.trim_end_matches('/').to_owned() })
    }

    pub(crate) fn url(&self, grant: &Grant) -> Result<String, Error> {
        let body = serde_json::to_vec(grant).map_err(|error| Error::internal(error.to_string()))?;
        let body = URL_SAFE_NO_PAD.encode(body);
        let tag = URL_SAFE_NO_PAD.encode(self.key.sign(body.as_bytes()));
        Ok(format!("{}{FILES_PATH}{body}.{tag}", self.base_url))
    }

    /// What this token allows now; method and row are for the caller to compare.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Grant, Error> {
        let refused = || Error::new(ErrorCode::Unauthorized, "The signature of the URL is wrong");
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused());
        }
        let (body, tag) = token.split_once('.').ok_or_else(refused)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| refused())?;
        if !self.key.verifies(body.as_bytes(), &tag) {
            return Err(refused());
        }
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| refused())?;
        let grant: Grant = serde_json::from_slice(&body).map_err(|_| refused())?;
        if now.as_millis() >= grant.expires_ms {
            return Err(Error::new(ErrorCode::Gone, "The URL has expired; ask for a new one"));
        }
        Ok(grant)
    }
}
