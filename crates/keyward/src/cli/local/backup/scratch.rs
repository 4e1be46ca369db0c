//! A folder for a copy that is looked at and thrown away.

use std::path::{Path, PathBuf};

use crate::cli::output::Output;

/// The path of a folder that somebody else makes, and that goes away with this value.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A name in this folder that no other process uses.
    pub(super) fn within(folder: &Path) -> Self {
        Self(folder.join(format!("keyward-look-{}", std::process::id())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Output::new(None, false).say(&format!("{} stays: {error}", self.0.display()));
            }
            _ => {}
        }
    }
}
