//! `keyward backup restore` and `restored`: nothing that was taken away comes back unnoticed.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use keyward_store::{Staged, Store};

use super::{is_sqlite, store_config};
use crate::cli::exit::{Done, Exit, Failure};
use crate::cli::output::Output;
use crate::config::ConfigArgs;
use crate::node::SystemClock;
use crate::restore::{self, Knowledge, LogReader, Report};

/// What becomes of keys that were revoked after the backup was made.
#[derive(Debug, Args)]
struct Means {
    /// Take away again what this log of `keyward backup revocations` names
    #[arg(long, value_name = "FILE")]
    revocations: Option<PathBuf>,
    /// Refuse every active key until it is confirmed, and revoke every admin token
    /// [default without --revocations]
    #[arg(long)]
    suspect: bool,
    /// Take nothing away
    #[arg(long, conflicts_with_all = ["revocations", "suspect"],
          requires = "i_know_revoked_keys_live_again")]
    accept_all: bool,
    /// What --accept-all means
    #[arg(long, requires = "accept_all")]
    i_know_revoked_keys_live_again: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup
    file: PathBuf,
    /// Do it: the backup takes the place of the database, which is kept beside it
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    means: Means,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(super) struct Restored {
    #[command(flatten)]
    means: Means,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Means {
    /// Reads the log whole, before anything is touched.
    fn knowledge(&self, command: &'static str) -> Done<Knowledge> {
        let log = self.revocations.as_deref().map(LogReader::open).transpose()?;
        let suspect = self.suspect || (log.is_none() && !self.accept_all);
        Ok(Knowledge { log, suspect, least_epoch: 0, command })
    }
}

impl Restore {
    pub(super) async fn run(self, output: Output) -> Done {
        if !self.yes {
            let text = "this will replace the database by the backup";
            return Err(Failure::usage(text, "add --yes"));
        }
        let mut knowledge = self.means.knowledge("keyward backup restore")?;
        let staged = Staged::begin(&store_config(&self.config)?, &self.file).await?;
        if let Some(replaced) = staged.replaced() {
            let reached = u64::try_from(replaced.epoch).unwrap_or_default();
            reaches(&knowledge, reached)?;
            knowledge.least_epoch = reached;
        }
        let mut config = store_config(&self.config)?;
        staged.point(&mut config);
        let store = Store::open(&config, Arc::new(SystemClock)).await?;
        let restored = restore::restored(&store, knowledge).await;
        store.close().await;
        let report = restored?;
        let placed = staged.put_in_place().await?;
        say(&report, output);
        if let Some(replaced) = placed.replaced {
            output.say(&format!("the database that was there is {}", replaced.display()));
        }
        output.record(&report)
    }
}

impl Restored {
    pub(super) async fn run(self, output: Output) -> Done {
        let config = store_config(&self.config)?;
        if is_sqlite(&config) {
            let text = "the settings name a SQLite database";
            return Err(Failure::usage(text, "keyward backup restore FILE does all of it"));
        }
        let knowledge = self.means.knowledge("keyward backup restored")?;
        let store = Store::open(&config, Arc::new(SystemClock)).await?;
        let restored = restore::restored(&store, knowledge).await;
        store.close().await;
        let report = restored?;
        say(&report, output);
        output.record(&report)
    }
}

/// Refuses a log that is older than the database about to be replaced, which knows better.
fn reaches(knowledge: &Knowledge, reached: u64) -> Done {
    let log = knowledge.log.as_ref().map(LogReader::header);
    match log.filter(|log| log.epoch < reached && !knowledge.suspect) {
        None => Ok(()),
        Some(log) => {
            let text = format!(
                "the log ends at epoch {}, and the database that is to be replaced has reached \
                 {reached}: what was revoked between them would work again",
                log.epoch
            );
            let next = format!(
                "export it again: keyward backup revocations --since {} --out FILE; or add \
                 --suspect",
                log.since
            );
            Err(Failure::new(Exit::Conflict, text).advising(next))
        }
    }
}

/// Says what is left to do, and what nobody can know.
fn say(report: &Report, output: Output) {
    if report.keys_suspected > 0 {
        output.say(&format!(
            "{} keys are suspect and refused until somebody confirms them: keyward key list \
             --suspect, keyward key confirm",
            report.keys_suspected
        ));
    }
    if report.admin_tokens_revoked > 0 {
        output.say(
            "admin tokens were revoked; for a new one: keyward admin create --with-token, and \
             give the programs that verify keys new ones too",
        );
    }
    match report.log_epoch {
        Some(epoch) => output.say(&format!(
            "what was revoked behind epoch {epoch}, the end of the log, is not known and works \
             again, unless it is suspect"
        )),
        None if report.keys_suspected == 0 => {
            output.say("what was revoked after the backup was made works again");
        }
        None => {}
    }
    for chain in &report.broken_chains {
        output.say(&format!("the audit trail {chain} is not whole"));
    }
}
