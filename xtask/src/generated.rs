//! Files that are made from the code and committed, so that a change of the contract is seen.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A committed file and where its text comes from.
pub(crate) struct Generated {
    command: &'static str,
    path: &'static str,
    text: fn() -> String,
}

pub(crate) const OPENAPI: Generated = Generated {
    command: "openapi",
    path: "openapi/keyward.json",
    text: keyward_api::openapi::document_text,
};

pub(crate) const ERRORS: Generated =
    Generated { command: "errors", path: "docs/ERRORS.md", text: keyward_api::error::reference };

impl Generated {
    /// Writes the file anew.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        let path = root.join(self.path);
        let folder = path.parent().context("a generated file lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(&path, (self.text)()).with_context(|| format!("cannot write {}", self.path))?;
        eprintln!("wrote {}", self.path);
        Ok(())
    }

    /// Fails when the committed file differs from what the code says now.
    pub(crate) fn check(&self, root: &Path) -> Result<()> {
        let committed = fs::read_to_string(root.join(self.path)).with_context(|| {
            format!("cannot read {}; run `cargo xtask {}`", self.path, self.command)
        })?;
        let current = (self.text)();
        if committed == current {
            return Ok(());
        }
        let line = first_difference(&committed, &current);
        bail!(
            "{} differs from the code, first in line {line}; run `cargo xtask {}` and commit it",
            self.path,
            self.command,
        )
    }
}

/// The number of the first line in which the two differ, from 1.
fn first_difference(committed: &str, current: &str) -> usize {
    let same = committed.lines().zip(current.lines()).take_while(|(a, b)| a == b).count();
    same + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), 2);
        assert_eq!(first_difference("a\n", "a\nb\n"), 2);
    }

    #[test]
    fn generated_texts_do_not_change_from_call_to_call() {
        for file in [OPENAPI, ERRORS] {
            assert_eq!((file.text)(), (file.text)(), "{}", file.path);
        }
    }
}
