//! What can be asked of a run.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Nodes of Keyward on one PostgreSQL in real processes, with faults: no request that is sent after
/// a revocation was answered may be accepted anywhere.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Forged keys without a valid tag at a high rate: no reads of the store, no harm to others.
    Flood(FloodOptions),
}

/// What every run needs.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// The release binary of the server.
    #[arg(long, default_value = "target/release/keyward")]
    pub(crate) binary: PathBuf,
    /// The folder of the profile.
    #[arg(long, default_value = "profiles/asiri")]
    pub(crate) profile: PathBuf,
    /// All choices follow from it; by default from the time of day.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Where the figures go as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Leaves the folder with logs and data behind.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Settings to add to every node's file, for example `[authority]\nlease = "1s"`.
    #[arg(long, default_value = "")]
    pub(crate) settings: String,
}

/// The phases, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Phase {
    Latency,
    Dead,
    Rotations,
    Lowering,
    Away,
    Faults,
    Rolling,
}

#[derive(Args, Clone)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Nodes, each with all roles.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=7))]
    pub(crate) nodes: u32,
    /// Revocations over all phases.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) revocations: usize,
    /// Rotations under load.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) rotations: usize,
    /// Lowerings of authority over all eight kinds.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) lowerings: usize,
    /// Rounds in which every node is restarted once.
    #[arg(long, default_value_t = 20)]
    pub(crate) restarts: usize,
    /// Requests a second beside the probes, over all nodes.
    #[arg(long, default_value_t = 200)]
    pub(crate) rate: u32,
    /// The lease of the nodes in milliseconds, as they are configured.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) lease_ms: u64,
    /// Only these phases.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) phases: Vec<Phase>,
    /// A short run of everything, under a minute.
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Args, Clone)]
pub(crate) struct FloodOptions {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Forged keys a second to try for.
    #[arg(long, default_value_t = 50_000)]
    pub(crate) rate: u32,
    /// How long.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u32,
    /// Connections of the flood.
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: u32,
}

impl RunOptions {
    /// With the counts of a short run where `--quick` asks for it.
    pub(crate) fn settled(mut self) -> Self {
        if self.quick {
            self.revocations = self.revocations.min(160);
            self.rotations = self.rotations.min(24);
            self.lowerings = self.lowerings.min(8);
            self.restarts = self.restarts.min(1);
        }
        self
    }

    pub(crate) fn wants(&self, phase: Phase) -> bool {
        self.phases.is_empty() || self.phases.contains(&phase)
    }
}
