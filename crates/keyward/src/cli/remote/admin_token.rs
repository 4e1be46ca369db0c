//! `keyward admin-token`.

use clap::{Args, Subcommand};
use keyward_api::admin_tokens::{
    AdminToken, AdminTokenWithSecret, CreateAdminToken, RevokedAdminToken,
};
use keyward_api::operation::{CREATE_ADMIN_TOKEN, LIST_ADMIN_TOKENS, REVOKE_ADMIN_TOKEN};
use keyward_api::scope::ManagementScope;
use keyward_api::secret::ShownOnce;

use super::client::Call;
use super::key::state;
use super::session::{Confirmation, Limit, RemoteArgs, Session};
use crate::cli::exit::{Done, Failure};
use crate::cli::output::{Listed, or_nothing};

/// Admin tokens: credentials for Keyward's own API
#[derive(Debug, Args)]
pub(crate) struct AdminTokenCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create an admin token; the secret alone goes to stdout
    Create(Create),
    /// Show all admin tokens
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Revoke an admin token for ever
    Revoke {
        /// Its id
        id: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// What it is for
    name: String,
    /// What it may do, with commas between
    #[arg(long, value_delimiter = ',', required = true)]
    scopes: Vec<String>,
    /// The role it acts with in the one tenant of --tenant; without, it is for all tenants
    #[arg(long)]
    role: Option<String>,
    /// Days until it stops by itself [default: 90]
    #[arg(long, value_name = "DAYS")]
    expires: Option<u32>,
}

impl Listed for AdminToken {
    const HEADINGS: &'static [&'static str] =
        &["ID", "NAME", "TENANT", "ROLE", "STATE", "EXPIRES", "HINT", "SCOPES"];

    fn cells(&self) -> Vec<String> {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        vec![
            self.id.to_string(),
            self.name.clone(),
            or_nothing(self.tenant_id),
            or_nothing(self.role.as_ref()),
            state(self.state).to_owned(),
            or_nothing(self.expires_at),
            format!("•••••{}", self.hint),
            scopes.join(","),
        ]
    }
}

impl AdminTokenCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        match self.action {
            Action::Create(create) => create.run(&session).await,
            Action::List { limit } => {
                let pages = || Ok(Call::to(&LIST_ADMIN_TOKENS));
                session.output.list::<AdminToken>(&session.list(pages, limit).await?)
            }
            Action::Revoke { id, confirmation } => {
                session.confirm(&confirmation, &format!("revoke the admin token {id}"), &id)?;
                let call = Call::to(&REVOKE_ADMIN_TOKEN).at("adminTokenId", &id);
                session.output.record(&session.call::<RevokedAdminToken>(call).await?)
            }
        }
    }
}

impl Create {
    async fn run(self, session: &Session) -> Done {
        let parse = |text: &String| text.parse::<ManagementScope>();
        let scopes: Result<Vec<_>, _> = self.scopes.iter().map(parse).collect();
        let scopes = scopes.map_err(|e| Failure::usage(e.to_string(), "correct --scopes"))?;
        let tenant_id = match self.role {
            Some(_) => Some(session.tenant().await?),
            None => None,
        };
        let body = CreateAdminToken {
            name: self.name,
            tenant_id,
            role: self.role,
            scopes,
            expires_in_days: self.expires,
        };
        let call = Call::to(&CREATE_ADMIN_TOKEN).body(&body)?;
        let made: AdminTokenWithSecret = session.call(call).await?;
        let token = &made.admin_token;
        let end = or_nothing(token.expires_at);
        session.output.say(&format!("{} {:?}, until {end}; shown once", token.id, token.name));
        session.output.secret(&made, made.secret.as_ref().map(ShownOnce::expose))
    }
}
