//! Admin tokens in memory, for verify and for the control plane.

use std::collections::HashMap;
use std::sync::Arc;

use keyward_core::authority::AdminTokenAuthority;
use keyward_core::catalog::Catalog;
use keyward_core::error::{Error, ErrorCode};
use keyward_core::id::{AdminTokenId, TenantId};
use keyward_core::key::{KeyState, Keyring, SecretKind};
use keyward_core::time::Timestamp;

use crate::keyset::disprove;
use crate::primitives::RwLock;

/// Every admin token of the deployment.
pub struct AdminTokens {
    keyring: Arc<Keyring>,
    tokens: RwLock<HashMap<AdminTokenId, Arc<AdminTokenAuthority>>>,
}

/// Who calls with an admin token.
#[derive(Clone)]
pub struct AdminCaller {
    token: Arc<AdminTokenAuthority>,
}

/// Why an admin token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminDenial {
    /// Not a token of ours, or one that nobody has.
    Invalid,
    /// A key of the product's API, which opens nothing here.
    ApiKey,
    /// Its time has run out.
    Expired,
    /// It was revoked.
    Revoked,
}

impl AdminCaller {
    /// The token's id.
    pub fn id(&self) -> AdminTokenId {
        self.token.id
    }

    /// The token's name.
    pub fn name(&self) -> &str {
        &self.token.name
    }

    /// The one tenant it may act in; `None` for the whole deployment.
    pub fn tenant(&self) -> Option<TenantId> {
        self.token.tenant
    }

    /// The role it acts with in its tenant; `None` for the whole deployment.
    pub fn role(&self) -> Option<&str> {
        self.token.role.as_deref()
    }

    /// Its scopes of Keyward's own API.
    pub fn scopes(&self) -> &[String] {
        &self.token.scopes
    }

    /// When it stops by itself.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.token.expires_at
    }

    /// Whether it has this scope of Keyward's own API.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.token.scopes.iter().any(|granted| granted == scope)
    }

    /// Whether it has this scope of Keyward's own API and its role allows it.
    pub fn may(&self, scope: &str, catalog: &Catalog) -> bool {
        let allowed = || match self.role() {
            Some(role) => catalog.role(role).is_some_and(|role| role.may_use(scope)),
            None => self.tenant().is_none(),
        };
        self.has_scope(scope) && allowed()
    }

    /// Whether it may see records of this tenant.
    pub fn may_see(&self, tenant: TenantId) -> bool {
        self.token.tenant.is_none_or(|own| own == tenant)
    }
}

impl From<AdminDenial> for Error {
    fn from(denial: AdminDenial) -> Self {
        match denial {
            AdminDenial::Invalid => Self::new(
                ErrorCode::InvalidApiKey,
                "The admin token is invalid; copy it again or make a new one",
            ),
            AdminDenial::ApiKey => Self::new(
                ErrorCode::InvalidApiKey,
                "This is a key of the product's API; an admin token is needed here",
            ),
            AdminDenial::Expired => {
                Self::new(ErrorCode::ExpiredApiKey, "The admin token has expired; make a new one")
            }
            AdminDenial::Revoked => {
                Self::new(ErrorCode::Unauthorized, "The admin token is revoked; make a new one")
            }
        }
    }
}

impl AdminTokens {
    /// An empty set.
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring, tokens: RwLock::default() }
    }

    /// Puts a token in place of what was known of it.
    pub fn replace(&self, token: AdminTokenAuthority) {
        self.tokens.write().insert(token.id, Arc::new(token));
    }

    /// Forgets a token.
    pub fn remove(&self, token: AdminTokenId) {
        self.tokens.write().remove(&token);
    }

    /// Puts these tokens in place of all that were known.
    pub fn load(&self, tokens: impl IntoIterator<Item = AdminTokenAuthority>) {
        let loaded = tokens.into_iter().map(|token| (token.id, Arc::new(token)));
        *self.tokens.write() = loaded.collect();
    }

    /// What this set says of a token. When it is unknown the store may still know it.
    pub(crate) fn recognize(&self, text: &str) -> Recognized {
        let Ok(presented) = self.keyring.format().parse(text) else {
            return Recognized::Malformed;
        };
        if presented.kind != SecretKind::Admin {
            return Recognized::ApiKey;
        }
        let id = AdminTokenId::from_bits(presented.id_bits);
        let Some(token) = self.tokens.read().get(&id).cloned() else {
            disprove(&self.keyring, &presented);
            return if self.keyring.made(presented.id_bits) {
                Recognized::Unknown(id)
            } else {
                Recognized::Malformed
            };
        };
        let version = token.pepper_version;
        if self.keyring.verify(&presented, &token.hash, version) {
            Recognized::Known(token)
        } else {
            Recognized::Wrong
        }
    }
}

/// What a set says of an admin token.
pub(crate) enum Recognized {
    /// Not of our form, or an id that this deployment did not make.
    Malformed,
    /// A key of the product's API.
    ApiKey,
    /// An id of this deployment that is not in memory.
    Unknown(AdminTokenId),
    /// The secret is not that of the id.
    Wrong,
    /// The secret is right.
    Known(Arc<AdminTokenAuthority>),
}

impl Recognized {
    /// The id that is not in memory.
    pub(crate) const fn unknown(&self) -> Option<AdminTokenId> {
        match self {
            Self::Unknown(id) => Some(*id),
            _ => None,
        }
    }

    /// Whether this was answered from what is in memory, which may be out of date.
    pub(crate) const fn is_remembered(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Wrong | Self::Known(_))
    }

    /// The caller, or why there is none.
    pub(crate) fn admit(self, now: Timestamp) -> Result<AdminCaller, AdminDenial> {
        let token = match self {
            Self::Known(token) => token,
            Self::ApiKey => return Err(AdminDenial::ApiKey),
            Self::Malformed | Self::Unknown(_) | Self::Wrong => return Err(AdminDenial::Invalid),
        };
        match KeyState::at(now, token.expires_at, token.revoked_at) {
            KeyState::Active => Ok(AdminCaller { token }),
            KeyState::Expired => Err(AdminDenial::Expired),
            KeyState::Revoked => Err(AdminDenial::Revoked),
        }
    }
}
