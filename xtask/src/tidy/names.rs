//! Names that say nothing: a module is named for its idea.

use std::path::Path;

use super::{EXTENSIONS, Finding, has_extension};

const DRAWERS: [&str; 8] =
    ["utils", "util", "common", "helpers", "helper", "types", "misc", "shared"];

/// Whether a module of this name is a drawer for anything.
pub(super) fn is_drawer(name: &str) -> bool {
    DRAWERS.contains(&name)
}

/// A finding for every part of the path that is a drawer.
pub(super) fn scan(path: &str) -> Vec<Finding> {
    if !EXTENSIONS.iter().any(|extension| has_extension(path, extension)) {
        return Vec::new();
    }
    let stem = Path::new(path).with_extension("");
    let drawers = stem.iter().filter_map(|part| part.to_str()).filter(|part| is_drawer(part));
    drawers.map(|_| finding(path.to_owned())).collect()
}

/// The finding for a drawer at `subject`.
pub(super) fn finding(subject: String) -> Finding {
    Finding { rule: "drawer-module", subject, value: 1, limit: 0 }
}
