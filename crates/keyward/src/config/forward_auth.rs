//! How proxies that ask for decisions are answered.

use std::path::PathBuf;

use keyward_core::Environment;
use serde::{Deserialize, Serialize};

use super::upstream::AssertionAlgorithm;

/// Forward-auth, on the internal listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ForwardAuthSettings {
    /// A file with the secret that proxies send which `gateway.trusted-proxies` does not hold.
    pub(crate) token_file: Option<PathBuf>,
    /// The environments whose keys are accepted at hosts that are not named.
    pub(crate) environments: Vec<Environment>,
    /// The environments whose keys are accepted at some hosts.
    pub(crate) host: Vec<ForwardAuthHost>,
    /// The audience of assertions.
    pub(crate) audience: String,
    /// How assertions are signed.
    pub(crate) assertion: AssertionAlgorithm,
    /// A file with the secret shared with the upstreams (HS256), at least 32 bytes.
    pub(crate) assertion_secret_file: Option<PathBuf>,
}

impl Default for ForwardAuthSettings {
    fn default() -> Self {
        Self {
            token_file: None,
            environments: vec![Environment::Live],
            host: Vec::new(),
            audience: "api".to_owned(),
            assertion: AssertionAlgorithm::default(),
            assertion_secret_file: None,
        }
    }
}

/// A host of a proxy, and the environments served there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ForwardAuthHost {
    /// The name in the requests of callers, with or without a port.
    pub(crate) name: String,
    /// The environments whose keys are accepted there.
    pub(crate) environments: Vec<Environment>,
}
