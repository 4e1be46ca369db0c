//! Opening the store of a deployment.

use std::path::Path;
use std::sync::Arc;

use keyward_core::Clock;
use keyward_store::{
    DatabaseRole, Listen, Pooler, Store, StoreConfig, StoreLimits, StoreRoles, migrations,
};
use zeroize::Zeroizing;

use super::builtins::AUDIT_EVENTS;
use crate::config::private_file::{self, Readers};
use crate::config::settings::{NodeRole, StorePooler};
use crate::config::{ConfigError, DeploymentSecrets, Settings};
use crate::product::Product;

/// Opens the store and migrates it; a SQLite file is taken for this process. Without the product
/// it is not known whether gateways read audit events, and their right to stays as it is.
pub(crate) async fn open_store(
    settings: &Settings,
    secrets: &DeploymentSecrets,
    product: Option<&Product>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Store> {
    let mut config = store_config(settings, secrets, &*clock)?;
    config.roles.audit = product.map(lists_audit_events);
    Ok(Store::open(&config, clock).await?)
}

/// What a node with these roles needs in the database.
fn needed(roles: &[NodeRole]) -> DatabaseRole {
    let does = |role: NodeRole| role.is_in(roles);
    match (does(NodeRole::Control), does(NodeRole::Gateway), does(NodeRole::Worker)) {
        (false, true, false) => DatabaseRole::Gateway,
        (false, false, true) => DatabaseRole::Worker,
        _ => DatabaseRole::Control,
    }
}

/// Whether the product's public API lists a tenant's audit events.
pub(crate) fn lists_audit_events(product: &Product) -> bool {
    let mut routes = product.catalog.routes().iter();
    routes.any(|route| route.builtin.as_deref() == Some(AUDIT_EVENTS))
}

pub(crate) fn store_config(
    settings: &Settings,
    secrets: &DeploymentSecrets,
    clock: &dyn Clock,
) -> anyhow::Result<StoreConfig> {
    let store = &settings.store;
    let url = match &store.url_file {
        Some(path) => private(path, "the store's address")?,
        None => Zeroizing::new(store.url.clone()),
    };
    let migrate_url = match &store.migrate_url_file {
        Some(path) => Some(private(path, "the address of the store's owner")?),
        None => None,
    };
    let listen = match &store.listen_url_file {
        _ if !store.listen => Listen::Off,
        Some(path) => Listen::Apart(private(path, "the address to listen at")?),
        None => Listen::WithStore,
    };
    Ok(StoreConfig {
        url,
        migrate_url,
        data_dir: settings.data_dir.0.clone(),
        context_key: secrets.context_key(),
        migrations: migrations(),
        now: clock.now(),
        roles: StoreRoles {
            needed: needed(&settings.role),
            control: store.roles.control.clone(),
            gateway: store.roles.gateway.clone(),
            worker: store.roles.worker.clone(),
            audit: None,
        },
        pooler: match store.pooler {
            StorePooler::None => Pooler::None,
            StorePooler::Transaction => Pooler::Transaction,
        },
        listen,
        limits: StoreLimits {
            readers: store.readers,
            connections: store.connections,
            ..StoreLimits::default()
        },
    })
}

fn private(path: &Path, what: &str) -> Result<Zeroizing<String>, ConfigError> {
    let text = private_file::read(path, Readers::Owner, what)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}
