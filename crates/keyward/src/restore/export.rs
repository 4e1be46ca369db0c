//! The log of lowered authority, read from a store part by part.

use std::collections::BTreeSet;

use keyward_api::revocations::{
    LoweredAdminToken, LoweredKey, LoweredMember, LoweredTenant, Revocation, RevocationPage,
};
use keyward_core::authority::Invalidation;
use keyward_store::{LoggedChange, Store, StoreError, SystemTx};

/// The part of the log behind an epoch: `limit` changes or a few more.
pub(crate) async fn part(
    store: &Store,
    after: u64,
    limit: u32,
) -> Result<RevocationPage, StoreError> {
    let mut tx = store.read_system("export what lowered authority").await?;
    let (epoch, incarnation) = tx.epoch().await?;
    let changes = tx.changes_behind(i64::try_from(after).unwrap_or(i64::MAX), limit).await?;
    let reached = changes.last().map_or(epoch, |change| change.epoch);
    let next_after = (reached < epoch).then(|| whole(reached));
    let mut data = Vec::new();
    for change in newest(&changes) {
        data.extend(entry(&mut tx, change).await?);
    }
    Ok(RevocationPage { incarnation: whole(incarnation), epoch: whole(epoch), data, next_after })
}

/// A number that is never negative.
fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Each record once, with the last of its changes.
fn newest(changes: &[LoggedChange]) -> Vec<LoggedChange> {
    let mut seen = BTreeSet::new();
    let behind = changes.iter().rev().filter(|change| seen.insert(change.touched));
    let mut newest: Vec<_> = behind.copied().collect();
    newest.reverse();
    newest
}

/// What is left of a record that was changed. Records are never deleted; one that is not there
/// has no authority to take away.
async fn entry(tx: &mut SystemTx, change: LoggedChange) -> Result<Option<Revocation>, StoreError> {
    let mut entry = Revocation { epoch: whole(change.epoch), ..Revocation::default() };
    match change.touched {
        Invalidation::Key(_, id) => {
            entry.key = tx.find_any_key(id).await?.map(|key| LoweredKey {
                tenant_id: key.tenant,
                key_id: key.id,
                revoked_at: key.revoked_at,
                revoke_reason: key.revoke_reason,
                expires_at: key.expires_at,
                ip_allowlist: key.ip_allowlist.to_strings(),
                owner_id: key.owner,
                hint: key.hint.to_string(),
                suspect_since: key.suspect_since,
                scopes: key.scopes,
            });
        }
        Invalidation::Member(tenant, user) => {
            entry.member = tx.find_member(tenant, user).await?.map(|member| LoweredMember {
                tenant_id: tenant,
                user_id: user,
                role: member.role,
                offboarded_at: member.offboarded_at,
            });
        }
        Invalidation::Tenant(id) => {
            entry.tenant = tx.find_tenant(id).await?.map(|tenant| LoweredTenant {
                tenant_id: id,
                suspended_at: tenant.suspended_at,
                suspend_reason: tenant.suspend_reason,
            });
        }
        Invalidation::AdminToken(id) => {
            entry.admin_token = tx.find_admin_token(id).await?.map(|token| LoweredAdminToken {
                admin_token_id: id,
                revoked_at: token.revoked_at,
                expires_at: token.expires_at,
                scopes: token.scopes,
            });
        }
    }
    let found = entry.key.is_some() || entry.member.is_some() || entry.tenant.is_some();
    Ok((found || entry.admin_token.is_some()).then_some(entry))
}
