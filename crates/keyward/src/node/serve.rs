//! `keyward serve`: a node until it is told to stop.

use std::sync::Arc;

use anyhow::Context as _;
use keyward_store::Store;
use tokio::signal::unix::{SignalKind, signal};

use super::{Node, NodeParts, Shared, SystemClock, open_store};
use crate::bootstrap;
use crate::config::settings::DeploymentEnvironment;
use crate::config::{ConfigError, DeploymentSecrets, Facts, Settings, production_problems};
use crate::product::Product;

/// Runs a node with these settings until SIGTERM or SIGINT.
pub(crate) async fn serve(settings: Settings) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock);
    let product = Arc::new(Product::load(&settings.profile)?);
    let secrets = DeploymentSecrets::load(&settings, &*clock)?;
    let store = open_store(&settings, &secrets, clock.clone()).await?;
    for warning in product.catalog.warnings() {
        tracing::warn!("{warning}");
    }
    production(&settings, &product, &store).await?;
    let node = Node::start(NodeParts { settings, product, secrets, store, clock }).await?;
    let addresses = node.addresses();
    let Shared { store, clock, .. } = &node.shared;
    let mut settings = node.shared.settings.clone();
    settings.control.listen = addresses.control;
    bootstrap::administrator(&settings, store, &**clock).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        control = %addresses.control,
        internal = %addresses.internal,
        gateways = ?addresses.gateways,
        "ready"
    );
    wait_for_stop(&node).await?;
    node.stop().await;
    Ok(())
}

/// Refuses in production what is unsafe there, before anything is served.
async fn production(settings: &Settings, product: &Product, store: &Store) -> anyhow::Result<()> {
    if settings.environment != DeploymentEnvironment::Production {
        return Ok(());
    }
    let mut tx = store.read_system("look for demo tenants").await?;
    let mut demo_tenants = false;
    for demo in &product.profile.demo.tenants {
        let found = tx.find_tenant_by_slug(&demo.slug).await?;
        demo_tenants |= found.is_some_and(|tenant| tenant.name == demo.name);
    }
    let problems = production_problems(settings, Facts { demo_tenants });
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems).into()) }
}

/// Waits for a signal, then for load balancers to notice; a second signal ends the wait.
pub(crate) async fn wait_for_stop(node: &Node) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    node.announce_stop();
    let delay = node.shared.settings.shutdown.drain_delay.duration();
    tracing::info!(delay_ms = delay.as_millis(), "stopping");
    let again = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let _ = tokio::time::timeout(delay, again).await;
    Ok(())
}
