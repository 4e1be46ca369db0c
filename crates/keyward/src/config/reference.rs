//! The reference of all settings: the file that `keyward config init` writes.

/// Every setting with its default and what it means, all commented out.
pub(crate) const REFERENCE: &str = include_str!("reference.toml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::layers::load_in;
    use super::super::leaf::leaves;
    use super::super::settings::Settings;
    use super::super::{ConfigArgs, Surroundings, file};
    use super::*;

    /// The reference with its settings (not its prose) in force.
    fn in_force() -> String {
        let line = |line: &str| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        };
        REFERENCE.lines().map(line).collect()
    }

    #[test]
    fn it_shows_every_setting_with_its_default() {
        let all = leaves();
        let (entries, problems) = file::parse(Path::new("reference.toml"), &in_force(), &all);
        assert_eq!(problems, []);
        let documented: BTreeSet<String> = entries.into_iter().map(|entry| entry.name).collect();
        let names: BTreeSet<String> = all.into_iter().map(|leaf| leaf.name).collect();
        assert_eq!(documented, names);

        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keyward.toml"), in_force()).unwrap();
        let surroundings =
            Surroundings { folder: folder.path().to_owned(), ..Surroundings::default() };
        let loaded = load_in(&ConfigArgs::default(), &surroundings).unwrap();
        let base = serde_json::to_string(folder.path()).unwrap();
        let base = format!("{}/", base.trim_matches('"'));
        let written = serde_json::to_string(&loaded.settings).unwrap().replace(&base, "");
        let written: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_defaults("", &serde_json::to_value(Settings::default()).unwrap(), &written);
    }

    /// Where there is a default, the reference names it; lists of tables show an example.
    fn assert_defaults(name: &str, default: &serde_json::Value, written: &serde_json::Value) {
        match default {
            serde_json::Value::Object(members) => {
                for (key, member) in members {
                    assert_defaults(&format!("{name}.{key}"), member, &written[key]);
                }
            }
            serde_json::Value::Null => {}
            serde_json::Value::String(text) if text.is_empty() => {}
            serde_json::Value::Array(entries) if entries.is_empty() => {}
            _ => assert_eq!(written, default, "{name}"),
        }
    }

    #[test]
    fn as_it_is_written_it_sets_nothing() {
        let (entries, problems) = file::parse(Path::new("keyward.toml"), REFERENCE, &leaves());
        assert!(entries.is_empty() && problems.is_empty(), "{entries:?} {problems:?}");
    }
}
