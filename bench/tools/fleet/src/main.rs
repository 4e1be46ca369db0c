//! The fleet test: nodes of Keyward and PostgreSQL as real processes, faults, and one client whose
//! monotonic clock decides whether a revocation was true when it answered.
//!
//! Every choice follows from a seed. What runs is bounded in number and time, is ended by process
//! id, and lives in a temporary folder.

mod chance;
mod control;
mod convergence;
mod faults;
mod fleet;
mod flood;
mod ledger;
mod load;
mod lowering;
mod moment;
mod node;
mod options;
mod phases;
mod pool;
mod postgres;
mod process;
mod report;
mod upstream;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use fleet::Fleet;
use options::{Command, Options, Place, RunOptions};
use phases::Run;

/// The longest a run may take.
const RUN_WITHIN: Duration = Duration::from_hours(1);
/// Exit codes: a promise was broken; something wanted was not reached; the run itself failed.
const VIOLATED: u8 = 1;
const NOT_REACHED: u8 = 3;
const BROKEN: u8 = 70;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.command {
        Some(Command::Flood(options)) => flood::run(&options).await,
        None => run(&options.run.settled()).await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(BROKEN)
        }
    }
}

async fn run(options: &RunOptions) -> anyhow::Result<ExitCode> {
    let begun = moment::now_ns();
    let seed = seed(&options.place);
    eprintln!("seed {seed}, {} nodes", options.nodes);
    let fleet = Fleet::begin(&options.place, options.nodes, seed, "").await?;
    let outcome = guarded(phases(Arc::clone(&fleet), options, seed, begun)).await;
    let keep = options.place.keep || !matches!(&outcome, Ok(code) if *code == ExitCode::SUCCESS);
    if let Some(folder) = fleet.end(keep).await {
        eprintln!("logs and data are in {}", folder.display());
    }
    outcome
}

async fn phases(
    fleet: Arc<Fleet>,
    options: &RunOptions,
    seed: u64,
    begun: u64,
) -> anyhow::Result<ExitCode> {
    let run = Run::begin(Arc::clone(&fleet), options.clone()).await?;
    run.all().await?;
    let mut about = report::circumstances(seed, &options.place.binary);
    about.set("nodes", options.nodes);
    about.set("postgres", version(&fleet).await?);
    about.set("tookSeconds", moment::ms(moment::now_ns() - begun) / 1e3);
    about.set("acceptedUpstream", fleet.ledger.accepted_upstream());
    let violated = fleet.ledger.violated();
    about.set("violations", violated);
    let about = about.shown();
    let shown = run.report.shown(&about, &fleet.ledger.violations_shown());
    write(&options.place, &shown)?;
    println!("{about:#}\n\n{}\n{violated} violations", run.report.table());
    Ok(match (violated, run.report.is_met() || options.quick) {
        (0, true) => ExitCode::SUCCESS,
        (0, false) => ExitCode::from(NOT_REACHED),
        _ => ExitCode::from(VIOLATED),
    })
}

/// Ends early when the run takes too long or somebody wants it to end.
async fn guarded(run: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = timeout(RUN_WITHIN, run) => done.context("the run takes too long")?,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}

fn seed(place: &Place) -> u64 {
    place.seed.unwrap_or_else(|| moment::wall_ms().unsigned_abs())
}

fn write(place: &Place, shown: &Value) -> anyhow::Result<()> {
    let Some(path) = &place.json else { return Ok(()) };
    let text = format!("{shown:#}\n");
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

async fn version(fleet: &Fleet) -> anyhow::Result<String> {
    let client = fleet.database().await?;
    Ok(client.query_one("SHOW server_version", &[]).await?.try_get(0)?)
}
