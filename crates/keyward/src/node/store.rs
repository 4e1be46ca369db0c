//! Opening the store of a deployment.

use std::path::Path;
use std::sync::Arc;

use keyward_core::Clock;
use keyward_store::{Listen, Pooler, Store, StoreConfig, StoreLimits, migrations};
use zeroize::Zeroizing;

use crate::config::private_file::{self, Readers};
use crate::config::{ConfigError, DeploymentSecrets, Settings};

/// Opens the store and migrates it; a SQLite file is taken for this process.
pub(crate) async fn open_store(
    settings: &Settings,
    secrets: &DeploymentSecrets,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Store> {
    let config = store_config(settings, secrets, &*clock)?;
    Ok(Store::open(&config, clock).await?)
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
    Ok(StoreConfig {
        url,
        migrate_url,
        data_dir: settings.data_dir.0.clone(),
        context_key: secrets.context_key(),
        migrations: migrations(),
        now: clock.now(),
        pooler: Pooler::None,
        listen: Listen::WithStore,
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
