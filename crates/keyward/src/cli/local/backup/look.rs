//! Whether a backup or a database is whole: its file, its schema, and every audit chain.

use std::path::Path;
use std::sync::Arc;

use keyward_core::Clock as _;
use keyward_store::{BackupReport, Store, migrations, schema_status, unpack_backup};
use serde_json::{Value, json};

use super::scratch::Scratch;
use super::{is_sqlite, store_config};
use crate::cli::exit::{Done, Failure};
use crate::cli::output::Output;
use crate::config::ConfigArgs;
use crate::node::SystemClock;
use crate::restore::{Chains, walk};

/// What is told of a backup.
pub(super) fn shown(file: &Path, report: &BackupReport, chains: Option<&Chains>) -> Value {
    let mut shown = json!({
        "file": file,
        "schema": report.schema,
        "bytes": report.bytes,
        "epoch": report.reached.epoch,
        "incarnation": report.reached.incarnation,
        "sum": if report.summed { "matches" } else { "none" },
    });
    if let (Some(members), Some(chains)) = (shown.as_object_mut(), chains) {
        members.insert("auditChains".to_owned(), chains.count.into());
        members.insert("auditEvents".to_owned(), chains.events.into());
        members.insert("brokenChains".to_owned(), chains.broken.clone().into());
    }
    shown
}

/// Looks at the backup of a SQLite database, by opening a copy of it as the server would.
pub(super) async fn at_file(file: &Path, output: Output) -> Done {
    let scratch = Scratch::within(&std::env::temp_dir());
    let unpacked = unpack_backup(file, scratch.path(), migrations(), SystemClock.now()).await;
    let (config, report) = unpacked?;
    let store = Store::open(&config, Arc::new(SystemClock)).await?;
    let chains = walk(&store).await?;
    store.close().await;
    output.record(&shown(file, &report, Some(&chains)))?;
    verdict(&chains, output)
}

/// Looks at the PostgreSQL database of the settings. The store is opened as a server opens it, so
/// a role with too many or too few rights is refused; nothing is migrated.
pub(super) async fn at_database(args: &ConfigArgs, output: Output) -> Done {
    let mut config = store_config(args)?;
    if is_sqlite(&config) {
        let text = "the settings name a SQLite database, whose backups are files";
        return Err(Failure::usage(text, "keyward backup verify FILE"));
    }
    config.migrate_url = None;
    let store = Store::open(&config, Arc::new(SystemClock)).await?;
    let schema = schema_status(&config).await?.version;
    let mut tx = store.read_system("look at what was restored").await?;
    let (epoch, incarnation) = tx.epoch().await?;
    drop(tx);
    let chains = walk(&store).await?;
    store.close().await;
    output.record(&json!({
        "schema": schema,
        "epoch": epoch,
        "incarnation": incarnation,
        "grants": "fit",
        "auditChains": chains.count,
        "auditEvents": chains.events,
        "brokenChains": chains.broken,
    }))?;
    verdict(&chains, output)
}

fn verdict(chains: &Chains, output: Output) -> Done {
    if chains.broken.is_empty() {
        return Ok(());
    }
    output.say("an audit trail was changed behind the product's back, or was cut");
    Err(Failure::no())
}
