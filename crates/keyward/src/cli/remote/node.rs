//! `keyward node`.

use clap::{Args, Subcommand};
use keyward_api::fence::{Fence, FenceStatus};
use keyward_api::nodes::{Node, Nodes};
use keyward_api::operation::{GET_CHANGE, GET_TENANT_CHANGE, LIST_NODES};

use super::client::Call;
use super::session::RemoteArgs;
use crate::cli::exit::{Done, Exit, Failure};
use crate::cli::output::Listed;

/// Nodes: the processes that may decide from memory, and what has reached them
#[derive(Debug, Args)]
pub(crate) struct NodeCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all nodes
    List,
    /// Show how far a change has reached; exits with 1 while it propagates
    Change {
        /// The epoch in the `fence` of the answer to the change
        epoch: u64,
        /// Ask for any tenant's change; needs a token of the operator
        #[arg(long)]
        any_tenant: bool,
    },
}

impl Listed for Node {
    const HEADINGS: &'static [&'static str] =
        &["ID", "ROLES", "VERSION", "APPLIED", "STARTED", "RENEWED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.roles.join(", "),
            self.version.clone(),
            self.applied_epoch.to_string(),
            self.started_at.to_string(),
            self.renewed_at.to_string(),
        ]
    }
}

impl NodeCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        match self.action {
            Action::List => {
                let nodes: Nodes = session.call(Call::to(&LIST_NODES)).await?;
                session.output.list(&nodes.nodes)
            }
            Action::Change { epoch, any_tenant } => {
                let call = if any_tenant {
                    Call::to(&GET_CHANGE)
                } else {
                    session.on_tenant(&GET_TENANT_CHANGE).await?
                };
                let fence: Fence = session.call(call.at("epoch", &epoch)).await?;
                session.output.record(&fence)?;
                match fence.status {
                    FenceStatus::Effective => Ok(()),
                    FenceStatus::Propagating => {
                        Err(Failure::new(Exit::Failed, "the change still propagates".to_owned()))
                    }
                }
            }
        }
    }
}
