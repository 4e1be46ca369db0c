//! The gates that run other programs, and all gates together.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{generated, tidy};

type Gate = (&'static str, fn(&Path) -> Result<()>);

/// Cheap gates first, so that a small slip shows at once.
const GATES: &[Gate] = &[
    ("fmt", fmt),
    ("tidy", tidy::check),
    ("openapi", |root| generated::OPENAPI.check(root)),
    ("errors", |root| generated::ERRORS.check(root)),
    ("machete", machete),
    ("deny", deny),
    ("clippy", clippy),
    ("doc", doc),
];

/// Runs every gate and reports all that fail.
pub(crate) fn ci(root: &Path) -> Result<()> {
    let mut failed = Vec::new();
    for (name, gate) in GATES {
        eprintln!("== {name}");
        if let Err(error) = gate(root) {
            eprintln!("xtask {name}: {error:#}");
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        eprintln!("== all gates passed");
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

pub(crate) fn fmt(root: &Path) -> Result<()> {
    run(cargo(root, &["fmt", "--all", "--check"]), "run `cargo fmt --all`")
}

pub(crate) fn clippy(root: &Path) -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    run(cargo(root, &arguments), "correct what clippy names")
}

pub(crate) fn doc(root: &Path) -> Result<()> {
    let mut command = cargo(root, &["doc", "--workspace", "--no-deps", "--locked"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    run(command, "correct the documentation comments")
}

pub(crate) fn deny(root: &Path) -> Result<()> {
    if !installed(root, "deny") {
        return Ok(());
    }
    let arguments = ["deny", "--locked", "check", "bans", "licenses", "sources"];
    run(cargo(root, &arguments), "see deny.toml for what is accepted and why")
}

pub(crate) fn machete(root: &Path) -> Result<()> {
    if !installed(root, "machete") {
        return Ok(());
    }
    run(cargo(root, &["machete"]), "remove the unused dependencies")
}

/// Whether a cargo subcommand is there. Says aloud when a gate is skipped for want of it.
fn installed(root: &Path, subcommand: &str) -> bool {
    let there = cargo(root, &[subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        eprintln!(
            "SKIPPED: cargo-{subcommand} is not installed (`cargo install cargo-{subcommand}`)"
        );
    }
    there
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    // set for this program by `cargo run`; a tool that sees it takes itself for one being run so
    command.current_dir(root).args(arguments).env_remove("CARGO_PKG_NAME");
    command
}

fn run(mut command: Command, fix: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if status.success() {
        return Ok(());
    }
    bail!("{command:?} failed; {fix}")
}
