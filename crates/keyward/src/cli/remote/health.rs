//! `keyward health`: for containers and load balancers without an HTTP client.

use clap::Args;

use super::session::RemoteArgs;
use crate::cli::exit::{Done, Failure};

/// The internal listener when none is named.
const DEFAULT_URL: &str = "http://127.0.0.1:8789";

/// Ask a server's internal listener whether it lives, or is ready (exit code 0 or 3)
#[derive(Debug, Args)]
pub(crate) struct HealthCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Ask whether it is ready to serve, not only alive
    #[arg(long)]
    ready: bool,
}

impl HealthCommand {
    pub(crate) async fn run(self) -> Done {
        let (client, output) = self.remote.anonymous(DEFAULT_URL)?;
        let path = if self.ready { "/readyz" } else { "/livez" };
        let (status, text) = client.probe(path).await?;
        output.say(&format!("{path}: {status} {text}"));
        if status == 200 { Ok(()) } else { Err(Failure::no()) }
    }
}
