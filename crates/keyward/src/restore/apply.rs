//! What a restored deployment loses again: what the log names, and what nobody can vouch for.

use keyward_api::audit::AuditAction;
use keyward_api::keys::Key;
use keyward_api::revocations::{
    LoweredAdminToken, LoweredKey, LoweredMember, LoweredTenant, Revocation,
};
use keyward_core::audit::{AuditEntry, AuditOutcome};
use keyward_core::authority::Invalidation;
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{KeyHint, KeyLowering};
use keyward_store::{Chain, Change, Store};
use serde::Serialize;
use serde_json::{Value, json};

use super::chains::{self, Chains};
use super::log::{LogHeader, LogReader};
use crate::bootstrap;
use crate::config::{ConfigError, Problem};

/// What there is besides the backup.
pub(crate) struct Knowledge {
    /// The log of what lowered authority after the backup.
    pub(crate) log: Option<LogReader>,
    /// Whether every active key becomes suspect.
    pub(crate) suspect: bool,
    /// The newest change that is known of, from wherever.
    pub(crate) least_epoch: u64,
    /// The name of the command, for the audit trail.
    pub(crate) command: &'static str,
}

/// What a restore has taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// The history that has begun.
    pub(crate) incarnation: i64,
    /// The newest change.
    pub(crate) epoch: i64,
    /// The epoch that the backup had reached.
    pub(crate) backup_epoch: i64,
    /// The last epoch that the log knows of.
    pub(crate) log_epoch: Option<u64>,
    /// Entries of the log that took nothing: it was taken before the backup was made, or their
    /// record was made after it.
    pub(crate) unneeded: u64,
    /// Keys that were revoked again.
    pub(crate) keys_revoked: u64,
    /// Keys that lost scopes, addresses or time again.
    pub(crate) keys_narrowed: u64,
    /// Keys that wait to be confirmed now and did not before.
    pub(crate) keys_suspected: u64,
    /// Memberships that ended again.
    pub(crate) members_offboarded: u64,
    /// Members who got the role of the log.
    pub(crate) roles_changed: u64,
    /// Tenants that were suspended again.
    pub(crate) tenants_suspended: u64,
    /// Admin tokens that were revoked: those of the log, or all.
    pub(crate) admin_tokens_revoked: u64,
    /// Admin tokens that lost scopes or time again.
    pub(crate) admin_tokens_narrowed: u64,
    /// Audit chains that are not whole.
    pub(crate) broken_chains: Vec<String>,
}

/// Takes away what must not live again, and begins another history of the authority. To be run once
/// on a database that was just restored; after a failure the database is to be restored again.
pub(crate) async fn restored(store: &Store, knowledge: Knowledge) -> anyhow::Result<Report> {
    let Knowledge { mut log, suspect, least_epoch, command } = knowledge;
    let mut tx = store.read_system("look at what was restored").await?;
    let (epoch, incarnation) = tx.epoch().await?;
    drop(tx);
    let Chains { broken, .. } = chains::walk(store).await?;
    let report = Report { backup_epoch: epoch, broken_chains: broken, ..Report::default() };
    let mut taking = Taking { store, command, report };
    let header = log.as_ref().map(|log| log.header().clone());
    if let Some(header) = &header {
        fits(header, epoch, incarnation, suspect).map_err(ConfigError::from)?;
        taking.report.log_epoch = Some(header.epoch);
    }
    store.enter_history().await?;
    while let Some(entry) = next_of(log.as_mut())? {
        taking.entry(entry).await?;
    }
    let least = header.as_ref().map_or(least_epoch, |header| header.epoch.max(least_epoch));
    taking.begin_incarnation(least, suspect, header.as_ref()).await
}

fn next_of(log: Option<&mut LogReader>) -> Result<Option<Revocation>, ConfigError> {
    log.map_or(Ok(None), LogReader::next).map_err(ConfigError::from)
}

/// Refuses a log that leaves changes between the backup and its own beginning untold, or that
/// tells nothing the backup does not know.
fn fits(log: &LogHeader, epoch: i64, incarnation: i64, suspect: bool) -> Result<(), Problem> {
    let (epoch, incarnation) = (whole(epoch), whole(incarnation));
    if log.since > epoch {
        let text = format!(
            "the log begins behind epoch {}, and the backup ends at epoch {epoch}: what changed \
             between them is in neither",
            log.since
        );
        let fix = format!("export it with --since {epoch} or less, or restore without it");
        return Err(Problem::new(text, fix));
    }
    if log.epoch < epoch || log.incarnation < incarnation {
        let text = format!(
            "the log ends at epoch {} and is older than the backup, which ends at epoch {epoch}: \
             it tells nothing that the backup does not know",
            log.epoch
        );
        return Err(Problem::new(text, "name a later log, or restore without it"));
    }
    if log.incarnation != incarnation && !suspect {
        let text = "between the backup and the log the deployment was restored or failed over: \
                    the log cannot vouch for keys that it does not name";
        let fix = "add --suspect: every active key must then be confirmed";
        return Err(Problem::new(text, fix));
    }
    Ok(())
}

/// A number that is never negative.
fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// The taking away, entry by entry, each through the one write path.
struct Taking<'a> {
    store: &'a Store,
    command: &'static str,
    report: Report,
}

impl Taking<'_> {
    async fn entry(&mut self, entry: Revocation) -> anyhow::Result<()> {
        let taken = match entry {
            Revocation { key: Some(key), .. } => self.key(&key).await?,
            Revocation { member: Some(member), .. } => self.member(&member).await?,
            Revocation { tenant: Some(tenant), .. } => self.tenant(&tenant).await?,
            Revocation { admin_token: Some(token), .. } => self.admin_token(&token).await?,
            Revocation { .. } => false,
        };
        self.report.unneeded += u64::from(!taken);
        Ok(())
    }

    async fn key(&mut self, log: &LoweredKey) -> anyhow::Result<bool> {
        let lowering = lowering(log).map_err(|problem| self.unreadable(&problem))?;
        // most entries take nothing, and looking costs less than a write
        let mut tx = self.store.read(log.tenant_id).await?;
        let now = self.store.clock().now();
        let found = tx.find_key(log.key_id).await?;
        drop(tx);
        if !found.is_some_and(|mut key| key.lower(&lowering, now)) {
            return Ok(false);
        }
        let author = bootstrap::system(self.command);
        let mut tx = self.store.write(log.tenant_id, author).await?;
        let Some(before) = tx.find_key(log.key_id).await? else { return Ok(false) };
        let (mut key, now) = (before.clone(), tx.at());
        key.lower(&lowering, now);
        tx.update_key(&key).await?;
        let (action, counter) = if key.revoked_at != before.revoked_at {
            (AuditAction::ApiKeyRevoked, &mut self.report.keys_revoked)
        } else if key.suspect_since != before.suspect_since {
            (AuditAction::ApiKeySuspected, &mut self.report.keys_suspected)
        } else {
            (AuditAction::ApiKeyUpdated, &mut self.report.keys_narrowed)
        };
        *counter += 1;
        let details = json!({ "before": Key::new(&before, now), "after": Key::new(&key, now) });
        let change = Change::new((), entry(action, &key.id, details));
        tx.finish(change.invalidating([Invalidation::Key(key.tenant, key.id)])).await?;
        Ok(true)
    }

    async fn member(&mut self, log: &LoweredMember) -> anyhow::Result<bool> {
        let mut tx = self.store.read(log.tenant_id).await?;
        let found = tx.find_member(log.user_id).await?;
        drop(tx);
        let Some(before) = found.filter(|member| member.offboarded_at.is_none()) else {
            return Ok(false);
        };
        if log.offboarded_at.is_none() && log.role == before.role {
            return Ok(false);
        }
        let author = bootstrap::system(self.command);
        let mut tx = self.store.write(log.tenant_id, author).await?;
        let (action, after) = if let Some(at) = log.offboarded_at {
            tx.offboard(log.user_id, at).await?;
            self.report.members_offboarded += 1;
            (AuditAction::MemberOffboarded, json!({ "role": before.role, "offboardedAt": at }))
        } else {
            tx.set_role(log.user_id, &log.role).await?;
            self.report.roles_changed += 1;
            (AuditAction::MemberRoleChanged, json!({ "role": log.role }))
        };
        let details = json!({ "before": { "role": before.role }, "after": after });
        let change = Change::new((), entry(action, &log.user_id, details));
        let touched = Invalidation::Member(log.tenant_id, log.user_id);
        tx.finish(change.invalidating([touched])).await?;
        Ok(true)
    }

    async fn tenant(&mut self, log: &LoweredTenant) -> anyhow::Result<bool> {
        let mut tx = self.store.read(log.tenant_id).await?;
        let found = tx.find_tenant().await?;
        drop(tx);
        let works = found.is_some_and(|tenant| tenant.suspended_at.is_none());
        let Some(since) = log.suspended_at.filter(|_| works) else { return Ok(false) };
        let author = bootstrap::system(self.command);
        let mut tx = self.store.write(log.tenant_id, author).await?;
        tx.set_suspended(Some(since), log.suspend_reason.as_deref()).await?;
        let after = json!({ "suspendedAt": since, "suspendReason": log.suspend_reason });
        let details = json!({ "before": { "suspendedAt": null }, "after": after });
        let change = Change::new((), entry(AuditAction::TenantSuspended, &log.tenant_id, details));
        tx.finish(change.invalidating([Invalidation::Tenant(log.tenant_id)])).await?;
        self.report.tenants_suspended += 1;
        Ok(true)
    }

    async fn admin_token(&mut self, log: &LoweredAdminToken) -> anyhow::Result<bool> {
        let id = log.admin_token_id;
        let mut tx = self.store.read_system("look at an admin token").await?;
        let found = tx.find_admin_token(id).await?;
        drop(tx);
        let Some(before) = found.filter(|token| token.revoked_at.is_none()) else {
            return Ok(false);
        };
        let ends = [before.expires_at, log.expires_at].into_iter().flatten().min();
        let mut scopes = before.scopes.clone();
        scopes.retain(|scope| log.scopes.contains(scope));
        let narrowed = ends != before.expires_at || scopes != before.scopes;
        if log.revoked_at.is_none() && !narrowed {
            return Ok(false);
        }
        let author = bootstrap::system(self.command);
        let reason = "take away an admin token's authority again";
        let mut tx = self.store.write_system(reason, Chain::Operator, author).await?;
        let action = if let Some(at) = log.revoked_at {
            tx.revoke_admin_token(id, at).await?;
            self.report.admin_tokens_revoked += 1;
            AuditAction::AdminTokenRevoked
        } else {
            tx.lower_admin_token(id, ends, &scopes).await?;
            self.report.admin_tokens_narrowed += 1;
            AuditAction::AdminTokenUpdated
        };
        let details = json!({
            "before": { "expiresAt": before.expires_at, "scopes": before.scopes },
            "after": { "revokedAt": log.revoked_at, "expiresAt": ends, "scopes": scopes },
        });
        let change = Change::new((), entry(action, &id, details));
        tx.finish(change.invalidating([Invalidation::AdminToken(id)])).await?;
        Ok(true)
    }

    /// The last write, which makes every node load anew. Only with it is the restore done.
    async fn begin_incarnation(
        mut self,
        least_epoch: u64,
        suspect: bool,
        log: Option<&LogHeader>,
    ) -> anyhow::Result<Report> {
        let author = bootstrap::system(self.command);
        let reason = "begin another history after a restore";
        let mut tx = self.store.write_system(reason, Chain::Operator, author).await?;
        let at = tx.at();
        if suspect {
            self.report.keys_suspected += tx.suspect_all_keys(at).await?;
            // an admin token has no such state, and one that lives again could confirm keys
            self.report.admin_tokens_revoked += tx.revoke_admin_tokens(at).await?;
        }
        let least = i64::try_from(least_epoch).unwrap_or(i64::MAX);
        (self.report.epoch, self.report.incarnation) = tx.begin_incarnation(least, at).await?;
        let mut details = serde_json::to_value(&self.report)?;
        if let Some(members) = details.as_object_mut() {
            members.insert("suspect".to_owned(), suspect.into());
            members.insert("log".to_owned(), serde_json::to_value(log)?);
        }
        let target = self.report.incarnation;
        let entry = entry(AuditAction::DeploymentRestored, &target, details);
        tx.finish(Change::new((), entry)).await?;
        Ok(self.report)
    }

    fn unreadable(&self, problem: &str) -> ConfigError {
        let text = format!("{}: an entry of the log says {problem}", self.command);
        Problem::new(text, "use the binary that wrote the log, or a later one").into()
    }
}

fn lowering(log: &LoweredKey) -> Result<KeyLowering, String> {
    let hint: Option<[u8; 4]> = log.hint.as_bytes().try_into().ok();
    Ok(KeyLowering {
        revoked_at: log.revoked_at,
        revoke_reason: log.revoke_reason,
        expires_at: log.expires_at,
        scopes: log.scopes.clone(),
        ip_allowlist: IpAllowlist::parse(&log.ip_allowlist).map_err(|error| error.to_string())?,
        owner: log.owner_id,
        hint: hint.and_then(KeyHint::new).ok_or_else(|| format!("{:?} as a hint", log.hint))?,
        suspect_since: log.suspect_since,
    })
}

fn entry(action: AuditAction, target: &dyn std::fmt::Display, details: Value) -> AuditEntry {
    AuditEntry {
        action: action.as_str(),
        target_kind: action.target_kind(),
        target_id: target.to_string(),
        outcome: AuditOutcome::Succeeded,
        details,
    }
}
