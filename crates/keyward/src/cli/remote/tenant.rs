//! `keyward tenant`.

use clap::{Args, Subcommand};
use keyward_api::operation::{
    CREATE_TENANT, GET_TENANT, LIST_TENANTS, RESUME_TENANT, SUSPEND_TENANT,
};
use keyward_api::tenants::{CreateTenant, SuspendTenant, SuspendedTenant, Tenant, TenantState};

use super::client::Call;
use super::session::{Confirmation, Limit, RemoteArgs};
use crate::cli::exit::Done;
use crate::cli::output::Listed;

/// Tenants: the isolated customers of the product
#[derive(Debug, Args)]
pub(crate) struct TenantCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a tenant
    Create {
        /// Its short name: lower-case letters, digits and '-'
        slug: String,
        /// Its name for people
        #[arg(long)]
        name: String,
    },
    /// Show all tenants
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Show one tenant
    Show {
        /// Its id or short name
        tenant: String,
    },
    /// Stop all keys of a tenant until it is resumed
    Suspend {
        /// Its id or short name
        tenant: String,
        /// Why, for the audit trail
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Let the keys of a suspended tenant work again
    Resume {
        /// Its id or short name
        tenant: String,
    },
}

impl Listed for Tenant {
    const HEADINGS: &'static [&'static str] = &["ID", "SHORT NAME", "NAME", "STATE", "CREATED"];

    fn cells(&self) -> Vec<String> {
        let state = match self.state {
            TenantState::Active => "active",
            TenantState::Suspended => "suspended",
        };
        vec![
            self.id.to_string(),
            self.slug.clone(),
            self.name.clone(),
            state.to_owned(),
            self.created_at.to_string(),
        ]
    }
}

impl TenantCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        let output = session.output;
        match self.action {
            Action::Create { slug, name } => {
                let body = CreateTenant { slug, name };
                let made: Tenant = session.call(Call::to(&CREATE_TENANT).body(&body)?).await?;
                output.record(&made)
            }
            Action::List { limit } => {
                let pages = || Ok(Call::to(&LIST_TENANTS));
                output.list::<Tenant>(&session.list(pages, limit).await?)
            }
            Action::Show { tenant } => {
                let id = session.find_tenant(&tenant).await?;
                let call = Call::to(&GET_TENANT).at("tenantId", &id);
                output.record(&session.call::<Tenant>(call).await?)
            }
            Action::Suspend { tenant, reason, confirmation } => {
                let id = session.find_tenant(&tenant).await?;
                session.confirm(&confirmation, &format!("stop every key of {tenant}"), &tenant)?;
                let call = Call::to(&SUSPEND_TENANT).at("tenantId", &id);
                let call = call.body(&SuspendTenant { reason })?;
                output.record(&session.call::<SuspendedTenant>(call).await?)
            }
            Action::Resume { tenant } => {
                let id = session.find_tenant(&tenant).await?;
                let call = Call::to(&RESUME_TENANT).at("tenantId", &id);
                output.record(&session.call::<Tenant>(call).await?)
            }
        }
    }
}
