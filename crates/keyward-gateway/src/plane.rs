//! The data plane of a node: what it decides with, and what it does with a decision.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use http::{HeaderName, HeaderValue};

use keyward_core::authority::Wanted;
use keyward_core::catalog::Catalog;
use keyward_core::clock::Clock;
use keyward_core::error::Error;
use keyward_core::id::KeyId;
use keyward_core::lease::Epoch;
use keyward_core::profile::Carrier;
use keyward_core::time::Timestamp;

use crate::admin_tokens::{AdminCaller, AdminTokens};
use crate::answer;
use crate::authority::{Follower, Following, LeaseCell, unavailable};
use crate::builtin::Builtins;
use crate::carrier;
use crate::client_address::Networks;
use crate::exposures::{ExposedRow, Exposures};
use crate::failed_callers::FailedCallers;
use crate::forward_auth::ForwardAuth;
use crate::keyset::KeySet;
use crate::metrics::Metrics;
use crate::proxy::{self, InvalidUpstream, UpstreamConfig, Upstreams};
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
#[derive(Clone, Default)]
pub struct PlanePolicy {
    /// Proxies that are believed: what they say of the client's address, and, when they ask for a
    /// decision, of the whole request.
    pub trusted_proxies: Networks,
    /// How proxies that ask for decisions are answered, if they are.
    pub forward_auth: Option<Arc<ForwardAuth>>,
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
    pub(crate) authority: Knowledge,
    pub(crate) product: Product,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) policy: PlanePolicy,
    pub(crate) recorder: Recorder,
}

/// Everything that says who may call.
pub(crate) struct Knowledge {
    pub(crate) keys: Arc<KeySet>,
    pub(crate) admin_tokens: Arc<AdminTokens>,
    pub(crate) failed_callers: FailedCallers,
    pub(crate) lease: Arc<LeaseCell>,
    follower: OnceLock<Arc<Follower>>,
}

/// What is particular to the product.
pub(crate) struct Product {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) carriers: Vec<Carrier>,
    pub(crate) carriers_text: String,
    pub(crate) scheme: &'static str,
    pub(crate) tenant_header: Option<HeaderName>,
    pub(crate) accepted: Box<[HeaderValue]>,
    pub(crate) builtins: Builtins,
    pub(crate) docs_base: String,
}

/// What remembers requests.
pub(crate) struct Recorder {
    pub(crate) usage: Usage,
    pub(crate) exposures: Arc<Exposures>,
    pub(crate) metrics: Arc<Metrics>,
}

impl DataPlane {
    /// A data plane; the message names what to fix.
    pub fn new(config: DataPlaneConfig) -> Result<Self, InvalidConfig> {
        let catalog = Arc::clone(&config.product.catalog);
        let upstreams = Arc::new(Upstreams::new(config.upstreams, &catalog)?);
        let exposures = Arc::<Exposures>::default();
        let counted = Arc::clone(&exposures);
        let metrics = Arc::new(Metrics::new(catalog, Arc::clone(&upstreams), counted));
        Ok(Self {
            clock: config.clock,
            authority: Knowledge {
                keys: config.keys,
                admin_tokens: config.admin_tokens,
                failed_callers: FailedCallers::new(),
                lease: Arc::default(),
                follower: OnceLock::new(),
            },
            product: Product::new(config.product)?,
            upstreams,
            policy: config.policy,
            recorder: Recorder { usage: Usage::new(), exposures, metrics },
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

    /// Follows an authority with what this plane knows; only the first call counts. Until the
    /// follower is started and has loaded everything, nothing is decided.
    pub fn follow(&self, following: Following) -> Arc<Follower> {
        let known = &self.authority;
        let make = || {
            let (keys, tokens) = (Arc::clone(&known.keys), Arc::clone(&known.admin_tokens));
            Follower::new(following, keys, tokens, Arc::clone(&known.lease))
        };
        Arc::clone(known.follower.get_or_init(make))
    }

    /// Looks after the addresses of the upstreams for as long as it is polled. Until then none is
    /// taken out, because nothing would take it in again.
    pub async fn check_upstreams(&self) -> Infallible {
        proxy::check(&self.upstreams).await
    }

    /// The lease under which this plane decides. A program whose sets nobody else changes may grant
    /// one that never ends.
    pub fn lease(&self) -> &LeaseCell {
        &self.authority.lease
    }

    /// The newest change in memory.
    pub fn epoch(&self) -> Epoch {
        self.authority.follower.get().map_or(Epoch(0), |follower| follower.epoch())
    }

    /// Whether this node may decide from memory now.
    pub fn is_deciding(&self) -> bool {
        let lease = self.authority.lease.read();
        self.clock.monotonic_ns() < lease.until_ns
    }

    /// Waits until everything is in memory that was committed before this call.
    ///
    /// # Errors
    /// `unavailable` when that cannot be known in time.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        match self.authority.follower.get() {
            Some(follower) => follower.catch_up().await,
            None => Err(unavailable()),
        }
    }

    /// Refuses when a lease was taken back since then: memory may have been emptied.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) fn unless_emptied(&self, withdrawals: u64) -> Result<(), Error> {
        let same = self.authority.lease.withdrawals() == withdrawals;
        if same { Ok(()) } else { Err(unavailable()) }
    }

    /// Sees to it that memory knows this, or knows that it does not exist. A plane that follows
    /// nobody knows all there is.
    ///
    /// # Errors
    /// `unavailable` when that cannot be known in time.
    pub(crate) async fn look_up(&self, wanted: Wanted) -> Result<(), Error> {
        match self.authority.follower.get() {
            Some(follower) => follower.look_up(wanted).await,
            None => Ok(()),
        }
    }

    /// Fetches a key that had to make room for others, beside whatever goes on. False when it is
    /// not in memory for another reason: then it does not exist.
    pub(crate) fn fetch_evicted(&self, key: KeyId) -> bool {
        if !self.authority.keys.evicts() || self.is_absent(key) {
            return false;
        }
        if let Some(follower) = self.authority.follower.get().cloned() {
            // its outcome is seen by whoever looks next
            tokio::spawn(async move { follower.look_up(Wanted::Key(key)).await.is_ok() });
        }
        true
    }

    /// Whether this key is known not to exist. A plane that follows nobody knows all there is.
    pub(crate) fn is_absent(&self, key: KeyId) -> bool {
        let follower = self.authority.follower.get();
        follower.is_none_or(|follower| follower.is_absent(Wanted::Key(key)))
    }

    /// Admits the bearer of an admin token. As with every decision the lease is read first, memory
    /// next and its clock last; where that is not enough, the authority is asked.
    ///
    /// # Errors
    /// `unavailable` when this node cannot tell, else why the token is refused.
    pub async fn admit(&self, text: &str) -> Result<AdminCaller, Error> {
        self.admit_at(self.clock.now(), text).await
    }

    /// The same for a bearer who came just now, at an instant that was read already.
    pub(crate) async fn admit_at(
        &self,
        mut now: Timestamp,
        text: &str,
    ) -> Result<AdminCaller, Error> {
        let tokens = &self.authority.admin_tokens;
        let (mut known, mut vouched) = self.recall(|| tokens.recognize(text));
        if let Some(id) = known.unknown() {
            self.look_up(Wanted::AdminToken(id)).await?;
            (known, vouched) = self.recall(|| tokens.recognize(text));
            now = self.clock.now();
        }
        if known.is_remembered() && !vouched {
            let withdrawals = self.authority.lease.withdrawals();
            self.catch_up().await?;
            known = tokens.recognize(text);
            self.unless_emptied(withdrawals)?;
            now = self.clock.now();
        }
        Ok(known.admit(now)?)
    }

    /// Takes out what up to `max` keys did since they were last taken out.
    pub fn drain_usage(&self, max: usize) -> Vec<UsageRow> {
        self.recorder.usage.drain(max)
    }

    /// The same of one of [`USAGE_PARTS`](crate::USAGE_PARTS) parts of the keys, but for those that
    /// were taken out in its last [`USAGE_TURNS`](crate::USAGE_TURNS) turns.
    pub fn drain_usage_part(&self, part: usize) -> Vec<UsageRow> {
        self.recorder.usage.drain_part(part)
    }

    /// Takes out the keys that were exposed since this was last called.
    pub fn drain_exposures(&self) -> Vec<ExposedRow> {
        self.recorder.exposures.drain()
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
            scheme: answer::scheme(&config.carriers),
            carriers: config.carriers,
            tenant_header,
            builtins: config.builtins,
            docs_base: config.docs_base,
        })
    }
}
