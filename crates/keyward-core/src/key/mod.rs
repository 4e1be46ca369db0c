//! API keys: the record, its states and the rules of its life.

mod exposure;
mod keyring;
mod lowering;
mod record;
mod rotation;
mod token;

pub use exposure::{Exposed, Exposure};
pub use keyring::Keyring;
pub use lowering::KeyLowering;
pub use record::{
    ApiKey, KeyHint, KeyState, MAX_KEY_NAME_CHARS, REISSUE_WINDOW_MS, RateLimit, RevokeReason,
};
pub use rotation::{DEFAULT_OVERLAP_MS, MAX_OVERLAP_MS, Rotation};
pub use token::{
    KeyHash, KeySecret, MAX_TOKEN_BYTES, Minted, Pepper, Presented, SecretKind, TagKey, TokenError,
    TokenFormat,
};

#[cfg(test)]
mod tests;
