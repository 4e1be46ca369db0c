//! One process: the planes it runs, wired to one store.

mod acme;
mod authority;
mod builtins;
mod certificates;
mod clock;
mod forward_auth;
mod housekeeper;
mod internal;
mod jobs;
mod planes;
mod seed;
mod store;
mod supervisor;

pub(crate) mod dev;
pub(crate) mod serve;
pub(crate) mod signals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use keyward_core::Clock;
use keyward_core::key::Keyring;
use keyward_gateway::authority::Follower;
use keyward_gateway::{
    AdminTokens, ConnectionLimits, DataPlane, GatewayServer, InternalServer, KeySet, LentServer,
    Protocols, RuntimeShape,
};
use keyward_store::Store;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::settings::{InternalSettings, NodeRole};
use crate::config::tls::TlsSettings;
use crate::config::{ConfigError, DeploymentSecrets, Settings, acme_problems};
use crate::control::{self, ControlState};
use crate::product::Product;
pub(crate) use acme::AcmeFolder;
use acme::Renewal;
pub(crate) use authority::Followed;
use certificates::{CertificateMetrics, Certificates};
use internal::InternalState;
use jobs::Jobs;

pub use clock::SystemClock;
pub(crate) use store::{lists_audit_events, open_store, store_config};

/// How long each of the last things may take that a node does when requests have ended.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the database may take to close. An application may have kept a layer of the node, which
/// keeps it open.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node is started with.
pub(crate) struct NodeParts {
    pub(crate) settings: Settings,
    pub(crate) product: Arc<Product>,
    pub(crate) secrets: DeploymentSecrets,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A running node.
pub(crate) struct Node {
    pub(crate) shared: Shared,
    followed: Followed,
    open: Open,
}

/// What goes on in a node: its listeners, and its work beside requests.
struct Open {
    gateways: Vec<GatewayServer>,
    internal: InternalServer,
    control: Option<LentServer>,
    draining: Arc<AtomicBool>,
    jobs: (watch::Sender<bool>, JoinHandle<()>),
}

/// What the planes of a node share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) product: Arc<Product>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    certificates: Arc<Certificates>,
}

/// Where a node listens.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) gateways: Vec<SocketAddr>,
    pub(crate) control: Option<SocketAddr>,
    pub(crate) internal: SocketAddr,
}

impl Node {
    /// Loads what the node decides from and starts its listeners.
    pub(crate) async fn start(parts: NodeParts) -> anyhow::Result<Self> {
        let NodeParts { settings, product, secrets, store, clock } = parts;
        let problems = acme_problems(&settings);
        if !problems.is_empty() {
            return Err(ConfigError(problems).into());
        }
        let keyring = Arc::new(secrets.keyring(product.profile.token_format()));
        let (catalog, ring) = (Arc::clone(&product.catalog), Arc::clone(&keyring));
        let keys = Arc::new(KeySet::keeping(settings.authority.max_keys, catalog, ring));
        let admin_tokens = Arc::new(AdminTokens::new(Arc::clone(&keyring)));
        let (config, jwks) =
            planes::data_plane(&settings, &secrets, &product, &store, keys, admin_tokens, &clock)?;
        let plane = Arc::new(DataPlane::new(config)?);
        let followed = Followed::start(&store, &plane, &settings).await?;
        let issued = AcmeFolder::of(&settings);
        let certificates = Arc::new(Certificates::new(Arc::clone(&clock), issued));
        let shared = Shared { store, product, keyring, plane, clock, settings, certificates };
        match shared.listen(jwks, &followed.follower) {
            Ok(open) => Ok(Self { shared, followed, open }),
            Err(error) => {
                // no change is to wait for a node that never served
                followed.leave().await;
                Err(error)
            }
        }
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            gateways: self.open.gateways.iter().map(GatewayServer::local_addr).collect(),
            control: self.open.control.as_ref().map(LentServer::local_addr),
            internal: self.open.internal.local_addr(),
        }
    }

    /// Reads again what may be replaced while the node runs: the certificates of its listeners.
    pub(crate) fn reload(&self) {
        tracing::info!("reading the certificates again; other settings are read at the start");
        self.shared.certificates.reload(true);
    }

    /// Says that the node is about to stop: on `/readyz`, and with every answer, which ends its
    /// connection.
    pub(crate) fn announce_stop(&self) {
        self.open.draining.store(true, Ordering::Relaxed);
        self.open.gateways.iter().for_each(GatewayServer::leave);
        self.open.control.iter().for_each(LentServer::leave);
        self.open.internal.leave();
    }

    /// Stops accepting, lets requests in flight end, and writes what is still in memory.
    pub(crate) async fn stop(self) {
        let within = self.shared.settings.shutdown.timeout.duration();
        let Open { gateways, internal, control, jobs: (stop, jobs), .. } = self.open;
        // all at once, so that their time passes once
        let gateways = gateways.into_iter().map(|gateway| gateway.drain(within));
        let gateways: Vec<_> = gateways.map(tokio::spawn).collect();
        let mut ended = match control {
            Some(control) => control.drain(within).await,
            None => true,
        };
        for gateway in gateways {
            ended &= gateway.await.unwrap_or(false);
        }
        // the last listener, so that health can be asked until then
        ended &= internal.drain(LAST_TIMEOUT).await;
        if !ended {
            tracing::warn!("requests that did not end in time were cut");
        }
        // nothing is decided any more: from here on no change waits for this node
        self.followed.leave().await;
        let _ = stop.send(true);
        let ending = jobs.abort_handle();
        if tokio::time::timeout(LAST_TIMEOUT, jobs).await.is_err() {
            ending.abort();
            tracing::warn!("the last use of keys was not written before the end");
        }
        let released = self.shared.store.released();
        drop(self.shared);
        if tokio::time::timeout(RELEASE_TIMEOUT, released).await.is_err() {
            tracing::warn!("the database is still open: something has kept a part of this node");
        }
    }
}

impl Shared {
    fn listen(&self, jwks: serde_json::Value, follower: &Arc<Follower>) -> anyhow::Result<Open> {
        let has = |role: NodeRole| role.is_in(&self.settings.role);
        let mut gateways = Vec::new();
        let listeners = self.settings.gateway.listener.iter();
        for listener in listeners.filter(|_| has(NodeRole::Gateway)) {
            let name = format!("gateway {}", listener.listen);
            let protocols = self.protocols(name, &listener.tls, listener.h2c)?;
            let options = planes::gateway_options(&self.settings.gateway, listener, protocols);
            let addresses = [listener.listen];
            let server = GatewayServer::bind(&addresses, Arc::clone(&self.plane), options)
                .with_context(|| format!("cannot listen on {}", listener.listen))?;
            gateways.push(server);
        }
        let control =
            if has(NodeRole::Control) { Some(self.control(Arc::clone(follower))?) } else { None };
        let draining = Arc::new(AtomicBool::new(false));
        let internal = self.internal(jwks, follower, Arc::clone(&draining))?;
        let (stop, stopped) = watch::channel(false);
        let purges = has(NodeRole::Worker);
        let every = self.settings.certificates.check_every.duration();
        tokio::spawn(Arc::clone(&self.certificates).keep(every, stopped.clone()));
        if self.certificates.show_issued() {
            let (clock, certificates) = (Arc::clone(&self.clock), Arc::clone(&self.certificates));
            let renewal = Renewal::new(&self.settings, clock, certificates)?;
            tokio::spawn(renewal.keep(stopped.clone()));
        }
        let forwards = has(NodeRole::Gateway);
        let plane = Arc::clone(&self.plane);
        let task = Jobs::start(self.store.clone(), plane, purges, forwards, stopped);
        Ok(Open { gateways, internal, control, draining, jobs: (stop, task) })
    }

    /// What a listener speaks. `name` is for the log and the metrics.
    fn protocols(&self, name: String, tls: &TlsSettings, h2c: bool) -> anyhow::Result<Protocols> {
        Ok(Protocols { tls: self.certificates.show(name, tls)?, h2c })
    }

    fn control(&self, follower: Arc<Follower>) -> anyhow::Result<LentServer> {
        let state = ControlState {
            store: self.store.clone(),
            product: Arc::clone(&self.product),
            keyring: Arc::clone(&self.keyring),
            plane: Arc::clone(&self.plane),
            follower,
            clock: Arc::clone(&self.clock),
            max_body: self.settings.control.max_body.bytes(),
        };
        let address = self.settings.control.listen;
        let fallback = planes::fallback(control::router(Arc::new(state))?);
        let limits = planes::control_limits(&self.settings.control);
        let tls = &self.settings.control.tls;
        let protocols = self.protocols("control".to_owned(), tls, false)?;
        LentServer::bind(&[address], Arc::clone(&self.plane), fallback, limits, protocols)
            .with_context(|| format!("cannot listen on {address}"))
    }

    fn internal(
        &self,
        jwks: serde_json::Value,
        follower: &Arc<Follower>,
        draining: Arc<AtomicBool>,
    ) -> anyhow::Result<InternalServer> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.plane.metrics()));
        registry.register_collector(Box::new(follower.metrics()));
        registry.register_collector(Box::new(CertificateMetrics(Arc::clone(&self.certificates))));
        let (store, plane) = (self.store.clone(), Arc::clone(&self.plane));
        let clock = Arc::clone(&self.clock);
        let decides = NodeRole::decide(&self.settings.role);
        let state = InternalState { store, plane, decides, clock, draining, registry, jwks };
        let router = internal::router(state);
        let InternalSettings { listen: address, ref tls, h2c, .. } = self.settings.internal;
        let protocols = self.protocols("internal".to_owned(), tls, h2c)?;
        let (fallback, limits) = (planes::fallback(router), ConnectionLimits::default());
        let plane = Arc::clone(&self.plane);
        let shape = RuntimeShape::Shared;
        InternalServer::bind(&[address], plane, fallback, limits, protocols, shape)
            .with_context(|| format!("cannot listen on {address}"))
    }
}
