//! `keyward whoami`.

use clap::Args;
use keyward_api::operation::WHOAMI;
use keyward_api::whoami::Whoami;

use super::client::Call;
use super::session::RemoteArgs;
use crate::cli::exit::Done;

/// Show what the admin token is and may do
#[derive(Debug, Args)]
pub(crate) struct WhoamiCommand {
    #[command(flatten)]
    remote: RemoteArgs,
}

impl WhoamiCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        session.output.record(&session.call::<Whoami>(Call::to(&WHOAMI)).await?)
    }
}
