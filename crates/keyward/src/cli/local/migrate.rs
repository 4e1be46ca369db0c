//! `keyward migrate`.

use clap::{Args, Subcommand};
use keyward_store::{SchemaStatus, migrations, schema_status};
use serde_json::json;

use super::Deployment;
use crate::cli::exit::{Done, Failure};
use crate::cli::output::{Format, Output};
use crate::config::{self, ConfigArgs, DeploymentSecrets, secrets};
use crate::node::{self, SystemClock};

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
                if before.pending.is_empty() {
                    output.say(&format!("nothing to do: the schema is {}", before.version));
                    return Ok(());
                }
                let names = before.pending.join(", ");
                if dry_run {
                    output.say(&format!("would run {names}"));
                    return Ok(());
                }
                let deployment = Deployment::open(&config).await?;
                drop(deployment);
                output.say(&format!("ran {names}"));
                Ok(())
            }
        }
    }
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
