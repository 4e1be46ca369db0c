//! `keyward scopes`.

use clap::{Args, Subcommand};
use keyward_api::catalog::{CatalogScope, CatalogScopes, SuggestScopes, SuggestedScopes};
use keyward_api::operation::{LIST_SCOPES, SUGGEST_SCOPES};

use super::client::Call;
use super::session::RemoteArgs;
use crate::cli::exit::Done;
use crate::cli::output::{Listed, or_nothing};

/// The product's scopes, and the fewest that some calls need
#[derive(Debug, Args)]
pub(crate) struct ScopesCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all scopes a key can carry
    List,
    /// The fewest scopes that allow some calls, such as "POST /v1/reports/build"
    For {
        /// The calls, each a method, a blank and a path
        #[arg(required = true)]
        calls: Vec<String>,
    },
}

impl Listed for CatalogScope {
    const HEADINGS: &'static [&'static str] = &["SCOPE", "AREA", "LEVEL", "DESCRIPTION"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.area.clone(),
            or_nothing(self.level.as_ref()),
            self.description.clone(),
        ]
    }
}

impl ScopesCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        match self.action {
            Action::List => {
                let all: CatalogScopes = session.call(Call::to(&LIST_SCOPES)).await?;
                session.output.list(&all.data)
            }
            Action::For { calls } => {
                let call = Call::to(&SUGGEST_SCOPES).body(&SuggestScopes { calls })?;
                session.output.record(&session.call::<SuggestedScopes>(call).await?)
            }
        }
    }
}
