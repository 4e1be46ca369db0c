//! `keyward backup`: SQLite. PostgreSQL has tools of its own.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyward_store::{StoreConfig, back_up, restore, verify_backup};
use serde_json::json;

use crate::cli::exit::{Done, Failure};
use crate::cli::output::{Format, Output};
use crate::config::{self, ConfigArgs, DeploymentSecrets};
use crate::node::{self, SystemClock};

/// Backups of a SQLite database
#[derive(Debug, Args)]
pub(crate) struct BackupCommand {
    /// How the result looks
    #[arg(long, global = true, value_enum)]
    output: Option<Format>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Copy the database as of one instant, also while a server works on it
    Create {
        /// The new file
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Read every page of a backup and check it
    Verify {
        /// The backup
        file: PathBuf,
    },
    /// Put a backup in the place of the database of a stopped server
    Restore {
        /// The backup
        file: PathBuf,
        /// Do it: keys revoked after the backup was made work again
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

impl BackupCommand {
    pub(crate) async fn run(self) -> Done {
        let output = Output::new(self.output, false);
        match self.action {
            Action::Create { file, config } => {
                back_up(&store_config(&config)?, &file).await?;
                output.say("keep the secrets file with it: without it no key of the backup works");
                let report = verify_backup(&file).await?;
                output.record(&json!({
                    "file": file, "schema": report.schema, "bytes": report.bytes,
                }))
            }
            Action::Verify { file } => {
                let report = verify_backup(&file).await?;
                output.record(&json!({
                    "file": file, "schema": report.schema, "bytes": report.bytes,
                }))
            }
            Action::Restore { yes: false, .. } => {
                let text = "this will replace the database; keys, members and tokens revoked \
                            after the backup was made work again";
                Err(Failure::usage(text, "add --yes"))
            }
            Action::Restore { file, config, .. } => {
                let restored = restore(&store_config(&config)?, &file).await?;
                output.say(
                    "what was revoked after the backup was made works again: revoke it anew, \
                     with the help of the replaced database's audit trail",
                );
                output.record(&json!({
                    "schema": restored.backup.schema,
                    "bytes": restored.backup.bytes,
                    "replaced": restored.replaced,
                }))
            }
        }
    }
}

fn store_config(args: &ConfigArgs) -> Done<StoreConfig> {
    let settings = config::load(args)?.settings;
    let secrets = DeploymentSecrets::read(&config::secrets::path(&settings))?;
    Ok(node::store_config(&settings, &secrets, &SystemClock)?)
}
