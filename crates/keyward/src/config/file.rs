//! `keyward.toml`: where it is found, and what it says with the line of each setting.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::Value;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::leaf::Leaf;
use super::problem::{Problem, did_you_mean};

/// The largest settings file read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A setting as a file has it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// Where a settings file is looked for, first to last, when none is named.
pub(crate) fn places(config_home: Option<&Path>) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("keyward.toml")];
    places.extend(config_home.map(|home| home.join("keyward/keyward.toml")));
    places.push(PathBuf::from("/etc/keyward/keyward.toml"));
    places
}

/// The text of a settings file.
pub(crate) fn read(path: &Path) -> Result<String, Problem> {
    let failed = |error: std::io::Error| {
        let text = format!("the settings file {}: {error}", path.display());
        Problem::new(text, "name a readable file with --config, or write one: keyward config init")
    };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        let text = format!("the settings file {} is larger than 1 MiB", path.display());
        return Err(Problem::new(text, "name a TOML file with Keyward's settings"));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The settings in the text, and what in it is no setting.
pub(crate) fn parse(path: &Path, text: &str, leaves: &[Leaf]) -> (Vec<Entry>, Vec<Problem>) {
    let mut reader = Reader { path, text, leaves, entries: Vec::new(), problems: Vec::new() };
    match DeTable::parse(text) {
        Ok(table) => reader.table("", table.into_inner()),
        Err(error) => {
            let place = reader.place(error.span().as_ref());
            let problem = Problem::new(format!("{place}: {}", error.message()), "correct the TOML");
            reader.problems.push(problem);
        }
    }
    (reader.entries, reader.problems)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    leaves: &'a [Leaf],
    entries: Vec<Entry>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    fn place(&self, span: Option<&Range<usize>>) -> String {
        let line = self.line(span.map_or(0, |span| span.start));
        format!("{}:{line}", self.path.display())
    }

    fn table(&mut self, parent: &str, table: DeTable<'_>) {
        for (key, value) in table {
            let line = self.line(key.span().start);
            let dot = if parent.is_empty() { "" } else { "." };
            let name = format!("{parent}{dot}{}", key.get_ref());
            if self.leaves.iter().any(|leaf| leaf.name == name) {
                match Value::deserialize(ValueDeserializer::from(value)) {
                    Ok(value) => self.entries.push(Entry { name, line, value }),
                    Err(error) => self.refuse(line, &name, error.message(), "correct the value"),
                }
                continue;
            }
            let section = format!("{name}.");
            let known = self.leaves.iter().any(|leaf| leaf.name.starts_with(&section));
            match value.into_inner() {
                DeValue::Table(members) if known => self.table(&name, members),
                _ if known => self.refuse(line, &name, "is a section", "write it as a table"),
                _ => self.unknown(line, &name),
            }
        }
    }

    fn unknown(&mut self, line: usize, name: &str) {
        let known = self.leaves.iter().map(|leaf| leaf.name.as_str());
        let fix = did_you_mean(name, known).map_or_else(
            || "remove it; `keyward config show` lists all settings".to_owned(),
            |known| format!("did you mean {known}?"),
        );
        self.refuse(line, name, "there is no such setting", &fix);
    }

    fn refuse(&mut self, line: usize, name: &str, what: &str, fix: &str) {
        let text = format!("{}:{line}: {name}: {what}", self.path.display());
        self.problems.push(Problem::new(text, fix));
    }
}

/// Makes the paths in a setting of a file relative to the folder of that file.
pub(crate) fn rebase(name: &str, value: &mut Value, folder: &Path) {
    match value {
        Value::String(path) if Leaf::is_path(name) && !path.is_empty() => {
            if let Some(joined) = folder.join(&*path).to_str() {
                joined.clone_into(path);
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(|entry| rebase(name, entry, folder)),
        Value::Table(members) => {
            members.iter_mut().for_each(|(key, member)| rebase(key, member, folder));
        }
        _ => {}
    }
}
