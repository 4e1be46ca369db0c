//! `keyward member`.

use clap::{Args, Subcommand};
use keyward_api::members::{
    AddMember, ChangeMemberRole, ChangedMember, Member, MemberDetails, OffboardKeys,
    OffboardMember, OffboardedMember,
};
use keyward_api::operation::{
    ADD_MEMBER, CHANGE_MEMBER_ROLE, GET_MEMBER, LIST_MEMBERS, OFFBOARD_MEMBER,
};
use keyward_core::id::UserId;

use super::client::Call;
use super::session::{Confirmation, Limit, RemoteArgs, Session};
use super::user::kind;
use crate::cli::exit::{Done, Failure};
use crate::cli::output::{Listed, or_nothing};

/// Members of a tenant and their roles
#[derive(Debug, Args)]
pub(crate) struct MemberCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a member: a known user by id, or a person by address
    Add {
        /// A user id, or an address
        user: String,
        /// The name of a person whose address is new
        #[arg(long)]
        name: Option<String>,
        /// The role: the ceiling of every key they own
        #[arg(long)]
        role: String,
    },
    /// Show the members, those who left included
    List {
        #[command(flatten)]
        limit: Limit,
    },
    /// Show a member and how many keys they own
    Show {
        /// A user id, address or name
        member: String,
    },
    /// Give a member another role
    Role {
        /// A user id, address or name
        member: String,
        /// The new role
        role: String,
    },
    /// End a membership; their keys are revoked unless --rehome-to names a new owner
    Offboard {
        /// A user id, address or name
        member: String,
        /// The member or service account who takes the keys over
        #[arg(long, value_name = "MEMBER")]
        rehome_to: Option<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

impl Listed for Member {
    const HEADINGS: &'static [&'static str] =
        &["USER", "KIND", "EMAIL", "NAME", "ROLE", "ADDED", "LEFT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.user_id.to_string(),
            kind(self.kind).to_owned(),
            or_nothing(self.email.as_ref()),
            self.name.clone(),
            self.role.clone(),
            self.added_at.to_string(),
            or_nothing(self.offboarded_at),
        ]
    }
}

impl MemberCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        let output = session.output;
        match self.action {
            Action::Add { user, name, role } => {
                let body = new_member(user, name, role)?;
                let call = session.on_tenant(&ADD_MEMBER).await?.body(&body)?;
                output.record(&session.call::<Member>(call).await?)
            }
            Action::List { limit } => {
                let tenant = session.tenant().await?;
                let pages = || Ok(Call::to(&LIST_MEMBERS).at("tenantId", &tenant));
                output.list::<Member>(&session.list(pages, limit).await?)
            }
            Action::Show { member } => {
                let tenant = session.tenant().await?;
                let user = session.find_member(tenant, &member).await?;
                let call = Call::to(&GET_MEMBER).at("tenantId", &tenant).at("userId", &user);
                output.record(&session.call::<MemberDetails>(call).await?)
            }
            Action::Role { member, role } => {
                let tenant = session.tenant().await?;
                let user = session.find_member(tenant, &member).await?;
                let call = Call::to(&CHANGE_MEMBER_ROLE).at("tenantId", &tenant);
                let call = call.at("userId", &user).body(&ChangeMemberRole { role })?;
                output.record(&session.call::<ChangedMember>(call).await?)
            }
            Action::Offboard { member, rehome_to, confirmation } => {
                offboard(&session, &member, rehome_to.as_deref(), &confirmation).await
            }
        }
    }
}

fn new_member(user: String, name: Option<String>, role: String) -> Done<AddMember> {
    let id: Option<UserId> = user.parse().ok();
    let email = id.is_none().then_some(user);
    if email.is_some() && name.is_none() {
        let text = "a person named by address needs a name too";
        return Err(Failure::usage(text, "add --name"));
    }
    Ok(AddMember { user_id: id, email, name, role })
}

/// Shows what would stop before it asks.
async fn offboard(
    session: &Session,
    member: &str,
    rehome_to: Option<&str>,
    confirmation: &Confirmation,
) -> Done {
    let tenant = session.tenant().await?;
    let user = session.find_member(tenant, member).await?;
    let call = Call::to(&GET_MEMBER).at("tenantId", &tenant).at("userId", &user);
    let MemberDetails { owned_keys: keys, .. } = session.call(call).await?;
    let (keys_become, rehome_to) = match rehome_to {
        None => (OffboardKeys::Revoke, None),
        Some(name) => (OffboardKeys::Rehome, Some(session.find_member(tenant, name).await?)),
    };
    let act = format!(
        "end the membership of {member} and {} {} working keys, {} of them used in the last day",
        if rehome_to.is_some() { "hand over" } else { "revoke" },
        keys.active,
        keys.used_last_day
    );
    session.confirm(confirmation, &act, member)?;
    let call = Call::to(&OFFBOARD_MEMBER).at("tenantId", &tenant).at("userId", &user);
    let call = call.body(&OffboardMember { keys: keys_become, rehome_to })?;
    session.output.record(&session.call::<OffboardedMember>(call).await?)
}
