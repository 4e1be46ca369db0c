//! The layers and their order, with the origin of every setting kept.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::args::ConfigArgs;
use super::file;
use super::leaf::{ENV_PREFIX, Leaf, leaves};
use super::problem::{ConfigError, Problem, did_you_mean};
use super::settings::Settings;

/// Variables of ours that are no settings of a deployment: where the settings are, and what the
/// commands that talk to a server need.
const OTHER_VARIABLES: [&str; 5] =
    [CONFIG_VARIABLE, "KEYWARD_CONTEXT", "KEYWARD_TENANT", "KEYWARD_TOKEN_FILE", "KEYWARD_URL"];
const CONFIG_VARIABLE: &str = "KEYWARD_CONFIG";
/// Variables that begin so are for the tests of this repository.
const TEST_PREFIX: &str = "KEYWARD_TEST_";

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// Settings as they are in force, and where each comes from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The settings.
    pub(crate) settings: Settings,
    /// The origin of every setting, by its name.
    pub(crate) origins: BTreeMap<String, Origin>,
    /// The file that was read, if there was one.
    pub(crate) file: Option<PathBuf>,
}

/// What of the process the settings depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The environment variables.
    pub(crate) variables: BTreeMap<String, String>,
    /// The folder that `keyward.toml` is looked for in.
    pub(crate) folder: PathBuf,
}

impl Surroundings {
    /// Those of this process. A variable that is not UTF-8 is passed over unless it is ours.
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        Self { variables, folder: PathBuf::new() }
    }

    /// `$XDG_CONFIG_HOME`, or `.config` in the home directory.
    pub(crate) fn config_home(&self) -> Option<PathBuf> {
        let named = self.variables.get("XDG_CONFIG_HOME").filter(|path| !path.is_empty());
        let home = || Some(Path::new(self.variables.get("HOME")?).join(".config"));
        named.map(PathBuf::from).or_else(home)
    }
}

/// The settings in force in this process.
pub(crate) fn load(args: &ConfigArgs) -> Result<Loaded, ConfigError> {
    load_in(args, &Surroundings::of_process())
}

/// The settings in force in given surroundings.
pub(crate) fn load_in(
    args: &ConfigArgs,
    surroundings: &Surroundings,
) -> Result<Loaded, ConfigError> {
    let leaves = leaves();
    let mut layers = Layers::new(&leaves);
    let file = named_file(args, surroundings);
    if let Some(path) = &file {
        layers.read_file(path);
    }
    layers.read_variables(surroundings);
    layers.read_flags(args);
    layers.finish(file)
}

fn named_file(args: &ConfigArgs, surroundings: &Surroundings) -> Option<PathBuf> {
    let variable = || {
        let path = surroundings.variables.get(CONFIG_VARIABLE)?;
        (!path.is_empty()).then(|| PathBuf::from(path))
    };
    let found = || {
        file::places(surroundings.config_home().as_deref())
            .into_iter()
            .map(|place| surroundings.folder.join(place))
            .find(|place| place.is_file())
    };
    args.config.clone().or_else(variable).or_else(found)
}

struct Layers<'a> {
    leaves: &'a [Leaf],
    values: BTreeMap<String, (Value, Origin)>,
    problems: Vec<Problem>,
}

impl<'a> Layers<'a> {
    const fn new(leaves: &'a [Leaf]) -> Self {
        Self { leaves, values: BTreeMap::new(), problems: Vec::new() }
    }

    fn read_file(&mut self, path: &Path) {
        let text = match file::read(path) {
            Ok(text) => text,
            Err(problem) => return self.problems.push(problem),
        };
        let (entries, problems) = file::parse(path, &text, self.leaves);
        self.problems.extend(problems);
        let folder = path.parent().unwrap_or(Path::new(""));
        for mut entry in entries {
            file::rebase(&entry.name, &mut entry.value, folder);
            let origin = Origin::File(path.to_owned(), entry.line);
            self.set(&entry.name, entry.value, origin);
        }
    }

    fn read_variables(&mut self, surroundings: &Surroundings) {
        for (variable, text) in &surroundings.variables {
            let ours = variable.starts_with(ENV_PREFIX) && !variable.starts_with(TEST_PREFIX);
            if !ours || OTHER_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            match self.leaves.iter().find(|leaf| leaf.env() == *variable) {
                Some(leaf) => {
                    let texts = std::slice::from_ref(text);
                    self.read_text(leaf, texts, Origin::Variable(variable.clone()));
                }
                None => self.unknown_variable(variable),
            }
        }
    }

    fn unknown_variable(&mut self, variable: &str) {
        let names: Vec<String> = self.leaves.iter().map(Leaf::env).collect();
        let known = names.iter().map(String::as_str).chain(OTHER_VARIABLES);
        let fix = did_you_mean(variable, known).map_or_else(
            || format!("unset {variable}; `keyward config show` lists all settings"),
            |known| format!("did you mean {known}?"),
        );
        let text = format!("env {variable}: there is no such setting");
        self.problems.push(Problem::new(text, fix));
    }

    fn read_flags(&mut self, args: &ConfigArgs) {
        for leaf in self.leaves {
            if let Some(texts) = args.flags.get(&leaf.name) {
                self.read_text(leaf, texts, Origin::Flag(leaf.flag()));
            }
        }
        // the command line knows its flags; a program may name any
        let names = || self.leaves.iter().map(|leaf| leaf.name.as_str());
        let unknown = args.flags.keys().filter(|name| !names().any(|known| known == *name));
        let unknown = unknown.map(|name| {
            let fix = did_you_mean(name, names()).map_or_else(
                || "`keyward config show` lists all settings".to_owned(),
                |known| format!("did you mean {known}?"),
            );
            Problem::new(format!("{name}: there is no such setting"), fix)
        });
        let unknown: Vec<Problem> = unknown.collect();
        self.problems.extend(unknown);
    }

    fn read_text(&mut self, leaf: &Leaf, texts: &[String], origin: Origin) {
        match leaf.read(texts) {
            Ok(value) => self.set(&leaf.name, value, origin),
            Err(text) => self.refuse(&leaf.name, &origin, &text),
        }
    }

    /// Puts a setting over the one before, if it fits the tree alone.
    fn set(&mut self, name: &str, value: Value, origin: Origin) {
        let mut alone = Table::new();
        put(&mut alone, name, value.clone());
        match Settings::deserialize_table(alone) {
            Ok(_) => {
                self.values.insert(name.to_owned(), (value, origin));
            }
            Err(text) => self.refuse(name, &origin, &text),
        }
    }

    fn refuse(&mut self, name: &str, origin: &Origin, text: &str) {
        let fix = suggestion(text).unwrap_or_else(|| {
            "correct the value; `keyward config init` shows every setting with its default"
                .to_owned()
        });
        // TOML's messages have several lines; the first says it all
        let first = text.lines().next().unwrap_or_default();
        self.problems.push(Problem::new(format!("{origin}: {name}: {first}"), fix));
    }

    fn finish(self, file: Option<PathBuf>) -> Result<Loaded, ConfigError> {
        if !self.problems.is_empty() {
            return Err(ConfigError(self.problems));
        }
        let mut table = Table::new();
        let mut origins: BTreeMap<String, Origin> =
            self.leaves.iter().map(|leaf| (leaf.name.clone(), Origin::Default)).collect();
        for (name, (value, origin)) in self.values {
            put(&mut table, &name, value);
            origins.insert(name, origin);
        }
        let settings = Settings::deserialize_table(table)
            .map_err(|text| Problem::new(text, "correct the settings that this names"))?;
        Ok(Loaded { settings, origins, file })
    }
}

impl Settings {
    fn deserialize_table(table: Table) -> Result<Self, String> {
        table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
    }
}

/// Puts a value at its dotted name.
fn put(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            table.insert(name.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The name meant by a message like "unknown field `ulr`, expected one of `url`, `audience`".
fn suggestion(message: &str) -> Option<String> {
    let list = message.strip_prefix("unknown field ").or(message.strip_prefix("unknown variant "));
    let mut names = list?.split('`').skip(1).step_by(2);
    let written = names.next()?;
    did_you_mean(written, names).map(|known| format!("did you mean {known}?"))
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
