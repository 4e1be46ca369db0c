//! `keyward config`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, json};

use super::settings as load_checked;
use crate::cli::exit::{Done, Exit, Failure};
use crate::cli::output::{Format, Listed, Output, print};
use crate::config::settings::DeploymentEnvironment;
use crate::config::{
    self, ConfigArgs, ConfigError, Facts, REFERENCE, Shown, production_problems, secrets, shown,
};
use crate::node::SystemClock;

/// Settings: write a file, check them, show where each comes from
#[derive(Debug, Args)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a settings file that shows every setting with its default; `-` prints it
    Init {
        /// The new file
        #[arg(default_value = "keyward.toml")]
        file: PathBuf,
        /// Make a file with new secrets instead, for its owner alone
        #[arg(long, value_name = "FILE")]
        secrets_file: Option<PathBuf>,
    },
    /// Check the settings without starting anything
    Check {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Show the settings in force
    Show {
        /// Where each comes from: default, line of a file, variable or flag
        #[arg(long)]
        origin: bool,
        /// How the result looks
        #[arg(long, value_enum)]
        output: Option<Format>,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

impl Listed for Shown {
    const HEADINGS: &'static [&'static str] = &["SETTING", "VALUE", "ORIGIN"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.value.clone(), self.origin.clone()]
    }
}

impl ConfigCommand {
    pub(crate) fn run(self) -> Done {
        match self.action {
            Action::Init { secrets_file: Some(file), .. } => new_secrets(&file),
            Action::Init { file, .. } if file == Path::new("-") => print(REFERENCE),
            Action::Init { file, .. } => new_settings(&file),
            Action::Check { config } => check(&config),
            Action::Show { origin, output, config } => show(&config, origin, output),
        }
    }
}

fn new_settings(file: &Path) -> Done {
    let mut new = OpenOptions::new();
    let opened = new.write(true).create_new(true).mode(0o644).open(file);
    let written = opened.and_then(|mut open| open.write_all(REFERENCE.as_bytes()));
    written.map_err(|error| cannot_create(file, &error))?;
    Output::new(None, false).say(&format!("wrote {}; every line is a default", file.display()));
    Ok(())
}

fn new_secrets(file: &Path) -> Done {
    if !secrets::create(file, &SystemClock)? {
        return Err(cannot_create(file, &ErrorKind::AlreadyExists.into()));
    }
    let text = format!("wrote {}; keep a copy in a safe place", file.display());
    Output::new(None, false).say(&text);
    Ok(())
}

fn cannot_create(file: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Exit::CannotCreate, format!("{}: {error}", file.display()));
    match error.kind() {
        ErrorKind::AlreadyExists => failure.advising("name another file, or move that one away"),
        _ => failure,
    }
}

fn check(args: &ConfigArgs) -> Done {
    let loaded = load_checked(args)?;
    if loaded.settings.environment == DeploymentEnvironment::Production {
        let problems = production_problems(&loaded.settings, Facts { demo_tenants: false });
        if !problems.is_empty() {
            return Err(ConfigError(problems).into());
        }
    }
    let file = loaded.file.map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    Output::new(None, false).say(&format!("the settings are good ({file})"));
    Ok(())
}

fn show(args: &ConfigArgs, origin: bool, output: Option<Format>) -> Done {
    let all = shown(&config::load(args)?);
    let output = Output::new(output, false);
    if origin {
        return output.list(&all);
    }
    let values: Map<_, _> = all.into_iter().map(|one| (one.name, json!(one.value))).collect();
    output.record(&values)
}
