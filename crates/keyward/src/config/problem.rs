//! What is wrong with a configuration, and what to do about it.

use std::fmt;

/// One thing that must be changed, with the way to change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What is wrong, and where.
    pub(crate) problem: String,
    /// What to do.
    pub(crate) fix: String,
}

impl Problem {
    pub(crate) fn new(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { problem: problem.into(), fix: fix.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  fix: {}", self.problem, self.fix)
    }
}

/// The configuration cannot be used: every problem found, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(pub(crate) Vec<Problem>);

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            let line_end = if position == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl std::error::Error for Problem {}

/// Likenesses below which a suggestion would only confuse.
const LEAST_JARO_WINKLER: f64 = 0.8;
const LEAST_DAMERAU: f64 = 0.6;

/// The most similar of the known names, if one is similar enough.
pub(crate) fn did_you_mean<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .filter_map(|candidate| Some((likeness(name, candidate)?, candidate)))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// One measure is good at long names with a common beginning, the other at swapped letters.
fn likeness(a: &str, b: &str) -> Option<f64> {
    let prefix = Some(strsim::jaro_winkler(a, b)).filter(|found| *found >= LEAST_JARO_WINKLER);
    let swaps = strsim::normalized_damerau_levenshtein(a, b);
    let swaps = Some(swaps).filter(|found| *found >= LEAST_DAMERAU);
    prefix.into_iter().chain(swaps).max_by(f64::total_cmp)
}
