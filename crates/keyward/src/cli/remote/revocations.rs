//! `keyward revocations`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyward_api::operation::EXPORT_REVOCATIONS;
use keyward_api::revocations::{MAX_EPOCH, MAX_REVOCATIONS_LIMIT, RevocationsQuery};

use super::client::Call;
use super::session::RemoteArgs;
use crate::cli::exit::Done;
use crate::cli::local::write_log;

/// The log of lowered authority, for a restore from a backup
#[derive(Debug, Args)]
pub(crate) struct RevocationsCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write it to a file, as `keyward backup revocations` does on the database itself
    Export {
        /// What changed behind this epoch
        #[arg(long, value_name = "EPOCH", default_value_t = 0,
              value_parser = clap::value_parser!(u64).range(0..=MAX_EPOCH))]
        since: u64,
        /// The new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

impl RevocationsCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        let Action::Export { since, out } = self.action;
        let fetch = async |after| {
            let query = RevocationsQuery { after: Some(after), limit: Some(MAX_REVOCATIONS_LIMIT) };
            session.call(Call::to(&EXPORT_REVOCATIONS).query(&query)?).await
        };
        session.output.record(&write_log(&out, since, fetch).await?)
    }
}
