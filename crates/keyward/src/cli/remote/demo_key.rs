//! `keyward demo-key`: a key to try the product with, in one command.

use std::collections::BTreeSet;

use clap::Args;
use keyward_api::catalog::{CatalogRole, CatalogScopes};
use keyward_api::keys::CreateKey;
use keyward_api::members::Member;
use keyward_api::operation::{LIST_MEMBERS, LIST_ROLES, LIST_SCOPES};
use keyward_api::page::{Listing, MAX_PAGE_LIMIT};
use keyward_core::Environment;
use keyward_core::id::{TenantId, UserId};

use super::client::Call;
use super::key::mint;
use super::session::{Limit, RemoteArgs, Session};
use crate::cli::exit::{Done, Exit, Failure};

/// Days a demo key lives.
const DAYS: u32 = 30;

/// Make a key to try the product with; the token alone goes to stdout, once
#[derive(Debug, Args)]
pub(crate) struct DemoKeyCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    /// What it is for
    #[arg(long)]
    name: String,
    /// Its scopes, with commas between [default: those of the profile]
    #[arg(long, value_delimiter = ',')]
    scopes: Vec<String>,
    /// Where it will be valid
    #[arg(long, default_value = "live")]
    env: Environment,
    /// The member or service account who owns it [default: the first whose role suffices]
    #[arg(long, value_name = "MEMBER")]
    owner: Option<String>,
}

impl DemoKeyCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        let tenant = session.tenant().await?;
        let catalog: CatalogScopes = session.call(Call::to(&LIST_SCOPES)).await?;
        let named = !self.scopes.is_empty();
        let scopes = if named { self.scopes } else { catalog.demo_scopes.clone() };
        if scopes.is_empty() {
            let text = "the product's profile names no scopes for a demo key";
            return Err(Failure::usage(text, "name some with --scopes"));
        }
        let owner = match &self.owner {
            Some(name) => session.find_member(tenant, name).await?,
            None => first_owner(&session, tenant, &catalog, &scopes).await?,
        };
        let body = CreateKey {
            name: self.name,
            description: None,
            environment: self.env,
            scopes,
            owner_id: Some(owner),
            expires_at: None,
            expires_in_days: Some(DAYS),
            ip_allowlist: None,
            rate_limit: None,
        };
        mint(&session, tenant, &body).await
    }
}

/// The member of longest standing whose role covers the areas of all the scopes.
async fn first_owner(
    session: &Session,
    tenant: TenantId,
    catalog: &CatalogScopes,
    scopes: &[String],
) -> Done<UserId> {
    let wanted = catalog.data.iter().filter(|scope| scopes.contains(&scope.name));
    let areas: BTreeSet<&str> = wanted.map(|scope| scope.area.as_str()).collect();
    let roles: Listing<CatalogRole> = session.call(Call::to(&LIST_ROLES)).await?;
    let covers = |name: &str| {
        roles.data.iter().filter(|role| role.name == name).any(|role| {
            let has = |area: &&str| role.areas.iter().any(|own| own == area || own == "*");
            areas.iter().all(has)
        })
    };
    let pages = || Ok(Call::to(&LIST_MEMBERS).at("tenantId", &tenant));
    let members: Vec<Member> = session.list(pages, Limit::of(MAX_PAGE_LIMIT)).await?;
    let present = members.into_iter().filter(|m| m.offboarded_at.is_none() && covers(&m.role));
    let first = present.min_by_key(|member| member.added_at);
    first.map(|member| member.user_id).ok_or_else(|| {
        let text = "no member of this tenant has a role that covers these scopes";
        Failure::new(Exit::Forbidden, text).advising("keyward member add, or fewer --scopes")
    })
}
