//! The command line: one binary that serves, and that talks to a server.

mod exit;
mod local;
mod log;
mod output;
mod remote;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum as _};
use clap_complete::Shell;
use serde_json::json;

use exit::{Done, Exit, Failure};
use local::{
    AdminCommand, BackupCommand, ConfigCommand, DevCommand, DoctorCommand, MigrateCommand,
    OpenapiCommand, ServeCommand,
};
use output::{Output, print, print_json};
use remote::{
    AdminTokenCommand, AuditCommand, ContextCommand, DemoKeyCommand, HealthCommand, KeyCommand,
    MemberCommand, NodeCommand, RevocationsCommand, ScopesCommand, ServiceAccountCommand,
    TenantCommand, UserCommand, WhoamiCommand,
};

const EXAMPLES: &str = "Start here:
  keyward dev                                   try everything on this machine
  keyward serve --profile profiles/acme         run a node
  keyward key create --tenant T --name N --owner O --scopes a:read > token
  keyward config show --origin                  every setting and where it comes from
  keyward help exit-codes                       what exit codes mean";

/// A product's public API behind scoped keys, in one binary
#[derive(Debug, Parser)]
#[command(name = "keyward", arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    /// Print the version
    #[arg(short = 'V', long)]
    version: bool,
    /// Print the version as JSON
    #[arg(long, requires = "version")]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(ServeCommand),
    Dev(DevCommand),
    Key(KeyCommand),
    Tenant(TenantCommand),
    User(UserCommand),
    Member(MemberCommand),
    ServiceAccount(ServiceAccountCommand),
    Scopes(ScopesCommand),
    Audit(AuditCommand),
    AdminToken(AdminTokenCommand),
    DemoKey(DemoKeyCommand),
    Node(NodeCommand),
    Whoami(WhoamiCommand),
    Context(ContextCommand),
    Health(HealthCommand),
    Admin(AdminCommand),
    Config(ConfigCommand),
    Migrate(MigrateCommand),
    Backup(BackupCommand),
    Revocations(RevocationsCommand),
    Doctor(DoctorCommand),
    Openapi(OpenapiCommand),
    /// Print a completion script for a shell
    Completion {
        /// bash, zsh, fish, powershell or elvish
        shell: String,
    },
    /// What exit codes mean
    #[command(after_help = Exit::table())]
    ExitCodes,
}

/// Runs the command that the arguments of this process name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => {
            let wrong = refusal.use_stderr();
            // nobody listens when this fails
            let _ = refusal.print();
            return if wrong { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                Output::new(None, false).say(&format!("keyward: {text}"));
            }
            failure.exit().into()
        }
    }
}

impl Cli {
    fn run(self) -> Done {
        match self.command {
            _ if self.version => version(self.json),
            Some(command) => command.run(),
            None => print(&Self::command().render_help().to_string()),
        }
    }
}

fn version(as_json: bool) -> Done {
    let version = env!("CARGO_PKG_VERSION");
    if !as_json {
        return print(&format!("keyward {version}\n"));
    }
    let commit = option_env!("KEYWARD_COMMIT");
    let built = option_env!("KEYWARD_BUILD_DATE");
    print_json(&json!({ "name": "keyward", "version": version, "commit": commit, "built": built }))
}

impl Command {
    fn run(self) -> Done {
        match self {
            Self::Serve(command) => on_all_cores(command.run()),
            Self::Dev(command) => on_all_cores(command.run()),
            Self::Config(command) => command.run(),
            Self::Context(command) => command.run(),
            Self::Openapi(command) => command.run(),
            Self::Completion { shell } => completion(&shell),
            Self::ExitCodes => print(&Exit::table()),
            other => runtime(tokio::runtime::Builder::new_current_thread())?
                .block_on(Box::pin(other.run_on_one_core())),
        }
    }

    async fn run_on_one_core(self) -> Done {
        match self {
            Self::Key(command) => command.run().await,
            Self::Tenant(command) => command.run().await,
            Self::User(command) => command.run().await,
            Self::Member(command) => command.run().await,
            Self::ServiceAccount(command) => command.run().await,
            Self::Scopes(command) => command.run().await,
            Self::Audit(command) => command.run().await,
            Self::AdminToken(command) => command.run().await,
            Self::DemoKey(command) => command.run().await,
            Self::Node(command) => command.run().await,
            Self::Whoami(command) => command.run().await,
            Self::Health(command) => command.run().await,
            Self::Admin(command) => command.run().await,
            Self::Migrate(command) => command.run().await,
            Self::Backup(command) => command.run().await,
            Self::Revocations(command) => command.run().await,
            Self::Doctor(command) => command.run().await,
            Self::Serve(_)
            | Self::Dev(_)
            | Self::Config(_)
            | Self::Context(_)
            | Self::Openapi(_)
            | Self::Completion { .. }
            | Self::ExitCodes => Ok(()),
        }
    }
}

fn on_all_cores(work: impl Future<Output = Done>) -> Done {
    let runtime = runtime(tokio::runtime::Builder::new_multi_thread())?;
    let done = runtime.block_on(work);
    if done.as_ref().is_err_and(|failure| failure.exit() == Exit::Interrupted) {
        // at once: not even what blocks a thread is waited for
        runtime.shutdown_background();
    }
    done
}

fn runtime(mut builder: tokio::runtime::Builder) -> Done<tokio::runtime::Runtime> {
    let built = builder.enable_all().build();
    built.map_err(|error| Failure::new(Exit::Failed, format!("no threads to work with: {error}")))
}

fn completion(shell: &str) -> Done {
    let shell = Shell::from_str(shell, true).map_err(|_| {
        let text = format!("{shell} is no shell with completions");
        Failure::usage(text, "use bash, zsh, fish, powershell or elvish")
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keyward", &mut script);
    print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests;
