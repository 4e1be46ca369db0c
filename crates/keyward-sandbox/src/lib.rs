//! A stateful product API made from an OpenAPI document.
//!
//! The upstream of `keyward dev` and of test-environment keys. What an operation does is declared
//! by a closed list of `x-sandbox` members in the product's own document (`docs/sandbox.md`);
//! there is no code per product. State is in memory and lost with the process. Each tenant has its
//! own data in each environment, and who calls is read from the verified assertion only.

mod canonical;
mod declare;
mod evaluate;
mod operate;
mod parameters;
mod presign;
mod reply;
mod schema;
mod seeds;
mod serve;
mod space;
mod state;

use std::sync::Arc;

use keyward_core::Clock;
use keyward_core::assertion::VerifyKey;
use keyward_core::id::TenantId;
use serde_json::Value;

use crate::declare::Plan;
use crate::presign::UrlSigner;
use crate::seeds::Seeds;
use crate::state::State;

/// Tenants times environments that hold data at once.
pub const MAX_SPACES: usize = 256;
/// Slugs that can be mapped to tenants.
pub const MAX_TENANTS: usize = 1_024;
/// Rows of one collection of one tenant in one environment.
pub const MAX_ROWS: usize = 2_000;
/// Bytes of rows and files of one tenant in one environment.
pub const MAX_SPACE_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of a JSON request body.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Bytes of one uploaded file, the most a document can allow.
pub const MAX_FILE_BYTES: usize = 5 * 1024 * 1024;
/// Rows of one page, the most a document can allow.
pub const MAX_PAGE: usize = 200;
/// Rows of a page when the caller does not say.
pub const DEFAULT_PAGE: usize = 50;
/// Ids that one link of a request may name.
pub const MAX_LINKED: usize = 100;
/// Collections of a document.
pub const MAX_COLLECTIONS: usize = 64;
/// Operations of a document.
pub const MAX_OPERATIONS: usize = 512;

/// What a sandbox needs besides its document and seeds.
pub struct SandboxConfig {
    /// Where this sandbox is reached, such as `http://127.0.0.1:4010`: the front of signed URLs.
    pub base_url: String,
    /// The audience that assertions must be made for.
    pub audience: String,
    /// The key that assertions are verified with.
    pub verify_key: VerifyKey,
    /// The source of time and randomness.
    pub clock: Arc<dyn Clock>,
    /// Which tenant each slug of the seeds is.
    pub tenants: Vec<(String, TenantId)>,
}

/// Why a sandbox could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// The document, at this JSON pointer.
    #[error("OpenAPI document, at `{pointer}`: {message}")]
    Document {
        /// The JSON pointer of the mistake.
        pointer: String,
        /// What to change.
        message: String,
    },
    /// The seeds, at this JSON pointer.
    #[error("seeds, at `{pointer}`: {message}")]
    Seeds {
        /// The JSON pointer of the mistake.
        pointer: String,
        /// What to change.
        message: String,
    },
    /// The text is not YAML.
    #[error("not YAML that stands for JSON: {0}")]
    Yaml(String),
    /// The configuration.
    #[error("{0}")]
    Config(String),
}

impl SandboxError {
    fn document(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Document { pointer: pointer.into(), message: message.into() }
    }

    fn seeds(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Seeds { pointer: pointer.into(), message: message.into() }
    }
}

/// Reads YAML (or JSON, which is YAML) into the value that [`Sandbox::build`] takes.
pub fn parse_yaml(text: &str) -> Result<Value, SandboxError> {
    yaml_serde::from_str(text).map_err(|error| SandboxError::Yaml(error.to_string()))
}

/// A running product API; clones share their state.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    plan: Plan,
    state: State,
    signer: UrlSigner,
    audience: String,
    verify_key: VerifyKey,
    clock: Arc<dyn Clock>,
}

impl Sandbox {
    /// Makes the API that `document` (OpenAPI 3.1) declares, with the data of `seeds` (`null` for
    /// none). The document, the seeds and every declared schema are checked here, not later.
    pub fn build(
        document: &Value,
        seeds: &Value,
        config: SandboxConfig,
    ) -> Result<Self, SandboxError> {
        let plan = declare::read(document)?;
        let seeds = Seeds::read(seeds, &plan, config.clock.as_ref())?;
        let signer = UrlSigner::new(&config.base_url, config.clock.as_ref())?;
        let state = State::new(seeds);
        let sandbox = Self {
            shared: Arc::new(Shared {
                plan,
                state,
                signer,
                audience: config.audience,
                verify_key: config.verify_key,
                clock: config.clock,
            }),
        };
        for (slug, tenant) in config.tenants {
            sandbox.add_tenant(&slug, tenant)?;
        }
        Ok(sandbox)
    }

    /// Says which tenant a slug of the seeds is. Data the tenant already has stays.
    pub fn add_tenant(&self, slug: &str, tenant: TenantId) -> Result<(), SandboxError> {
        if self.shared.state.add_tenant(slug, tenant) {
            return Ok(());
        }
        Err(SandboxError::Config(format!("a sandbox holds at most {MAX_TENANTS} tenants")))
    }

    /// The service, to be mounted at the root of a listener of its own.
    pub fn router(&self) -> axum::Router {
        serve::router(self.shared.clone())
    }
}
