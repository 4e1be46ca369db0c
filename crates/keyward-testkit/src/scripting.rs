//! Interpreters of other languages, for examples that must work as they stand in the documents.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::server_process::find_program;

/// The environment that `script/test` fills with the packages of `script/python-packages.txt`.
const ENVIRONMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python/bin/python");

/// A Python that has these modules, or nothing when there is none: the test is then skipped aloud,
/// or fails where `CI=true`.
pub fn python_with(modules: &[&str]) -> Option<PathBuf> {
    let imports = format!("import {}", modules.join(", "));
    let found = [ENVIRONMENT, "python3"].into_iter().find(|python| imports_all(python, &imports));
    if found.is_none() {
        skip(&format!("Python: `{imports}` fails"));
    }
    found.map(PathBuf::from)
}

/// The folder that `script/test` fills with the packages of `script/node-packages.txt`.
const NODE_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/node");

/// Node, and a folder in which scripts find this package, or nothing when one of them is missing:
/// the test is then skipped aloud, or fails where `CI=true`.
pub fn node_with(package: &str) -> Option<(PathBuf, PathBuf)> {
    let node = find_program("node", "nodejs")?;
    let folder = PathBuf::from(NODE_FOLDER);
    if folder.join("node_modules").join(package).is_dir() {
        return Some((node, folder));
    }
    skip(&format!("Node: the package {package} is missing"));
    None
}

/// A command of the machine, or nothing when it is not installed: the test is then skipped aloud,
/// or fails where `CI=true`.
pub fn command(name: &str) -> Option<PathBuf> {
    find_program(name, name)
}

#[expect(clippy::disallowed_methods, reason = "the environment configures the test run")]
fn skip(why: &str) {
    let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!required, "{why}, and CI may skip nothing");
    eprintln!("SKIPPED with {why}; script/test installs what it needs");
}

fn imports_all(python: &str, imports: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", imports]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
