//! `keyward key`: edit, rotate, end an overlap, revoke, delete, narrow, re-issue.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use keyward_api::keys::{
    ChangedKey, ConfirmedKey, ConfirmedKeys, NarrowKeyScopes, Patch, RevokeKey, RotateKey,
    RotatedKey, UpdateKey, UpdatedKey,
};
use keyward_api::operation::{
    CONFIRM_KEY, CONFIRM_KEYS, DELETE_KEY, END_KEY_OVERLAP, NARROW_KEY_SCOPES, Operation,
    REISSUE_KEY, REVOKE_KEY, ROTATE_KEY, UPDATE_KEY,
};
use keyward_api::secret::ShownOnce;
use keyward_core::Timestamp;
use keyward_core::key::{RateLimit, RevokeReason};

use super::key::{rate, show};
use super::session::{Confirmation, Session};
use crate::cli::exit::{Done, Failure};
use crate::config::Millis;

#[derive(Debug, Subcommand)]
pub(super) enum Change {
    /// Edit name, description, networks, rate limit, or an earlier end
    Edit(Edit),
    /// Make a replacement; its secret alone goes to stdout
    Rotate(Rotate),
    /// End the overlap of a rotation now: the old key is revoked
    EndOverlap {
        /// The id of the old key
        id: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Revoke a key for ever
    Revoke(Revoke),
    /// Revoke a key if it still works, and hide it from lists
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Take scopes away from a key
    Narrow {
        /// Its id
        id: String,
        /// The scopes to take away, with commas between
        #[arg(long, value_delimiter = ',', required = true)]
        remove: Vec<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Let a key, or all keys of the tenant, work again that a restore made suspect
    #[command(group(ArgGroup::new("which").required(true).args(["id", "all"])))]
    Confirm {
        /// Its id
        id: Option<String>,
        /// Every suspect key whose owner is a member and allowed no more than you
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Make a new secret for a key that was never used, within one hour
    Reissue {
        /// Its id
        id: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true)
    .args(["name", "description", "ip", "rate", "no_rate", "expires_at"])))]
pub(super) struct Edit {
    /// Its id
    id: String,
    /// The service that uses it
    #[arg(long)]
    name: Option<String>,
    /// Free text
    #[arg(long)]
    description: Option<String>,
    /// Networks it may be used from, with commas between; empty allows every address
    #[arg(long, value_name = "CIDR", value_delimiter = ',', num_args = 0..)]
    ip: Option<Vec<String>>,
    /// Its own rate limit, such as 100/1m
    #[arg(long, value_name = "N/WINDOW", value_parser = rate)]
    rate: Option<RateLimit>,
    /// Take its own rate limit away
    #[arg(long, conflicts_with = "rate")]
    no_rate: bool,
    /// When it stops by itself; only earlier than now set
    #[arg(long, value_name = "INSTANT")]
    expires_at: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Its id
    id: String,
    /// How long the old key keeps working [default: 24h]; 0s revokes it at once
    #[arg(long, value_name = "DURATION")]
    overlap: Option<Millis>,
    /// Scopes of the new key, some or all of the old one's
    #[arg(long, value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// Name of the new key
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// Its id
    id: String,
    /// Why
    #[arg(long, value_enum, default_value_t = Reason::Other)]
    reason: Reason,
    /// A remark for the audit trail
    #[arg(long)]
    comment: Option<String>,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reason {
    Leaked,
    Offboarding,
    Unused,
    Rotated,
    Other,
}

impl From<Reason> for RevokeReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Leaked => Self::Leaked,
            Reason::Offboarding => Self::Offboarding,
            Reason::Unused => Self::Unused,
            Reason::Rotated => Self::Rotated,
            Reason::Other => Self::Other,
        }
    }
}

impl Change {
    pub(super) async fn run(self, session: &Session) -> Done {
        match self {
            Self::Edit(edit) => edit.run(session).await,
            Self::Rotate(rotate) => rotate.run(session).await,
            Self::Revoke(revoke) => revoke.run(session).await,
            Self::EndOverlap { id, confirmation } => {
                session.confirm(&confirmation, &format!("revoke the old key {id}"), &id)?;
                change(session, &END_KEY_OVERLAP, &id).await
            }
            Self::Delete { id, confirmation } => {
                session.confirm(&confirmation, &format!("revoke and hide the key {id}"), &id)?;
                change(session, &DELETE_KEY, &id).await
            }
            Self::Narrow { id, remove, confirmation } => {
                let act = format!("take {} from the key {id} for ever", remove.join(", "));
                session.confirm(&confirmation, &act, &id)?;
                let call = session.on_tenant(&NARROW_KEY_SCOPES).await?.at("keyId", &id);
                let call = call.body(&NarrowKeyScopes { remove })?;
                session.output.record(&session.call::<ChangedKey>(call).await?)
            }
            Self::Confirm { id: Some(id), .. } => {
                let call = session.on_tenant(&CONFIRM_KEY).await?.at("keyId", &id);
                session.output.record(&session.call::<ConfirmedKey>(call).await?)
            }
            Self::Confirm { id: None, confirmation, .. } => {
                let act = "let every suspect key of the tenant work again";
                session.confirm(&confirmation, act, "all")?;
                confirm_all(session).await
            }
            Self::Reissue { id, confirmation } => {
                session.confirm(&confirmation, &format!("void the secret of {id}"), &id)?;
                let call = session.on_tenant(&REISSUE_KEY).await?.at("keyId", &id);
                show(session, &session.call(call).await?)
            }
        }
    }
}

async fn change(session: &Session, operation: &'static Operation, id: &str) -> Done {
    let call = session.on_tenant(operation).await?.at("keyId", &id);
    session.output.record(&session.call::<ChangedKey>(call).await?)
}

/// As many calls as it takes; it ends with one that confirms nothing more.
async fn confirm_all(session: &Session) -> Done {
    let mut total = ConfirmedKeys { confirmed: 0, remaining: 0 };
    loop {
        let call = session.on_tenant(&CONFIRM_KEYS).await?;
        let ConfirmedKeys { confirmed, remaining } = session.call(call).await?;
        total = ConfirmedKeys { confirmed: total.confirmed.saturating_add(confirmed), remaining };
        if confirmed == 0 || remaining == 0 {
            return session.output.record(&total);
        }
    }
}

impl Edit {
    async fn run(self, session: &Session) -> Done {
        let body = UpdateKey {
            name: self.name,
            description: self.description,
            ip_allowlist: self.ip.map(|networks| {
                networks.into_iter().filter(|network| !network.is_empty()).collect()
            }),
            rate_limit: match self.rate {
                Some(limit) => Patch::Set(limit),
                None if self.no_rate => Patch::Clear,
                None => Patch::Keep,
            },
            expires_at: self.expires_at,
        };
        let call = session.on_tenant(&UPDATE_KEY).await?.at("keyId", &self.id).body(&body)?;
        session.output.record(&session.call::<UpdatedKey>(call).await?)
    }
}

impl Rotate {
    async fn run(self, session: &Session) -> Done {
        let seconds = |overlap: Millis| u32::try_from(overlap.0 / 1_000);
        let overlap_seconds = self.overlap.map(seconds).transpose();
        let overlap_seconds = overlap_seconds
            .map_err(|_| Failure::usage("--overlap is too long", "at most 30 days"))?;
        let body = RotateKey { overlap_seconds, scopes: self.scopes, name: self.name };
        let call = session.on_tenant(&ROTATE_KEY).await?.at("keyId", &self.id).body(&body)?;
        let rotated: RotatedKey = session.call(call).await?;
        session.output.say(&format!(
            "{} replaces {}; both work until {}; shown once",
            rotated.key.id, rotated.old.id, rotated.overlap_ends_at
        ));
        session.output.secret(&rotated, rotated.secret.as_ref().map(ShownOnce::expose))
    }
}

impl Revoke {
    async fn run(self, session: &Session) -> Done {
        let act = format!("revoke the key {} for ever", self.id);
        session.confirm(&self.confirmation, &act, &self.id)?;
        let body = RevokeKey { reason: self.reason.into(), comment: self.comment };
        let call = session.on_tenant(&REVOKE_KEY).await?.at("keyId", &self.id).body(&body)?;
        session.output.record(&session.call::<ChangedKey>(call).await?)
    }
}
