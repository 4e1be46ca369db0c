//! `keyward backup`: copies of a SQLite database, and what a restore needs on both engines.

mod look;
mod restore;
mod revocations;
mod scratch;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyward_store::{StoreConfig, back_up, verify_backup};

pub(crate) use revocations::write_log;

use crate::cli::exit::Done;
use crate::cli::output::{Format, Output};
use crate::config::{self, ConfigArgs, DeploymentSecrets};
use crate::node::{self, SystemClock};

/// Backups, and what a restore must take away again
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  keyward backup create nightly.db
  keyward backup revocations --since 0 --out revoked.log
  keyward backup restore nightly.db --revocations revoked.log --yes")]
pub(crate) struct BackupCommand {
    /// How the result looks
    #[arg(long, global = true, value_enum)]
    output: Option<Format>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Copy a SQLite database as of one instant, also while a server works on it
    Create {
        /// The new file; its sum is written beside it
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Check a backup, or a PostgreSQL database, to its last audit event (exit code 0 or 3)
    Verify {
        /// The backup of a SQLite database; left out, the PostgreSQL database of the settings
        file: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Put a backup in the place of the SQLite database of a stopped server
    Restore(restore::Restore),
    /// Take away again what must not live, once after PostgreSQL's own tools have restored
    Restored(restore::Restored),
    /// Write the log of lowered authority that a restore takes away again
    Revocations(revocations::Export),
}

impl BackupCommand {
    pub(crate) async fn run(self) -> Done {
        let output = Output::new(self.output, false);
        match self.action {
            Action::Create { file, config } => {
                back_up(&store_config(&config)?, &file).await?;
                output.say("keep the secrets file with it: without it no key of the backup works");
                output.record(&look::shown(&file, &verify_backup(&file).await?, None))
            }
            Action::Verify { file: Some(file), .. } => look::at_file(&file, output).await,
            Action::Verify { file: None, config } => look::at_database(&config, output).await,
            Action::Restore(restore) => Box::pin(restore.run(output)).await,
            Action::Restored(restored) => Box::pin(restored.run(output)).await,
            Action::Revocations(export) => export.run(output).await,
        }
    }
}

fn store_config(args: &ConfigArgs) -> Done<StoreConfig> {
    let settings = config::load(args)?.settings;
    let secrets = DeploymentSecrets::read(&config::secrets::path(&settings))?;
    Ok(node::store_config(&settings, &secrets, &SystemClock)?)
}

fn is_sqlite(config: &StoreConfig) -> bool {
    config.url.starts_with("sqlite:")
}
