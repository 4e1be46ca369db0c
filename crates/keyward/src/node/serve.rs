//! `keyward serve`: a node until it is told to stop.

use std::sync::Arc;

use keyward_core::Clock;
use keyward_store::Store;

use super::signals::{Hangup, Stops};
use super::supervisor::Supervisor;
use super::{Node, NodeParts, Shared, SystemClock, open_store};
use crate::bootstrap;
use crate::config::settings::{DeploymentEnvironment, NodeRole};
use crate::config::{ConfigError, DeploymentSecrets, Facts, Settings, production_problems};
use crate::product::Product;

/// Runs a node with these settings until SIGTERM or SIGINT; a second one ends it at once.
pub(crate) async fn serve(settings: Settings) -> anyhow::Result<()> {
    let stops = Stops::listen(Hangup::Reloads)?;
    stops.unless_repeated(Box::pin(run(settings, &stops))).await
}

async fn run(settings: Settings, stops: &Stops) -> anyhow::Result<()> {
    let supervisor = Supervisor::of_this_process();
    supervisor.starting("starting: opening the database");
    let parts = tokio::select! {
        biased;
        // nothing was promised to anybody yet
        () = stops.first() => return Ok(()),
        parts = prepare(settings, Arc::new(SystemClock)) => parts?,
    };
    supervisor.starting("starting: loading the keys");
    let node = Node::start(parts).await?;
    let addresses = node.addresses();
    let Shared { store, clock, plane, .. } = &node.shared;
    if let Some(control) = addresses.control {
        let mut settings = node.shared.settings.clone();
        settings.control.listen = control;
        bootstrap::administrator(&settings, store, &**clock).await?;
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        control = addresses.control.map(tracing::field::display),
        internal = %addresses.internal,
        gateways = ?addresses.gateways,
        "ready"
    );
    supervisor.ready();
    let decides = NodeRole::decide(&node.shared.settings.role);
    tokio::select! {
        () = stops.first() => {}
        () = supervisor.keep_told(|| !decides || plane.is_deciding()) => {}
        () = stops.at_each_hangup(|| node.reload()) => {}
    }
    supervisor.stopping();
    leave(&node).await;
    node.stop().await;
    Ok(())
}

/// Reads and opens what a node is made of.
pub(crate) async fn prepare(
    settings: Settings,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<NodeParts> {
    let product = Arc::new(Product::load(&settings.profile)?);
    let secrets = DeploymentSecrets::load(&settings, &*clock)?;
    let store = open_store(&settings, &secrets, Some(&product), Arc::clone(&clock)).await?;
    for warning in product.catalog.warnings() {
        tracing::warn!("{warning}");
    }
    production(&settings, &product, &store).await?;
    Ok(NodeParts { settings, product, secrets, store, clock })
}

/// Refuses in production what is unsafe there, before anything is served. Other nodes than those
/// with the control role may not look at a tenant's name.
async fn production(settings: &Settings, product: &Product, store: &Store) -> anyhow::Result<()> {
    if settings.environment != DeploymentEnvironment::Production {
        return Ok(());
    }
    let looks = NodeRole::Control.is_in(&settings.role);
    let demo_tenants = looks && has_demo_tenants(product, store).await?;
    let problems = production_problems(settings, Facts { demo_tenants });
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems).into()) }
}

async fn has_demo_tenants(product: &Product, store: &Store) -> anyhow::Result<bool> {
    let mut tx = store.read_system("look for demo tenants").await?;
    for demo in &product.profile.demo.tenants {
        let found = tx.find_tenant_by_slug(&demo.slug).await?;
        if found.is_some_and(|tenant| tenant.name == demo.name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Says that the node is about to stop, and gives load balancers the time to notice.
pub(crate) async fn leave(node: &Node) {
    node.announce_stop();
    let delay = node.shared.settings.shutdown.drain_delay.duration();
    tracing::info!(delay_ms = delay.as_millis(), "stopping");
    // requests go on being served meanwhile
    let _ = tokio::time::timeout(delay, std::future::pending::<()>()).await;
}
