//! Settings as flags, one for each leaf of the tree.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::leaf::{Shape, leaves};

/// The flags that are shown in `--help`; the others work too.
const SHOWN: [&str; 6] =
    ["environment", "data-dir", "profile", "store.url", "control.listen", "gateway.listener"];

const HEADING: &str = "Settings (every line of `keyward config show` is also a flag)";

/// What the command line says about settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigArgs {
    /// The settings file.
    pub(crate) config: Option<PathBuf>,
    /// The texts given for each setting, by its name.
    pub(crate) flags: BTreeMap<String, Vec<String>>,
}

impl Args for ConfigArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Settings file [env: KEYWARD_CONFIG]");
        leaves().into_iter().fold(command.arg(file), |command, leaf| {
            let flag = Arg::new(leaf.flag())
                .long(leaf.flag())
                .value_name("VALUE")
                .help_heading(HEADING)
                .help(format!("[env: {}]", leaf.env()))
                .hide(!SHOWN.contains(&leaf.name.as_str()));
            command.arg(match leaf.shape {
                Shape::Switch => {
                    flag.num_args(0..=1).require_equals(true).default_missing_value("true")
                }
                Shape::List => flag.action(ArgAction::Append),
                Shape::Text | Shape::Number => flag,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ConfigArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let unknown = |_| clap::Error::new(ErrorKind::InvalidValue);
        self.config = matches.try_get_one::<PathBuf>("config").map_err(unknown)?.cloned();
        for leaf in leaves() {
            if let Some(texts) = matches.try_get_many::<String>(&leaf.flag()).map_err(unknown)? {
                self.flags.insert(leaf.name, texts.cloned().collect());
            }
        }
        Ok(())
    }
}
