//! What a node must know to decide from memory: the authority the store hands out, and the names of
//! what changed in it.

use crate::environment::Environment;
use crate::id::{AdminTokenId, KeyId, TenantId, UserId};
use crate::ip::IpAllowlist;
use crate::key::KeyHash;
use crate::lease::{Epoch, Incarnation, Listed, Reply};
use crate::time::Timestamp;

/// A key as a node decides with it.
#[derive(Clone)]
pub struct KeyAuthority {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id.
    pub id: KeyId,
    /// Where it is valid.
    pub environment: Environment,
    /// The stored hash of its secret.
    pub hash: KeyHash,
    /// The pepper behind the hash.
    pub pepper_version: u16,
    /// The names of its scopes.
    pub scopes: Vec<String>,
    /// Whose role is its ceiling.
    pub owner: UserId,
    /// Its name, for the upstream and the log.
    pub name: String,
    /// When it stops by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Since when it waits to be confirmed after a restore.
    pub suspect_since: Option<Timestamp>,
    /// Where it may be used from.
    pub ip_allowlist: IpAllowlist,
}

/// A tenant as a node decides with it.
#[derive(Clone, Debug)]
pub struct TenantAuthority {
    /// Its id.
    pub id: TenantId,
    /// Its short name.
    pub slug: String,
    /// Whether it is suspended.
    pub suspended: bool,
}

/// The role of a user in a tenant now.
#[derive(Clone, Debug)]
pub struct MemberAuthority {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The role, a name of the profile.
    pub role: String,
}

/// An admin token as a node decides with it.
#[derive(Clone)]
pub struct AdminTokenAuthority {
    /// Its id.
    pub id: AdminTokenId,
    /// Its name.
    pub name: String,
    /// The stored hash of its secret.
    pub hash: KeyHash,
    /// The pepper behind the hash.
    pub pepper_version: u16,
    /// The one tenant it may act in; `None` for the whole deployment.
    pub tenant: Option<TenantId>,
    /// The role it acts with in its tenant; `None` for the whole deployment.
    pub role: Option<String>,
    /// Keyward's own scopes, by name.
    pub scopes: Vec<String>,
    /// When it stops by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// What a change touched, as it stands in the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invalidation {
    /// A key was made, or what it may do changed.
    Key(TenantId, KeyId),
    /// A user's role in a tenant changed, or the user joined or left.
    Member(TenantId, UserId),
    /// A tenant was made, suspended or resumed.
    Tenant(TenantId),
    /// An admin token was made or changed.
    AdminToken(AdminTokenId),
}

/// What the store says about a subject now.
#[derive(Clone)]
pub enum Fact {
    /// A key.
    Key(Box<KeyAuthority>),
    /// A member and the member's role.
    Member(MemberAuthority),
    /// A tenant.
    Tenant(TenantAuthority),
    /// An admin token.
    AdminToken(Box<AdminTokenAuthority>),
    /// There is no such thing, or no longer.
    Gone,
}

/// A subject that changed, with its facts as they are now.
#[derive(Clone)]
pub struct Changed {
    /// The newest change that touched it.
    pub epoch: Epoch,
    /// What was touched.
    pub subject: Invalidation,
    /// What is true of it now.
    pub fact: Fact,
}

/// The answer to a node's ask.
pub struct Answered {
    /// What the protocol reads of it.
    pub reply: Reply,
    /// Everything that changed after what the node has applied.
    pub changed: Vec<Changed>,
    /// All nodes; only with a renewal.
    pub listed: Vec<Listed>,
}

/// What a node met and does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A key.
    Key(KeyId),
    /// An admin token.
    AdminToken(AdminTokenId),
}

/// The facts about something a node did not know, as of one snapshot of the store.
pub struct Found {
    /// The history of the snapshot.
    pub incarnation: Incarnation,
    /// The newest change in it.
    pub epoch: Epoch,
    /// It, and whatever it is decided with; empty when there is no such thing.
    pub facts: Vec<(Invalidation, Fact)>,
}
