//! The data plane of a node: what it decides with, and what it does with a decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::{HeaderName, HeaderValue};

use keyward_core::catalog::Catalog;
use keyward_core::clock::Clock;
use keyward_core::error::{Error, ErrorCode};
use keyward_core::profile::Carrier;

use crate::admin_tokens::AdminTokens;
use crate::builtin::Builtins;
use crate::carrier;
use crate::client_address::Networks;
use crate::failed_callers::FailedCallers;
use crate::keyset::KeySet;
use crate::metrics::Metrics;
use crate::proxy::{InvalidUpstream, UpstreamConfig, Upstreams};
use crate::usage::{Usage, UsageRow};

/// What a data plane is made of.
pub struct DataPlaneConfig {
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// Every key.
    pub keys: Arc<KeySet>,
    /// Every admin token.
    pub admin_tokens: Arc<AdminTokens>,
    /// How the product is called.
    pub product: ProductConfig,
    /// Where permitted requests go.
    pub upstreams: Vec<UpstreamConfig>,
    /// Who is believed, and what is written down.
    pub policy: PlanePolicy,
}

/// How the product is called.
pub struct ProductConfig {
    /// Its scopes, roles and routes.
    pub catalog: Arc<Catalog>,
    /// Where a request may carry its key.
    pub carriers: Vec<Carrier>,
    /// The header that must name the key's tenant, if the product has one.
    pub tenant_header: Option<String>,
    /// Operations that are answered here instead of by an upstream.
    pub builtins: Builtins,
    /// Where the error reference is served, for `docUrl` in every error.
    pub docs_base: String,
}

/// Who is believed, and what is written down.
#[derive(Clone, Debug, Default)]
pub struct PlanePolicy {
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Networks,
    /// Networks that may call verify without an admin token.
    pub verify_callers: Networks,
    /// Whether every request is written to the log.
    pub request_log: bool,
}

/// Why a data plane cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// An upstream cannot be used.
    #[error("upstream {0}")]
    Upstream(#[from] InvalidUpstream),
    /// Not the name of a header.
    #[error("{0:?} is not the name of a header")]
    TenantHeader(String),
}

/// The data plane of a node. Shared by all of its listeners.
pub struct DataPlane {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) authority: Authority,
    pub(crate) product: Product,
    pub(crate) upstreams: Upstreams,
    pub(crate) policy: PlanePolicy,
    pub(crate) recorder: Recorder,
}

/// Everything that says who may call.
pub(crate) struct Authority {
    pub(crate) keys: Arc<KeySet>,
    pub(crate) admin_tokens: Arc<AdminTokens>,
    pub(crate) failed_callers: FailedCallers,
    pub(crate) epoch: AtomicU64,
    suspended: AtomicBool,
}

/// What is particular to the product.
pub(crate) struct Product {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) carriers: Vec<Carrier>,
    pub(crate) carriers_text: String,
    pub(crate) tenant_header: Option<HeaderName>,
    pub(crate) accepted: Box<[HeaderValue]>,
    pub(crate) builtins: Builtins,
    pub(crate) docs_base: String,
}

/// What remembers requests.
pub(crate) struct Recorder {
    pub(crate) usage: Usage,
    pub(crate) metrics: Arc<Metrics>,
}

impl DataPlane {
    /// A data plane; the message names what to fix.
    pub fn new(config: DataPlaneConfig) -> Result<Self, InvalidConfig> {
        let metrics = Arc::new(Metrics::new(Arc::clone(&config.product.catalog)));
        Ok(Self {
            clock: config.clock,
            authority: Authority {
                keys: config.keys,
                admin_tokens: config.admin_tokens,
                failed_callers: FailedCallers::new(),
                epoch: AtomicU64::new(0),
                suspended: AtomicBool::new(false),
            },
            product: Product::new(config.product)?,
            upstreams: Upstreams::new(config.upstreams)?,
            policy: config.policy,
            recorder: Recorder { usage: Usage::new(), metrics },
        })
    }

    /// The key set, for the change feed.
    pub const fn keys(&self) -> &Arc<KeySet> {
        &self.authority.keys
    }

    /// The admin tokens, for the change feed.
    pub const fn admin_tokens(&self) -> &Arc<AdminTokens> {
        &self.authority.admin_tokens
    }

    /// The counters, to be registered as a collector.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.recorder.metrics)
    }

    /// Says up to which epoch changes have been applied; verify answers with it.
    pub fn set_epoch(&self, epoch: u64) {
        // changes may be taken in in another order than they were numbered
        self.authority.epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// Refuses every request from now on: what this node knows may no longer be true.
    pub fn suspend(&self) {
        self.authority.suspended.store(true, Ordering::Release);
    }

    /// Decides again: what this node knows was loaded anew.
    pub fn resume(&self) {
        self.authority.suspended.store(false, Ordering::Release);
    }

    /// Refuses when this node may not decide.
    pub fn may_decide(&self) -> Result<(), Error> {
        if self.authority.suspended.load(Ordering::Acquire) {
            let text = "This node cannot decide just now; try again, or call another one";
            return Err(Error::new(ErrorCode::Unavailable, text));
        }
        Ok(())
    }

    /// Takes out what up to `max` keys did since they were last taken out.
    pub fn drain_usage(&self, max: usize) -> Vec<UsageRow> {
        self.recorder.usage.drain(max)
    }

    /// Requests whose use was not kept, because more keys than [`crate::MAX_USED_KEYS`] were in
    /// use between two drains.
    pub fn lost_usage(&self) -> u64 {
        self.recorder.usage.lost()
    }
}

impl Product {
    fn new(config: ProductConfig) -> Result<Self, InvalidConfig> {
        let tenant_header = config
            .tenant_header
            .map(|name| {
                let parsed = HeaderName::try_from(name.as_str());
                parsed.map_err(|_| InvalidConfig::TenantHeader(name))
            })
            .transpose()?;
        let accepted = config.catalog.routes().iter().map(|route| {
            HeaderValue::try_from(route.accepted.as_str())
                .unwrap_or_else(|_| HeaderValue::from_static("-"))
        });
        Ok(Self {
            accepted: accepted.collect(),
            catalog: config.catalog,
            carriers_text: carrier::describe(&config.carriers),
            carriers: config.carriers,
            tenant_header,
            builtins: config.builtins,
            docs_base: config.docs_base,
        })
    }
}
