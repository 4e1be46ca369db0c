//! `keyward dev`: a node, the sandbox behind it, and demo tenants, all in one process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use keyward_core::Clock;
use keyward_core::Environment;
use keyward_core::assertion::VerifyKey;
use keyward_core::id::TenantId;
use keyward_core::key::KeySecret;
use keyward_gateway::{LentServer, Protocols};
use keyward_sandbox::{Sandbox, SandboxConfig};
use serde_json::{Map, Value, json};

use super::seed::{SeededTenant, Seeder};
use super::{Node, NodeParts, open_store, planes};
use crate::config::settings::ListenerSettings;
use crate::config::upstream::UpstreamSettings;
use crate::config::{DeploymentSecrets, Settings};
use crate::product::Product;
use crate::usage;

/// The audience of the assertions that the sandbox gets.
const SANDBOX_AUDIENCE: &str = "sandbox";

/// A node with its sandbox and demo tenants.
pub struct Dev {
    node: Node,
    sandbox: LentServer,
    admin_token: KeySecret,
    tenants: Vec<SeededTenant>,
}

/// What a test or a program starts [`Dev`] with; ports are chosen by the system.
pub struct DevOptions {
    /// The directory with `profile.toml`.
    pub profile: PathBuf,
    /// Where the database and the secrets live.
    pub data_dir: PathBuf,
    /// `sqlite:…` or `postgres://…`.
    pub store_url: String,
    /// PostgreSQL: a private file with the address of the owner role.
    pub migrate_url_file: Option<PathBuf>,
    /// The environments served, listener by listener.
    pub gateways: Vec<Vec<Environment>>,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
}

impl DevOptions {
    fn settings(&self) -> Settings {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut settings = Settings::default();
        settings.profile.clone_from(&self.profile);
        settings.data_dir.0.clone_from(&self.data_dir);
        settings.store.url.clone_from(&self.store_url);
        settings.store.migrate_url_file.clone_from(&self.migrate_url_file);
        settings.control.listen = any;
        settings.internal.listen = any;
        let listeners = self.gateways.iter().map(|environments| {
            let environments = environments.clone();
            ListenerSettings { listen: any, environments, ..ListenerSettings::default() }
        });
        settings.gateway.listener = listeners.collect();
        settings.gateway.threads = 1;
        settings
    }
}

impl Dev {
    /// Starts everything; it is ready when this returns.
    pub async fn start(options: DevOptions) -> anyhow::Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Box::pin(Self::with_settings(options.settings(), any, options.clock)).await
    }

    /// The same from settings.
    pub(crate) async fn with_settings(
        mut settings: Settings,
        sandbox: SocketAddr,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let product = Arc::new(Product::load(&settings.profile)?);
        let secrets = DeploymentSecrets::load(&settings, &*clock)?;
        let store = open_store(&settings, &secrets, Some(&product), Arc::clone(&clock)).await?;
        let socket = std::net::TcpListener::bind(sandbox)
            .with_context(|| format!("cannot listen on {sandbox}"))?;
        let base_url = format!("http://{}", socket.local_addr()?);
        settings.upstream = vec![sandbox_upstream(&base_url, &product)];
        let config = SandboxConfig {
            base_url,
            audience: SANDBOX_AUDIENCE.to_owned(),
            verify_key: VerifyKey::hs256(secrets.shared_assertion_secret())?,
            clock: Arc::clone(&clock),
            tenants: Vec::new(),
        };
        let seeds = product.seeds.clone().unwrap_or(Value::Null);
        let sandbox = Sandbox::build(&product.document, &seeds, config)
            .with_context(|| format!("the sandbox of {}", settings.profile.display()))?;
        let node = Node::start(NodeParts { settings, product, secrets, store, clock }).await?;
        let (plane, router) = (Arc::clone(&node.shared.plane), planes::fallback(sandbox.router()));
        let listening =
            LentServer::on(socket, plane, router, planes::sandbox_limits(), Protocols::default())?;
        let (tenants, admin_token) = Box::pin(seed(&node, &sandbox)).await?;
        Ok(Self { node, sandbox: listening, admin_token, tenants })
    }

    /// Where the product's API is reached, listener by listener.
    pub fn gateways(&self) -> Vec<SocketAddr> {
        self.node.addresses().gateways
    }

    /// Where Keyward's own API is reached.
    pub fn control(&self) -> SocketAddr {
        // `keyward dev` has every role
        self.node.addresses().control.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where verify, health and metrics are reached.
    pub fn internal(&self) -> SocketAddr {
        self.node.addresses().internal
    }

    /// Where the sandbox is reached, without a gateway before it.
    pub fn sandbox(&self) -> SocketAddr {
        self.sandbox.local_addr()
    }

    /// An admin token of the operator with every scope.
    pub fn admin_token(&self) -> &str {
        self.admin_token.expose()
    }

    /// The demo tenant of this slug.
    pub fn tenant(&self, slug: &str) -> Option<TenantId> {
        self.tenants.iter().find(|tenant| tenant.slug == slug).map(|tenant| tenant.id)
    }

    /// The demo key of a tenant in an environment; it carries every scope of the product.
    pub fn key(&self, slug: &str, environment: Environment) -> Option<&str> {
        let tenant = self.tenants.iter().find(|tenant| tenant.slug == slug)?;
        tenant.keys.get(&environment).map(KeySecret::expose)
    }

    /// Writes the last use of keys now instead of within seconds.
    pub async fn note_usage(&self) {
        usage::note(&self.node.shared.store, &self.node.shared.plane).await;
    }

    /// Addresses and credentials as one JSON object.
    pub fn to_json(&self) -> Value {
        let url = |address: SocketAddr| format!("http://{address}");
        let addresses = self.node.addresses();
        let tenants = self.tenants.iter().map(|tenant| {
            let keys = tenant.keys.iter().map(|(environment, secret)| {
                (environment.as_str().to_owned(), Value::from(secret.expose()))
            });
            json!({ "id": tenant.id, "slug": tenant.slug, "keys": keys.collect::<Map<_, _>>() })
        });
        json!({
            "gateway": addresses.gateways.first().copied().map(url),
            "gateways": addresses.gateways.iter().copied().map(url).collect::<Vec<_>>(),
            "control": addresses.control.map(url),
            "internal": url(addresses.internal),
            "sandbox": url(self.sandbox.local_addr()),
            "adminToken": self.admin_token.expose(),
            "tenants": tenants.collect::<Vec<_>>(),
        })
    }

    /// The node, to wait for the end of its life.
    pub(crate) const fn node(&self) -> &Node {
        &self.node
    }

    /// Stops everything.
    pub async fn stop(self) {
        let within = self.node.shared.settings.shutdown.timeout.duration();
        self.node.stop().await;
        self.sandbox.drain(within).await;
    }
}

/// The directory of a profile: a path, or the name of one beside the binary's working directory.
pub(crate) fn profile_directory(name: &str) -> PathBuf {
    let path = Path::new(name);
    if path.join("profile.toml").exists() {
        path.to_owned()
    } else {
        Path::new("profiles").join(name)
    }
}

fn sandbox_upstream(base_url: &str, product: &Product) -> UpstreamSettings {
    UpstreamSettings {
        audience: Some(SANDBOX_AUDIENCE.to_owned()),
        environments: product.profile.keys.environments.keys().copied().collect(),
        ..UpstreamSettings::new(base_url)
    }
}

async fn seed(node: &Node, sandbox: &Sandbox) -> anyhow::Result<(Vec<SeededTenant>, KeySecret)> {
    let shared = &node.shared;
    let seeder = Seeder {
        store: shared.store.clone(),
        product: Arc::clone(&shared.product),
        keyring: Arc::clone(&shared.keyring),
        clock: Arc::clone(&shared.clock),
    };
    let failed = |e: keyward_core::Error| {
        let cause = e.internal_context().map(str::to_owned).unwrap_or_default();
        anyhow::anyhow!("the demo tenants could not be made: {} {cause}", e.public())
    };
    let tenants = seeder.tenants().await.map_err(failed)?;
    for tenant in &tenants {
        sandbox.add_tenant(&tenant.slug, tenant.id)?;
    }
    let token = seeder.admin_token().await.map_err(failed)?;
    Ok((tenants, token))
}
