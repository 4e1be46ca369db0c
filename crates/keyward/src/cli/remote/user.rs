//! `keyward user`.

use clap::{Args, Subcommand};
use keyward_api::operation::{CREATE_USER, LIST_USERS};
use keyward_api::users::{CreateUser, User, UserKind};

use super::client::Call;
use super::session::{Limit, RemoteArgs};
use crate::cli::exit::Done;
use crate::cli::output::{Listed, or_nothing};

/// People, known to the whole deployment
#[derive(Debug, Args)]
pub(crate) struct UserCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a person, without a membership yet
    Create {
        /// Their address
        #[arg(long)]
        email: String,
        /// Their name
        #[arg(long)]
        name: String,
    },
    /// Show all people
    List {
        #[command(flatten)]
        limit: Limit,
    },
}

/// The word for a kind of user.
pub(super) const fn kind(kind: UserKind) -> &'static str {
    match kind {
        UserKind::Person => "person",
        UserKind::Service => "service",
    }
}

impl Listed for User {
    const HEADINGS: &'static [&'static str] = &["ID", "KIND", "EMAIL", "NAME", "CREATED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            kind(self.kind).to_owned(),
            or_nothing(self.email.as_ref()),
            self.name.clone(),
            self.created_at.to_string(),
        ]
    }
}

impl UserCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        let output = session.output;
        match self.action {
            Action::Create { email, name } => {
                let call = Call::to(&CREATE_USER).body(&CreateUser { email, name })?;
                output.record(&session.call::<User>(call).await?)
            }
            Action::List { limit } => {
                let pages = || Ok(Call::to(&LIST_USERS));
                output.list::<User>(&session.list(pages, limit).await?)
            }
        }
    }
}
