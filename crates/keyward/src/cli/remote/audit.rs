//! `keyward audit`.

use clap::{Args, Subcommand, ValueEnum};
use keyward_api::audit::{AuditChain, AuditEvent, AuditOutcome, ListAuditEventsQuery};
use keyward_api::operation::{GET_AUDIT_EVENT, LIST_AUDIT_EVENTS, VERIFY_AUDIT_CHAIN};
use keyward_core::Timestamp;
use keyward_core::id::KeyId;

use super::client::Call;
use super::session::{Limit, RemoteArgs, Session};
use crate::cli::exit::{Done, Failure};
use crate::cli::output::{Listed, or_nothing};

/// The audit trail of a tenant: who did what
#[derive(Debug, Args)]
pub(crate) struct AuditCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show events, newest first
    List(List),
    /// Show one event
    Show {
        /// Its id
        id: String,
    },
    /// Compute every hash of the chain anew (exit code 0 or 3)
    Verify,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Outcome {
    Succeeded,
    Denied,
}

#[derive(Debug, Args)]
struct List {
    /// Events of this actor, by id
    #[arg(long)]
    actor: Option<String>,
    /// Events with this action, such as `api_key.revoked`
    #[arg(long)]
    action: Option<String>,
    /// Events of this record, by id
    #[arg(long)]
    target: Option<String>,
    /// Events of this key, as actor or target
    #[arg(long)]
    key: Option<KeyId>,
    /// Events at this instant or later
    #[arg(long, value_name = "INSTANT")]
    from: Option<Timestamp>,
    /// Events before this instant
    #[arg(long, value_name = "INSTANT")]
    to: Option<Timestamp>,
    /// Events that ended so
    #[arg(long, value_enum)]
    outcome: Option<Outcome>,
    #[command(flatten)]
    limit: Limit,
}

impl Listed for AuditEvent {
    const HEADINGS: &'static [&'static str] =
        &["AT", "ACTION", "ACTOR", "TARGET", "OUTCOME", "IP", "ID"];

    fn cells(&self) -> Vec<String> {
        let outcome = match self.outcome {
            AuditOutcome::Succeeded => "succeeded",
            AuditOutcome::Denied => "denied",
        };
        vec![
            self.at.to_string(),
            self.action.clone(),
            self.actor.name.clone(),
            self.target.id.clone(),
            outcome.to_owned(),
            or_nothing(self.ip.as_ref()),
            self.id.to_string(),
        ]
    }
}

impl AuditCommand {
    pub(crate) async fn run(self) -> Done {
        let session = self.remote.open()?;
        match self.action {
            Action::List(list) => list.run(&session).await,
            Action::Show { id } => {
                let call = session.on_tenant(&GET_AUDIT_EVENT).await?.at("auditEventId", &id);
                session.output.record(&session.call::<AuditEvent>(call).await?)
            }
            Action::Verify => {
                let call = session.on_tenant(&VERIFY_AUDIT_CHAIN).await?;
                let chain: AuditChain = session.call(call).await?;
                session.output.record(&chain)?;
                if chain.valid { Ok(()) } else { Err(Failure::no()) }
            }
        }
    }
}

impl List {
    async fn run(self, session: &Session) -> Done {
        let tenant = session.tenant().await?;
        let query = ListAuditEventsQuery {
            actor_id: self.actor,
            action: self.action,
            target_id: self.target,
            key_id: self.key,
            from: self.from,
            to: self.to,
            outcome: self.outcome.map(|outcome| match outcome {
                Outcome::Succeeded => AuditOutcome::Succeeded,
                Outcome::Denied => AuditOutcome::Denied,
            }),
            ..ListAuditEventsQuery::default()
        };
        let pages = || Call::to(&LIST_AUDIT_EVENTS).at("tenantId", &tenant).query(&query);
        session.output.list::<AuditEvent>(&session.list(pages, self.limit).await?)
    }
}
