//! `keyward serve`: a node until it is told to stop.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::{Node, NodeParts, Shared, SystemClock, open_store};
use crate::bootstrap;
use crate::config::{DeploymentSecrets, Settings};
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
