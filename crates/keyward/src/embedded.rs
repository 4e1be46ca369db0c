//! A node inside an application: its requests are decided where they arrive.
//!
//! An [`EmbeddedNode`] is what `keyward serve` runs, without the gateway's listeners: it follows
//! the store under a lease of its own, is on the register of nodes, and serves Keyward's own API
//! and the internal listener as its `role` says. In place of the listeners there is
//! [`EmbeddedNode::layer`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use keyward_core::Clock;

pub use keyward_core::environment::EnvironmentSet;
pub use keyward_core::{Caller, Environment};
pub use keyward_gateway::embed::{EmbeddedBody, EmbeddedLayer, EmbeddedOptions, EmbeddedService};
pub use keyward_gateway::{ListenerEnvironments, Peer};

use crate::bootstrap;
use crate::config::{ConfigArgs, Settings, load};
use crate::node::serve::prepare;
use crate::node::{Node, SystemClock};

/// What an [`EmbeddedNode`] is started with.
pub struct EmbeddedConfig {
    settings: ConfigArgs,
    clock: Arc<dyn Clock>,
}

impl EmbeddedConfig {
    /// Settings as `keyward serve` reads them: from a file, if one is named or lies where it is
    /// looked for, and from the environment.
    pub fn new(file: Option<PathBuf>) -> Self {
        let settings = ConfigArgs { config: file, flags: BTreeMap::new() };
        Self { settings, clock: Arc::new(SystemClock) }
    }

    /// With one more setting, over the file and the environment; its name is that of a line of
    /// `keyward config show`, such as `store.url`.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.flags.entry(name.into()).or_default().push(value.into());
        self
    }

    /// With another source of time and randomness.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn load(&self) -> anyhow::Result<Settings> {
        let mut settings = load(&self.settings)?.settings;
        // requests arrive at the application
        settings.gateway.listener.clear();
        Ok(settings)
    }
}

/// A node of this process, and the layer that decides with it.
pub struct EmbeddedNode {
    node: Box<Node>,
}

impl EmbeddedNode {
    /// Opens the store, loads what is decided with, and enters the node in the register. When this
    /// returns, requests are decided. Call it on a Tokio runtime that lasts as long as the node.
    ///
    /// # Errors
    /// What is wrong with the settings, the secrets, the profile or the store, and how to mend it.
    pub async fn start(config: EmbeddedConfig) -> anyhow::Result<Self> {
        let settings = config.load()?;
        let parts = Box::pin(prepare(settings, config.clock)).await?;
        let node = Node::start(parts).await?;
        let shared = &node.shared;
        if let Some(control) = node.addresses().control {
            let mut settings = shared.settings.clone();
            settings.control.listen = control;
            bootstrap::administrator(&settings, &shared.store, &*shared.clock).await?;
        }
        Ok(Self { node: Box::new(node) })
    }

    /// A layer that decides with this node. It may be made more than once; after
    /// [`EmbeddedNode::stop`] it refuses everything with 503.
    pub fn layer(&self, options: EmbeddedOptions) -> EmbeddedLayer {
        EmbeddedLayer::new(Arc::clone(&self.node.shared.plane), options)
    }

    /// Where Keyward's own API is served; `None` without the role `control`.
    pub fn control(&self) -> Option<SocketAddr> {
        self.node.addresses().control
    }

    /// Where verify, health and metrics are served.
    pub fn internal(&self) -> SocketAddr {
        self.node.addresses().internal
    }

    /// Takes the node off the register, so that no change waits for it, and writes what is still
    /// in memory. Stop serving the application first: from here on nothing is decided.
    pub async fn stop(self) {
        self.node.announce_stop();
        Box::pin(self.node.stop()).await;
    }
}
