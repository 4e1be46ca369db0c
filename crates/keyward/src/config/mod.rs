//! Settings: read from defaults, a file, the environment and flags, each over the one before.

pub(crate) mod acme;
mod args;
mod file;
pub(crate) mod forward_auth;
mod layers;
mod leaf;
pub(crate) mod private_file;
mod problem;
mod production;
mod reference;
pub(crate) mod secrets;
pub(crate) mod settings;
mod show;
pub(crate) mod tls;
mod units;
pub(crate) mod upstream;

pub(crate) use acme::acme_problems;
pub(crate) use args::ConfigArgs;
pub(crate) use layers::{Loaded, Origin, Surroundings, load};
pub(crate) use problem::{ConfigError, Problem, did_you_mean};
pub(crate) use production::{Facts, listening_problems, production_problems};
pub(crate) use reference::REFERENCE;
pub(crate) use secrets::DeploymentSecrets;
pub(crate) use settings::Settings;
pub(crate) use show::{Shown, shown};
pub(crate) use units::Millis;
