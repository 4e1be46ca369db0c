//! The single-use link with which the first administrator is made.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use keyward_api::audit::AuditAction;
use keyward_core::audit::{AuditEntry, AuditOutcome};
use keyward_core::id::SetupLinkId;
use keyward_core::time::MINUTE_MS;
use keyward_core::{Clock, Error, Result, Timestamp};
use keyward_store::{Author, Chain, Change, Store};
use serde_json::json;
use zeroize::{Zeroize as _, Zeroizing};

/// Milliseconds for which a link works.
pub(crate) const LIFETIME_MS: i64 = 30 * MINUTE_MS;
/// Random bytes behind a link.
const TOKEN_BYTES: usize = 32;

/// A new link. It has no formatter: it is shown once, to the operator.
pub(crate) struct SetupLink {
    token: Zeroizing<String>,
    /// When it stops working.
    pub(crate) expires_at: Timestamp,
}

impl SetupLink {
    /// The whole link. The token is in the fragment, which browsers keep to themselves.
    pub(crate) fn url(&self, control_url: &str) -> Zeroizing<String> {
        let base = control_url.trim_end_matches('/');
        Zeroizing::new(format!("{base}/setup#{}", self.token.as_str()))
    }
}

/// Makes a link, in place of any earlier one. Refused once there is an administrator.
pub(crate) async fn make(store: &Store, author: Author) -> Result<SetupLink> {
    let clock = store.clock().as_ref();
    let token = new_token(clock);
    let id = SetupLinkId::generate(clock);
    let mut tx = store.write_system("make a setup link", Chain::Operator, author).await?;
    if tx.count_administrators().await? > 0 {
        let text = "There is an administrator already; a setup link is for the first one only";
        return Err(Error::conflict(text));
    }
    let expires_at = tx.at().plus_ms(LIFETIME_MS);
    let at = tx.at();
    tx.insert_setup_link(id, &hash(&token), at, expires_at).await?;
    let action = AuditAction::SetupLinkCreated;
    let entry = AuditEntry {
        action: action.as_str(),
        target_kind: action.target_kind(),
        target_id: id.to_string(),
        outcome: AuditOutcome::Succeeded,
        details: json!({ "after": { "expiresAt": expires_at } }),
    };
    tx.finish(Change::new((), entry)).await?;
    Ok(SetupLink { token, expires_at })
}

/// What is stored of a link's token. The token is random, so a plain hash gives nothing away.
pub(crate) fn hash(token: &str) -> [u8; 32] {
    let digest = digest(&SHA256, token.as_bytes());
    let mut hash = [0; 32];
    for (slot, byte) in hash.iter_mut().zip(digest.as_ref()) {
        *slot = *byte;
    }
    hash
}

fn new_token(clock: &dyn Clock) -> Zeroizing<String> {
    let mut bytes = [0; TOKEN_BYTES];
    clock.fill_random(&mut bytes);
    let mut text = Zeroizing::new(String::with_capacity(2 * TOKEN_BYTES));
    for byte in &bytes {
        // writing to a string cannot fail
        let _ = write!(text, "{byte:02x}");
    }
    bytes.zeroize();
    text
}
