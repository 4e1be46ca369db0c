//! How a command ends: what it says on stderr, and its exit code.

use std::fmt;
use std::process::ExitCode;

use keyward_core::{Error, ErrorCode};
use keyward_store::StoreError;

use crate::config::{ConfigError, Problem};
use crate::node::signals::Cut;

/// Exit codes. `keyward help exit-codes` prints this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The operation failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The answer is no.
    No,
    /// Not authenticated.
    Unauthenticated,
    /// Not permitted.
    Forbidden,
    /// Not found.
    NotFound,
    /// The state does not allow it.
    Conflict,
    /// Too many requests.
    RateLimited,
    /// Something it depends on is away.
    Unavailable,
    /// A file cannot be made.
    CannotCreate,
    /// Reading or writing failed.
    Io,
    /// Settings or schema must change first.
    Config,
    /// Stopped by the user, or told twice to stop.
    Interrupted,
}

impl Exit {
    /// Every code but that of success.
    const ALL: [Self; 13] = [
        Self::Failed,
        Self::Usage,
        Self::No,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::RateLimited,
        Self::Unavailable,
        Self::CannotCreate,
        Self::Io,
        Self::Config,
        Self::Interrupted,
    ];

    /// The number that the process ends with.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::No => 3,
            Self::Unauthenticated => 4,
            Self::Forbidden => 5,
            Self::NotFound => 6,
            Self::Conflict => 7,
            Self::RateLimited => 8,
            Self::Unavailable => 69,
            Self::CannotCreate => 73,
            Self::Io => 74,
            Self::Config => 78,
            Self::Interrupted => 130,
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Failed => "the operation failed",
            Self::Usage => "the command line is wrong",
            Self::No => "the answer is no: not ready, not valid, not allowed, different",
            Self::Unauthenticated => "not authenticated",
            Self::Forbidden => "not permitted",
            Self::NotFound => "not found",
            Self::Conflict => "the state of the record does not allow it",
            Self::RateLimited => "too many requests",
            Self::Unavailable => "server or database away; trying again may help",
            Self::CannotCreate => "a file or the data directory cannot be made",
            Self::Io => "reading or writing failed",
            Self::Config => "settings or schema must change first; a restart does not help",
            Self::Interrupted => {
                "stopped by the user, or told twice to stop: what was in flight was cut"
            }
        }
    }

    /// The table of codes.
    pub(crate) fn table() -> String {
        let success = "  0  success, or a graceful stop\n".to_owned();
        let line = |exit: &Self| format!("{:>3}  {}\n", exit.code(), exit.meaning());
        Self::ALL.iter().map(line).fold(success, |table, line| table + &line)
    }

    const fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 | 410 | 412 => Self::Conflict,
            429 => Self::RateLimited,
            502..=504 => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked to: what, and what next.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    next: Option<String>,
}

/// How a command ends.
pub(crate) type Done<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure without advice.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), next: None }
    }

    /// A wrong command line.
    pub(crate) fn usage(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what).advising(next)
    }

    /// The answer was printed, and it is no.
    pub(crate) const fn no() -> Self {
        Self { exit: Exit::No, what: String::new(), next: None }
    }

    /// Says what to do next.
    #[must_use]
    pub(crate) fn advising(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The refusal of a server.
    pub(crate) fn answered(status: u16, what: impl Into<String>) -> Self {
        Self::new(Exit::of_status(status), what)
    }

    /// A file that could not be read or written.
    pub(crate) fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(Exit::Io, format!("{}: {error}", path.display()))
    }

    /// The code to end with.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        // each problem comes with its own fix
        Self::new(Exit::Config, error.to_string())
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::new(Exit::Config, problem.problem).advising(problem.fix)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(exit_of_store(&error), error.to_string())
    }
}

const fn exit_of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::Refused(_) | StoreError::NewerSchema { .. } => Exit::Config,
        StoreError::Unavailable(_)
        | StoreError::Busy(_)
        | StoreError::Timeout { .. }
        | StoreError::Conflict(_)
        | StoreError::CommitUnknown(_) => Exit::Unavailable,
        StoreError::StorageFull(_) | StoreError::Corrupt { .. } => Exit::Io,
        StoreError::UniqueViolation { .. } => Exit::Conflict,
        _ => Exit::Failed,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = keyward_api::error::status(error.code()).as_u16();
        let context = error.internal_context().map(|text| format!(" ({text})"));
        let what = format!("{}{}", error.public(), context.unwrap_or_default());
        let exit = match error.code() {
            ErrorCode::Unavailable => Exit::Unavailable,
            _ => Exit::of_status(status),
        };
        Self::new(exit, what)
    }
}

impl From<Cut> for Failure {
    fn from(cut: Cut) -> Self {
        Self::new(Exit::Interrupted, cut.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let what = format!("{error:#}");
        let causes = || error.chain();
        if causes().any(<dyn std::error::Error>::is::<ConfigError>) {
            return Self::new(Exit::Config, what);
        }
        if let Some(error) = causes().find_map(|cause| cause.downcast_ref::<StoreError>()) {
            return Self::new(exit_of_store(error), what);
        }
        if causes().any(<dyn std::error::Error>::is::<Cut>) {
            return Self::new(Exit::Interrupted, what);
        }
        let io = causes().find_map(|cause| cause.downcast_ref::<std::io::Error>());
        match io.map(std::io::Error::kind) {
            Some(std::io::ErrorKind::AddrInUse) => {
                let next = "stop what listens there, or name another address in the settings";
                Self::new(Exit::Unavailable, what).advising(next)
            }
            Some(_) => Self::new(Exit::Io, what),
            None => Self::new(Exit::Failed, what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_exit_codes() {
        insta::assert_snapshot!(Exit::table());
    }

    #[test]
    fn answers_of_a_server_have_their_codes() {
        let table = [(401, 4), (403, 5), (404, 6), (409, 7), (429, 8), (503, 69), (422, 1)];
        for (status, code) in table {
            assert_eq!(Failure::answered(status, "").exit().code(), code, "{status}");
        }
    }

    #[test]
    fn refusals_to_start_are_78_and_missing_dependencies_69() {
        let refused = anyhow::Error::new(StoreError::NewerSchema { found: 9, known: 2 });
        assert_eq!(Failure::from(refused.context("opening")).exit(), Exit::Config);
        let away = anyhow::Error::new(StoreError::Unavailable("gone".to_owned()));
        assert_eq!(Failure::from(away).exit(), Exit::Unavailable);
        let settings = ConfigError::from(Problem::new("a", "b"));
        assert_eq!(Failure::from(anyhow::Error::new(settings)).exit(), Exit::Config);
    }
}
