//! `keyward backup revocations`: the log, read from the database itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use keyward_api::revocations::{MAX_EPOCH, MAX_REVOCATIONS_LIMIT, RevocationPage};
use keyward_core::Clock as _;
use keyward_store::{Store, snapshot};
use serde_json::{Value, json};

use super::scratch::Scratch;
use super::{is_sqlite, store_config};
use crate::cli::exit::{Done, Exit, Failure};
use crate::cli::output::Output;
use crate::config::ConfigArgs;
use crate::node::SystemClock;
use crate::restore::{LogHeader, LogWriter, part};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// What changed behind this epoch; one that the backup has reached, or an earlier one
    #[arg(long, value_name = "EPOCH", value_parser = clap::value_parser!(u64).range(0..=MAX_EPOCH))]
    since: u64,
    /// The new file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Export {
    pub(super) async fn run(self, output: Output) -> Done {
        let mut config = store_config(&self.config)?;
        let scratch = Scratch::within(&config.data_dir);
        if is_sqlite(&config) {
            // a server may have the database itself
            config = snapshot(&config, scratch.path()).await?;
        } else {
            config.migrate_url = None;
        }
        let store = Store::open(&config, Arc::new(SystemClock)).await?;
        let fetch = async |after| Ok(part(&store, after, MAX_REVOCATIONS_LIMIT).await?);
        let written = write_log(&self.out, self.since, fetch).await;
        store.close().await;
        output.record(&written?)
    }
}

/// Writes the log behind an epoch to a new file, part by part, and answers what it holds.
pub(crate) async fn write_log(
    out: &Path,
    since: u64,
    fetch: impl AsyncFn(u64) -> Done<RevocationPage>,
) -> Done<Value> {
    let mut page = fetch(since).await?;
    if since > page.epoch {
        let text = format!("--since {since} is behind the newest change, {}", page.epoch);
        return Err(Failure::usage(text, "name the epoch that `keyward backup verify` shows"));
    }
    // what changes during the export stands in the next one
    let header = LogHeader::new(page.incarnation, since, page.epoch, SystemClock.now());
    let mut writer = LogWriter::create(out, &header)?;
    loop {
        for entry in &page.data {
            writer.entry(entry)?;
        }
        let Some(after) = page.next_after.filter(|after| *after < header.epoch) else { break };
        page = fetch(after).await?;
        if page.incarnation != header.incarnation {
            let text = "the deployment was restored or failed over during the export";
            return Err(Failure::new(Exit::Conflict, text).advising("run it again"));
        }
    }
    let entries = writer.finish()?;
    Ok(json!({ "file": out, "since": since, "epoch": header.epoch, "entries": entries }))
}
