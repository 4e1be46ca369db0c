//! Format, lint, tidy and generation entry points: `cargo xtask ci` is what must pass.

mod gates;
mod generated;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask <command>

  ci                  everything below; all are run, and all failures shown
  fmt                 check the format
  clippy              lint every target of the workspace
  doc                 build the documentation without warnings
  tidy                check the budgets and names of CONTRIBUTING.md
  deny                check licences, bans and sources of dependencies
  machete             look for unused dependencies
  openapi [--check]   write openapi/keyward.json, or compare it
  errors [--check]    write docs/ERRORS.md, or compare it
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let root = workspace_root()?;
    match arguments {
        ["ci"] => gates::ci(&root),
        ["fmt"] => gates::fmt(&root),
        ["clippy"] => gates::clippy(&root),
        ["doc"] => gates::doc(&root),
        ["tidy"] => tidy::check(&root),
        ["deny"] => gates::deny(&root),
        ["machete"] => gates::machete(&root),
        ["openapi"] => generated::OPENAPI.write(&root),
        ["openapi", "--check"] => generated::OPENAPI.check(&root),
        ["errors"] => generated::ERRORS.write(&root),
        ["errors", "--check"] => generated::ERRORS.check(&root),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        [] => bail!("name a command\n\n{USAGE}"),
        _ => bail!("unknown command: {}\n\n{USAGE}", arguments.join(" ")),
    }
}

fn workspace_root() -> Result<PathBuf> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    parent.map(Path::to_owned).context("the manifest of xtask has no parent folder")
}
