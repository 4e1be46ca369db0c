//! Commands on a deployment's own files and database. A second writer beside a running server
//! would walk past its memory of what was revoked, so those that write take the data directory.

mod admin;
mod backup;
mod doctor;
mod migrate;
mod openapi;
mod serve;
mod settings;

use std::sync::Arc;

use keyward_core::Clock;
use keyward_store::{DatabaseRole, Store};

use super::exit::Done;
use crate::config::{self, ConfigArgs, ConfigError, DeploymentSecrets, Loaded, Settings};
use crate::node::{self, SystemClock};

pub(crate) use admin::AdminCommand;
pub(crate) use backup::{BackupCommand, write_log};
pub(crate) use doctor::DoctorCommand;
pub(crate) use migrate::MigrateCommand;
pub(crate) use openapi::OpenapiCommand;
pub(crate) use serve::{DevCommand, ServeCommand};
pub(crate) use settings::ConfigCommand;

/// The settings in force; refused when they would serve strangers in clear text, or under a
/// certificate that nobody can issue.
fn settings(args: &ConfigArgs) -> Done<Loaded> {
    let loaded = config::load(args)?;
    let mut problems = config::listening_problems(&loaded.settings);
    problems.extend(config::acme_problems(&loaded.settings));
    if problems.is_empty() { Ok(loaded) } else { Err(ConfigError(problems).into()) }
}

/// A deployment that this process has taken.
struct Deployment {
    settings: Settings,
    secrets: DeploymentSecrets,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Deployment {
    async fn open(args: &ConfigArgs) -> Done<Self> {
        let settings = config::load(args)?.settings;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let secrets = DeploymentSecrets::load(&settings, &*clock)?;
        let mut config = node::store_config(&settings, &secrets, &*clock)?;
        // what these commands write is a control node's affair, whatever this node does
        config.roles.needed = DatabaseRole::Control;
        let store = Store::open(&config, Arc::clone(&clock)).await?;
        Ok(Self { settings, secrets, store, clock })
    }
}
