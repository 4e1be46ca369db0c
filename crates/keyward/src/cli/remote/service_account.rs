//! `keyward service-account`.

use clap::{Args, Subcommand};
use keyward_api::operation::{CREATE_SERVICE_ACCOUNT, LIST_SERVICE_ACCOUNTS};
use keyward_api::service_accounts::{CreateServiceAccount, ServiceAccount};

use super::client::Call;
use super::session::{Limit, RemoteArgs};
use crate::cli::exit::Done;
use crate::cli::output::{Listed, or_nothing};

/// Service accounts: owners of keys that outlive everybody's employment
#[derive(Debug, Args)]
pub(crate) struct ServiceAccountCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a service account
    Create {
        /// Its name
        name: String,
        /// Its role: the ceiling of every key it owns
        #[arg(long)]
        role: String,
    },
    /// Show the service accounts
    List {
        #[command(flatten)]
        limit: Limit,
    },
}

impl Listed for ServiceAccount {
    const HEADINGS: &'static [&'static str] = &["ID", "NAME", "ROLE", "CREATED", "LEFT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.role.clone(),
            self.created_at.to_string(),
            or_nothing(self.offboarded_at),
        ]
    }
}

impl ServiceAccountCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        let output = session.output;
        match self.action {
            Action::Create { name, role } => {
                let call = session.on_tenant(&CREATE_SERVICE_ACCOUNT).await?;
                let call = call.body(&CreateServiceAccount { name, role })?;
                output.record(&session.call::<ServiceAccount>(call).await?)
            }
            Action::List { limit } => {
                let tenant = session.tenant().await?;
                let pages = || Ok(Call::to(&LIST_SERVICE_ACCOUNTS).at("tenantId", &tenant));
                output.list::<ServiceAccount>(&session.list(pages, limit).await?)
            }
        }
    }
}
