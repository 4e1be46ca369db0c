//! Admin tokens in memory, for verify and for the control plane.

use std::collections::HashMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use keyward_core::authority::AdminTokenAuthority;
use keyward_core::catalog::Catalog;
use keyward_core::error::{Error, ErrorCode};
use keyward_core::id::{AdminTokenId, TenantId};
use keyward_core::key::{KeyState, Keyring, SecretKind};
use keyward_core::secret::is_same;
use keyward_core::time::Timestamp;

use crate::keyset::disprove;
use crate::primitives::RwLock;

/// Texts of tokens that are remembered because they were proven before.
const MAX_PROVEN: usize = 8;

/// Every admin token of the deployment.
pub struct AdminTokens {
    keyring: Arc<Keyring>,
    known: RwLock<Known>,
}

/// What is known of admin tokens.
#[derive(Default)]
struct Known {
    tokens: HashMap<AdminTokenId, Arc<AdminTokenAuthority>>,
    /// Texts that were proven since a token changed last. Those who ask verify show the same one
    /// with each question.
    proven: Vec<Proven>,
}

/// The text of a token, wiped in the end, and the token.
struct Proven {
    text: Zeroizing<Box<[u8]>>,
    token: Arc<AdminTokenAuthority>,
}

impl Known {
    fn get(&self, id: AdminTokenId) -> Option<&Arc<AdminTokenAuthority>> {
        self.tokens.get(&id)
    }

    /// The token of a text that was proven before. What differs is not told by the time it takes.
    fn of_proven(&self, text: &str) -> Option<&Arc<AdminTokenAuthority>> {
        let proven = self.proven.iter().find(|it| is_same(&it.text, text.as_bytes()));
        proven.map(|it| &it.token)
    }

    fn has_room(&self) -> bool {
        self.proven.len() < MAX_PROVEN
    }

    /// Remembers a text that was proven, unless the token has changed meanwhile.
    fn note_proven(&mut self, text: &str, token: &Arc<AdminTokenAuthority>) {
        let is_current = self.get(token.id).is_some_and(|known| Arc::ptr_eq(known, token));
        if is_current && self.has_room() && self.of_proven(text).is_none() {
            let text = Zeroizing::new(Box::from(text.as_bytes()));
            self.proven.push(Proven { text, token: Arc::clone(token) });
        }
    }

    /// The tokens, to be changed: nothing that was proven counts from now on.
    fn change(&mut self) -> &mut HashMap<AdminTokenId, Arc<AdminTokenAuthority>> {
        self.proven.clear();
        &mut self.tokens
    }
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
        Self { keyring, known: RwLock::default() }
    }

    /// Puts a token in place of what was known of it.
    pub fn replace(&self, token: AdminTokenAuthority) {
        self.known.write().change().insert(token.id, Arc::new(token));
    }

    /// Forgets a token.
    pub fn remove(&self, token: AdminTokenId) {
        self.known.write().change().remove(&token);
    }

    /// Puts these tokens in place of all that were known.
    pub fn load(&self, tokens: impl IntoIterator<Item = AdminTokenAuthority>) {
        let loaded = tokens.into_iter().map(|token| (token.id, Arc::new(token)));
        *self.known.write().change() = loaded.collect();
    }

    /// What this set says of a token. When it is unknown the store may still know it.
    pub(crate) fn recognize(&self, text: &str) -> Recognized {
        if let Some(token) = self.known.read().of_proven(text) {
            return Recognized::Known(Arc::clone(token));
        }
        let Ok(presented) = self.keyring.format().parse(text) else {
            return Recognized::Malformed;
        };
        if presented.kind != SecretKind::Admin {
            return Recognized::ApiKey;
        }
        let id = AdminTokenId::from_bits(presented.id_bits);
        let Some(token) = self.known.read().get(id).cloned() else {
            disprove(&self.keyring, &presented);
            return if self.keyring.made(presented.id_bits) {
                Recognized::Unknown(id)
            } else {
                Recognized::Malformed
            };
        };
        let version = token.pepper_version;
        if self.keyring.verify(&presented, &token.hash, version) {
            // the others' way must not be barred for every token beyond those that fit
            if self.known.read().has_room() {
                self.known.write().note_proven(text, &token);
            }
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

#[cfg(test)]
mod tests {
    use keyward_core::key::Minted;
    use keyward_testkit::admin_token;

    use super::*;
    use crate::keyset::tests::{Fixed, keyring};

    fn set() -> AdminTokens {
        AdminTokens::new(Arc::new(keyring()))
    }

    fn is_known(set: &AdminTokens, text: &str) -> bool {
        matches!(set.recognize(text), Recognized::Known(_))
    }

    fn proven(set: &AdminTokens) -> usize {
        set.known.read().proven.len()
    }

    #[test]
    fn a_token_that_was_proven_is_as_good_as_what_is_known_of_it_now() {
        let set = set();
        let [one, other] = [(); 2].map(|()| set.keyring.mint(SecretKind::Admin, &Fixed));
        set.load([admin_token(&one), admin_token(&other)]);
        for _ in 0..3 {
            assert!(is_known(&set, one.secret.expose()));
        }
        assert_eq!(proven(&set), 1);

        let at = Timestamp::from_millis(1_800_000_000_000);
        set.replace(AdminTokenAuthority { revoked_at: Some(at), ..admin_token(&one) });
        assert_eq!(proven(&set), 0, "what was proven before a change counts no more");
        let admitted = set.recognize(one.secret.expose()).admit(at);
        assert_eq!(admitted.err(), Some(AdminDenial::Revoked));
        let admitted = set.recognize(one.secret.expose()).admit(at);
        assert_eq!(admitted.err(), Some(AdminDenial::Revoked), "nor once it is proven again");

        assert!(is_known(&set, other.secret.expose()));
        set.remove(AdminTokenId::from_bits(other.id_bits));
        assert!(!is_known(&set, other.secret.expose()));
        set.load([]);
        assert!(!is_known(&set, one.secret.expose()));
    }

    #[test]
    fn another_secret_is_not_proven_by_the_right_one() {
        let set = set();
        let minted = set.keyring.mint(SecretKind::Admin, &Fixed);
        set.load([admin_token(&minted)]);
        let right = minted.secret.expose();
        assert!(is_known(&set, right));
        for wrong in [&right[1..], &right[..right.len() - 1], &right.to_uppercase(), ""] {
            assert!(!is_known(&set, wrong));
        }
        let again = set.keyring.mint_for(minted.id_bits, SecretKind::Admin, &Fixed);
        assert!(matches!(set.recognize(again.secret.expose()), Recognized::Wrong));
        assert_eq!(proven(&set), 1);
    }

    #[test]
    fn a_proof_that_comes_behind_a_change_is_not_remembered() {
        let set = set();
        let minted = set.keyring.mint(SecretKind::Admin, &Fixed);
        set.load([admin_token(&minted)]);
        let before = set.known.read().get(AdminTokenId::from_bits(minted.id_bits)).cloned();
        set.replace(admin_token(&minted));
        let text = minted.secret.expose();
        set.known.write().note_proven(text, &before.unwrap());
        assert_eq!(proven(&set), 0);
    }

    #[test]
    fn few_texts_are_remembered() {
        let set = set();
        let minted: Vec<Minted> =
            (0..MAX_PROVEN + 3).map(|_| set.keyring.mint(SecretKind::Admin, &Fixed)).collect();
        set.load(minted.iter().map(admin_token));
        assert!(minted.iter().all(|it| is_known(&set, it.secret.expose())));
        assert_eq!(proven(&set), MAX_PROVEN);
        assert!(minted.iter().all(|it| is_known(&set, it.secret.expose())));
    }
}
