//! The names of all settings, made from the one tree: file key, flag and environment variable.

use serde_json::Value as Json;
use toml::Value;

use super::settings::Settings;

/// What stands before the name of every variable of ours.
pub(crate) const ENV_PREFIX: &str = "KEYWARD_";

/// How a setting is read from a flag or a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Text, also of paths, addresses, durations and sizes.
    Text,
    /// A whole number.
    Number,
    /// Yes or no.
    Switch,
    /// Several entries, each a text or a table.
    List,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Its place in the file, such as `gateway.max-body`.
    pub(crate) name: String,
    /// How it is read from a flag or a variable.
    pub(crate) shape: Shape,
}

/// All settings, by name.
pub(crate) fn leaves() -> Vec<Leaf> {
    let mut found = Vec::new();
    // the tree is plain data; it always serialises
    collect("", &serde_json::to_value(Settings::default()).unwrap_or_default(), &mut found);
    found
}

fn collect(name: &str, value: &Json, found: &mut Vec<Leaf>) {
    let shape = match value {
        Json::Object(members) => {
            for (key, member) in members {
                let dot = if name.is_empty() { "" } else { "." };
                collect(&format!("{name}{dot}{key}"), member, found);
            }
            return;
        }
        Json::Bool(_) => Shape::Switch,
        Json::Number(_) => Shape::Number,
        Json::Array(_) => Shape::List,
        // what has no default is a path or a text
        Json::Null | Json::String(_) => Shape::Text,
    };
    found.push(Leaf { name: name.to_owned(), shape });
}

impl Leaf {
    /// The flag without its dashes, such as `gateway-max-body`.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('.', "-")
    }

    /// The environment variable, such as `KEYWARD_GATEWAY__MAX_BODY`.
    pub(crate) fn env(&self) -> String {
        let name = self.name.replace('.', "__").replace('-', "_");
        format!("{ENV_PREFIX}{}", name.to_ascii_uppercase())
    }

    /// Whether it names a file or folder, which in a file is relative to that file.
    pub(crate) fn is_path(key: &str) -> bool {
        let last = key.rsplit('.').next().unwrap_or(key);
        last == "profile" || last.ends_with("-file") || last.ends_with("-dir")
    }

    /// The value that the texts of a flag or variable stand for.
    pub(crate) fn read(&self, texts: &[String]) -> Result<Value, String> {
        let last = texts.last().map(String::as_str).unwrap_or_default();
        match self.shape {
            Shape::Text => Ok(Value::String(last.to_owned())),
            Shape::Number => {
                let number = last.parse().map(Value::Integer);
                number.map_err(|_| format!("not a whole number: {last:?}"))
            }
            Shape::Switch => {
                let switch = last.parse().map(Value::Boolean);
                switch.map_err(|_| format!("neither true nor false: {last:?}"))
            }
            Shape::List => {
                let mut entries = Vec::new();
                for text in texts {
                    entries.extend(entries_of(text)?);
                }
                Ok(Value::Array(entries))
            }
        }
    }
}

/// The entries of a list: a TOML list, one TOML table, or texts with commas between them.
fn entries_of(text: &str) -> Result<Vec<Value>, String> {
    let text = text.trim();
    if !text.starts_with(['[', '{']) {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        return Ok(entries.map(|entry| Value::String(entry.to_owned())).collect());
    }
    let document = format!("entries = {text}");
    let mut table: toml::Table =
        document.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
    match table.remove("entries") {
        Some(Value::Array(entries)) => Ok(entries),
        Some(entry) => Ok(vec![entry]),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_name_has_three_spellings() {
        let all = leaves();
        let leaf = all.iter().find(|leaf| leaf.name == "gateway.max-body").unwrap();
        assert_eq!(leaf.flag(), "gateway-max-body");
        assert_eq!(leaf.env(), "KEYWARD_GATEWAY__MAX_BODY");
        let names: BTreeSet<&str> = all.iter().map(|leaf| leaf.name.as_str()).collect();
        for name in ["secrets-file", "upstream", "gateway.listener", "log.level", "data-dir"] {
            assert!(names.contains(name), "{name}");
        }
        let flags: BTreeSet<String> = all.iter().map(Leaf::flag).collect();
        let variables: BTreeSet<String> = all.iter().map(Leaf::env).collect();
        assert_eq!(flags.len(), all.len(), "no two settings share a flag");
        assert_eq!(variables.len(), all.len(), "no two settings share a variable");
    }

    #[test]
    fn lists_are_read_from_commas_tables_and_toml() {
        let list = Leaf { name: "x".to_owned(), shape: Shape::List };
        let read = |text: &str| list.read(&[text.to_owned()]).unwrap().to_string();
        assert_eq!(read("10.0.0.0/8, ::1/128"), r#"["10.0.0.0/8", "::1/128"]"#);
        assert_eq!(read(r#"["a", "b"]"#), r#"["a", "b"]"#);
        assert_eq!(read(r#"{ url = "http://h" }"#), r#"[{ url = "http://h" }]"#);
        assert_eq!(read(""), "[]");
        assert!(list.read(&["[1".to_owned()]).is_err());
    }
}
