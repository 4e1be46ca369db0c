//! `keyward migrate`.

use std::sync::Arc;

use clap::{Args, Subcommand};
use keyward_core::Clock;
use keyward_store::{SchemaStatus, migrations, schema_status};
use serde_json::json;

use crate::cli::exit::{Done, Failure};
use crate::cli::output::{Format, Output};
use crate::config::{self, ConfigArgs, DeploymentSecrets, Settings, secrets};
use crate::node::{self, SystemClock};
use crate::product::Product;

/// The schema of the database: where it is, and bringing it up to date
#[derive(Debug, Args)]
pub(crate) struct MigrateCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what the database has and what is pending (exit code 0, or 3 when something is)
    Status {
        /// How the result looks
        #[arg(long, value_enum)]
        output: Option<Format>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Run what is pending; SQLite is copied to `backups/` first
    Up {
        /// Only say what would be run
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

impl MigrateCommand {
    pub(crate) async fn run(self) -> Done {
        match self.action {
            Action::Status { output, config } => {
                let SchemaStatus { version, pending } = status(&config).await?;
                let shown = json!({ "version": version, "pending": pending });
                Output::new(output, false).record(&shown)?;
                if pending.is_empty() { Ok(()) } else { Err(Failure::no()) }
            }
            Action::Up { dry_run, config } => {
                let before = status(&config).await?;
                let output = Output::new(None, false);
                let settings = config::load(&config)?.settings;
                // The rights of the database roles are given anew by every run.
                let only_rights = before.pending.is_empty();
                if only_rights && settings.store.migrate_url_file.is_none() {
                    output.say(&format!("nothing to do: the schema is {}", before.version));
                    return Ok(());
                }
                let what = if only_rights {
                    "nothing but the rights of the database roles".to_owned()
                } else {
                    before.pending.join(", ")
                };
                if dry_run {
                    output.say(&format!("would run {what}"));
                    return Ok(());
                }
                up(&settings).await?;
                output.say(&format!("ran {what}"));
                Ok(())
            }
        }
    }
}

/// Opens the store as a node would, which migrates it.
async fn up(settings: &Settings) -> Done {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let named = !settings.profile.as_os_str().is_empty();
    let product = named.then(|| Product::load(&settings.profile)).transpose()?;
    let secrets = DeploymentSecrets::load(settings, &*clock)?;
    node::open_store(settings, &secrets, product.as_ref(), clock).await?;
    Ok(())
}

/// Looks only: a new deployment gets neither secrets nor a data directory from it.
async fn status(args: &ConfigArgs) -> Done<SchemaStatus> {
    let settings = config::load(args)?.settings;
    if secrets::is_new_deployment(&settings) {
        let pending = migrations().iter().map(|migration| migration.name).collect();
        return Ok(SchemaStatus { version: 0, pending });
    }
    let secrets = DeploymentSecrets::read(&secrets::path(&settings))?;
    let config = node::store_config(&settings, &secrets, &SystemClock)?;
    Ok(schema_status(&config).await?)
}
