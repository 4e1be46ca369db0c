//! Named servers of this user: `~/.config/keyward/config.toml`. It names token files, no tokens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use crate::cli::exit::{Done, Exit, Failure};
use crate::cli::output::{Format, Listed, Output, or_nothing};
use crate::config::private_file::{self, Readers};
use crate::config::{Surroundings, did_you_mean};

/// The most contexts kept.
const MAX_CONTEXTS: usize = 100;

/// The servers a user works with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Contexts {
    current: Option<String>,
    contexts: BTreeMap<String, Context>,
}

/// One server, and who one is there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Context {
    /// The server.
    pub(super) url: String,
    /// A file with the admin token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    /// The tenant that is meant when none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
}

impl Contexts {
    /// What is on file, nothing when there is no file.
    pub(super) fn read(surroundings: &Surroundings) -> Done<Self> {
        let path = match place(surroundings) {
            Ok(path) if path.exists() => path,
            _ => return Ok(Self::default()),
        };
        let text = private_file::read(&path, Readers::Owner, "the contexts file")?;
        toml::from_str(&text).map_err(|error| {
            let text = format!("the contexts file {}: {}", path.display(), error.message());
            Failure::new(Exit::Config, text).advising("correct it, or remove it")
        })
    }

    /// The context of this name, or the one in use.
    pub(super) fn get(&self, name: Option<&str>) -> Done<Option<&Context>> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        self.contexts.get(name).map(Some).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Failure {
        let known = self.contexts.keys().map(String::as_str);
        let next = did_you_mean(name, known).map_or_else(
            || "keyward context list".to_owned(),
            |known| format!("did you mean {known}?"),
        );
        Failure::new(Exit::NotFound, format!("there is no context {name}")).advising(next)
    }

    fn write(&self, surroundings: &Surroundings) -> Done {
        let path = place(surroundings)?;
        let text = toml::to_string(self).map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        private_file::replace(&path, &text).map_err(|error| Failure::io(&path, &error))
    }
}

fn place(surroundings: &Surroundings) -> Done<PathBuf> {
    let home = surroundings.config_home().ok_or_else(|| {
        let text = "there is no home directory to keep contexts in";
        Failure::new(Exit::CannotCreate, text).advising("set HOME or XDG_CONFIG_HOME")
    })?;
    Ok(home.join("keyward/config.toml"))
}

/// Named servers of this user
#[derive(Debug, Args)]
pub(crate) struct ContextCommand {
    /// How the result looks
    #[arg(long, global = true, value_enum)]
    output: Option<Format>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all contexts
    List,
    /// Make a context the one in use
    Use {
        /// Its name
        name: String,
    },
    /// Add a context, or change it, and use it
    Add {
        /// Its name
        name: String,
        /// The server
        #[arg(long)]
        url: String,
        /// A file with the admin token
        #[arg(long)]
        token_file: Option<PathBuf>,
        /// The tenant that is meant when none is named
        #[arg(long)]
        tenant: Option<String>,
    },
}

#[derive(Serialize)]
struct Row {
    name: String,
    current: bool,
    #[serde(flatten)]
    context: Context,
}

impl Listed for Row {
    const HEADINGS: &'static [&'static str] = &["", "NAME", "URL", "TOKEN FILE", "TENANT"];

    fn cells(&self) -> Vec<String> {
        let file = self.context.token_file.as_deref().map(Path::display);
        vec![
            if self.current { "*" } else { "" }.to_owned(),
            self.name.clone(),
            self.context.url.clone(),
            or_nothing(file),
            or_nothing(self.context.tenant.as_ref()),
        ]
    }
}

impl ContextCommand {
    pub(crate) fn run(self) -> Done {
        let surroundings = Surroundings::of_process();
        let mut contexts = Contexts::read(&surroundings)?;
        match self.action {
            Action::List => {
                let current = contexts.current;
                let row = |(name, context): (String, Context)| Row {
                    current: current.as_deref() == Some(name.as_str()),
                    name,
                    context,
                };
                let rows: Vec<Row> = contexts.contexts.into_iter().map(row).collect();
                return Output::new(self.output, false).list(&rows);
            }
            Action::Use { name } => {
                contexts.get(Some(&name))?;
                contexts.current = Some(name);
            }
            Action::Add { name, url, token_file, tenant } => {
                if contexts.contexts.len() >= MAX_CONTEXTS {
                    return Err(Failure::usage("there are 100 contexts", "remove some by hand"));
                }
                let absolute = token_file.map(std::path::absolute).transpose();
                let token_file = absolute.map_err(|e| Failure::io(Path::new("."), &e))?;
                contexts.contexts.insert(name.clone(), Context { url, token_file, tenant });
                contexts.current = Some(name);
            }
        }
        contexts.write(&surroundings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_kept_privately() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let variables = [("XDG_CONFIG_HOME", home.path().to_str().unwrap())];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let surroundings = Surroundings { variables: variables.into(), ..Surroundings::default() };
        let mut contexts = Contexts::read(&surroundings).unwrap();
        assert!(contexts.get(None).unwrap().is_none());
        let context = Context { url: "http://127.0.0.1:1".to_owned(), ..Context::default() };
        contexts.contexts.insert("local".to_owned(), context);
        contexts.current = Some("local".to_owned());
        contexts.write(&surroundings).unwrap();
        contexts.write(&surroundings).unwrap();
        let file = home.path().join("keyward/config.toml");
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Contexts::read(&surroundings).unwrap();
        assert_eq!(read.get(None).unwrap().unwrap().url, "http://127.0.0.1:1");
        let refusal = read.get(Some("locla")).unwrap_err();
        assert!(refusal.to_string().contains("did you mean local?"), "{refusal}");
    }
}
