//! The four environments a key can belong to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a key is valid. Its word in a token comes from the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Environment {
    /// Real customers, real data.
    Live = 0,
    /// The last rehearsal before live.
    Staging = 1,
    /// For developers.
    Development = 2,
    /// For automated tests and the sandbox.
    Test = 3,
}

impl Environment {
    /// All four, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Live, Self::Staging, Self::Development, Self::Test];

    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Staging => "staging",
            Self::Development => "development",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text named no environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an environment: use live, staging, development or test")]
pub struct UnknownEnvironment;

impl FromStr for Environment {
    type Err = UnknownEnvironment;

    fn from_str(text: &str) -> Result<Self, UnknownEnvironment> {
        Self::ALL.into_iter().find(|e| e.as_str() == text).ok_or(UnknownEnvironment)
    }
}

/// A set of environments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentSet(u8);

impl EnvironmentSet {
    /// All four.
    pub const ALL: Self = Self(0b1111);

    /// Whether the environment is in the set.
    pub const fn contains(self, environment: Environment) -> bool {
        self.0 & (1 << environment as u8) != 0
    }

    /// The members, in their order.
    pub fn iter(self) -> impl Iterator<Item = Environment> {
        Environment::ALL.into_iter().filter(move |e| self.contains(*e))
    }
}

impl FromIterator<Environment> for EnvironmentSet {
    fn from_iter<I: IntoIterator<Item = Environment>>(members: I) -> Self {
        Self(members.into_iter().fold(0, |bits, e| bits | (1 << e as u8)))
    }
}
