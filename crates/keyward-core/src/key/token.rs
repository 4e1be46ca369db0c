//! The text of a key: `{prefix}_{environment}_{id}{secret}{crc}`. The format never changes.
//!
//! * `id`: 22 base62 digits of 128 bits, 96 random and a 32-bit tag keyed by the deployment, so
//!   that a forged id costs no look-up;
//! * `secret`: 43 base62 digits of 256 random bits;
//! * `crc`: 6 base62 digits of the CRC-32 of everything before it, so that a torn paste or a
//!   swapped environment is caught offline.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::base62;
use crate::clock::Clock;
use crate::environment::Environment;
use crate::id::ID_DIGITS;
use crate::mac::MacKey;
use crate::secret::is_same;

const SECRET_DIGITS: usize = 43;
const SECRET_BYTES: usize = 32;
const CRC_DIGITS: usize = 6;
const BODY_BYTES: usize = ID_DIGITS + SECRET_DIGITS + CRC_DIGITS;
/// The most bytes of a token that are looked at.
pub const MAX_TOKEN_BYTES: usize = 160;
/// The environment word of admin tokens.
const ADMIN_WORD: &str = "adm";

/// The whole text of a key. It has no formatter and is wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeySecret(String);

impl KeySecret {
    /// The text, for the one response that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What kind of credential a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// A key of the product's API in this environment.
    Api(Environment),
    /// A token of Keyward's own API.
    Admin,
}

/// The HMAC-SHA-256 of id and secret under a pepper: all that is stored of a secret.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash as it was stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares without telling by its timing where two hashes differ.
    pub fn matches(&self, other: &Self) -> bool {
        is_same(&self.0, &other.0)
    }
}

/// One version of the secret that is mixed into every key hash. It lives outside the database.
pub struct Pepper {
    version: u16,
    key: MacKey,
}

impl Pepper {
    /// A pepper from its 32 bytes.
    pub fn new(version: u16, bytes: &[u8; 32]) -> Self {
        Self { version, key: MacKey::new(bytes) }
    }

    /// The number under which hashes made with it are stored.
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// The hash of a presented key.
    pub fn hash(&self, presented: &Presented<'_>) -> KeyHash {
        KeyHash(self.key.sign(presented.hashed.as_bytes()))
    }
}

/// The key of the 32-bit tag inside every id. It is never changed.
pub struct TagKey(MacKey);

impl TagKey {
    /// A tag key from its 32 bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(MacKey::new(bytes))
    }

    /// Whether an id was made by this deployment (a forger is right once in 2³²).
    pub fn made(&self, id_bits: u128) -> bool {
        self.tag(id_bits >> 32) == (id_bits & 0xffff_ffff)
    }

    fn tag(&self, random: u128) -> u128 {
        let full = self.0.sign(&random.to_be_bytes());
        full.iter().take(4).fold(0, |tag, byte| (tag << 8) | u128::from(*byte))
    }

    fn new_id(&self, clock: &dyn Clock) -> u128 {
        let mut random = [0_u8; 12];
        clock.fill_random(&mut random);
        let bits = random.iter().fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
        (bits << 32) | self.tag(bits)
    }
}

/// Why a text is not one of our keys. None of these costs a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the prefix of this product.
    #[error("the key does not begin with this product's prefix")]
    WrongPrefix,
    /// Too short, too long, or with foreign characters.
    #[error("the key is not complete")]
    Malformed,
    /// The checksum does not match: torn, mistyped, or its environment was changed.
    #[error("the checksum of the key does not match; it was changed or not copied whole")]
    WrongChecksum,
}

/// A well-formed token with a right checksum, not yet looked up.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// What it claims to be.
    pub kind: SecretKind,
    /// The 128 bits of the record's id.
    pub id_bits: u128,
    hashed: &'a str,
}

/// A new id with the only copy of its secret.
pub struct Minted {
    /// The 128 bits of the record's id.
    pub id_bits: u128,
    /// The text to show once.
    pub secret: KeySecret,
    /// What to store.
    pub hash: KeyHash,
    /// The version of the pepper behind the hash.
    pub pepper_version: u16,
    /// The last four characters.
    pub hint: [u8; 4],
}

/// The token prefix and environment words of one product.
#[derive(Clone, Debug)]
pub struct TokenFormat {
    heads: [String; 4],
    admin_head: String,
}

impl TokenFormat {
    /// A format from the product's prefix and its word for each environment.
    pub fn new(prefix: &str, word: impl Fn(Environment) -> String) -> Self {
        Self {
            heads: Environment::ALL.map(|environment| format!("{prefix}_{}_", word(environment))),
            admin_head: format!("{prefix}_{ADMIN_WORD}_"),
        }
    }

    /// What stands before the id, such as `acme_live_`.
    pub fn head(&self, kind: SecretKind) -> &str {
        match kind {
            SecretKind::Admin => &self.admin_head,
            SecretKind::Api(environment) => {
                self.heads.get(environment as usize).map_or("", String::as_str)
            }
        }
    }

    /// Makes a new secret.
    pub fn mint(
        &self,
        kind: SecretKind,
        tags: &TagKey,
        pepper: &Pepper,
        clock: &dyn Clock,
    ) -> Minted {
        self.mint_for(tags.new_id(clock), kind, pepper, clock)
    }

    /// Makes a new secret for an id that has one already (a re-issue).
    pub fn mint_for(
        &self,
        id_bits: u128,
        kind: SecretKind,
        pepper: &Pepper,
        clock: &dyn Clock,
    ) -> Minted {
        let mut random = Zeroizing::new([0_u8; SECRET_BYTES]);
        clock.fill_random(random.as_mut());
        let mut text = String::with_capacity(MAX_TOKEN_BYTES);
        text.push_str(self.head(kind));
        let hashed_from = text.len();
        push_digits(&mut text, &base62::encode::<ID_DIGITS>(&id_bits.to_be_bytes()));
        let mut secret = base62::encode::<SECRET_DIGITS>(random.as_ref());
        push_digits(&mut text, &secret);
        secret.zeroize();
        let presented =
            Presented { kind, id_bits, hashed: text.get(hashed_from..).unwrap_or_default() };
        let hash = pepper.hash(&presented);
        let crc = checksum(&text);
        push_digits(&mut text, &crc);
        let [.., a, b, c, d] = crc;
        Minted {
            id_bits,
            secret: KeySecret(text),
            hash,
            pepper_version: pepper.version,
            hint: [a, b, c, d],
        }
    }

    /// Reads a token: shape, prefix and checksum, no look-up.
    pub fn parse<'a>(&self, text: &'a str) -> Result<Presented<'a>, TokenError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let kind = self.kind_of(text).ok_or(TokenError::WrongPrefix)?;
        let head = self.head(kind);
        let body = text.get(head.len()..).ok_or(TokenError::Malformed)?;
        if body.len() != BODY_BYTES || !base62::are_digits(body.as_bytes()) {
            return Err(TokenError::Malformed);
        }
        let (signed, crc) = text.split_at(text.len() - CRC_DIGITS);
        if checksum(signed) != crc.as_bytes() {
            return Err(TokenError::WrongChecksum);
        }
        let hashed = body.get(..ID_DIGITS + SECRET_DIGITS).ok_or(TokenError::Malformed)?;
        let id = hashed.get(..ID_DIGITS).ok_or(TokenError::Malformed)?;
        let id_bits = base62::decode_number(id.as_bytes()).ok_or(TokenError::Malformed)?;
        Ok(Presented { kind, id_bits, hashed })
    }

    /// Whether a key of this product stands anywhere in the text, for redaction and refusal.
    pub fn occurs_in(&self, text: &str) -> bool {
        self.find_in(text).is_some()
    }

    /// The first thing in the text that looks like a key of this product, with as many digits as
    /// follow. It may be cut off or made up; [`Self::parse`] tells.
    pub fn find_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        let shortest = ID_DIGITS + SECRET_DIGITS;
        self.heads.iter().chain([&self.admin_head]).find_map(|head| {
            // most texts are too short for a search to be worth its preparation
            if text.len() < head.len() + shortest {
                return None;
            }
            text.match_indices(head.as_str()).find_map(|(at, _)| {
                let body = text.as_bytes().iter().skip(at + head.len());
                let digits = body.take_while(|byte| base62::is_digit(**byte)).count();
                let found = text.get(at..at + head.len() + digits)?;
                (digits >= shortest).then_some(found)
            })
        })
    }

    fn kind_of(&self, text: &str) -> Option<SecretKind> {
        let api = Environment::ALL.into_iter().map(SecretKind::Api);
        api.chain([SecretKind::Admin]).find(|kind| text.starts_with(self.head(*kind)))
    }
}

fn checksum(text: &str) -> [u8; CRC_DIGITS] {
    base62::encode_word(crc32fast::hash(text.as_bytes()))
}

fn push_digits(text: &mut String, digits: &[u8]) {
    text.extend(digits.iter().copied().map(char::from));
}

#[cfg(test)]
mod tests;
