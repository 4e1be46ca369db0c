//! What proxies that ask for decisions are told, and how they prove that they may ask.

use std::sync::Arc;

use zeroize::Zeroizing;

use keyward_core::assertion::SigningKey;
use keyward_core::secret::is_same;

use crate::server::ListenerEnvironments;

/// The fewest bytes of the secret shared with proxies.
pub const MIN_PROXY_TOKEN_BYTES: usize = 32;

/// How forward-auth is set up.
pub struct ForwardAuth {
    /// The environments whose keys are accepted, by the host that a request was for.
    pub environments: ListenerEnvironments,
    /// The audience of assertions.
    pub audience: String,
    /// What signs them.
    pub assertion_key: Arc<SigningKey>,
    /// What admits a proxy whose address is not a trusted one.
    pub proxy_token: Option<ProxyToken>,
}

impl ForwardAuth {
    /// Whether this is the secret shared with proxies.
    pub(crate) fn admits(&self, presented: &[u8]) -> bool {
        self.proxy_token.as_ref().is_some_and(|token| token.is(presented))
    }
}

/// The secret shared with proxies. No formatter; wiped when dropped.
pub struct ProxyToken(Zeroizing<Vec<u8>>);

/// Why a text cannot be the secret shared with proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxyToken {
    /// Shorter than [`MIN_PROXY_TOKEN_BYTES`].
    #[error("the proxy token is shorter than 32 bytes")]
    TooShort,
    /// Not what a header can carry.
    #[error("the proxy token holds other characters than visible ASCII")]
    Unsendable,
}

impl ProxyToken {
    /// A secret of at least [`MIN_PROXY_TOKEN_BYTES`] visible ASCII characters.
    ///
    /// # Errors
    /// When it is shorter, or a header could not carry it.
    pub fn new(text: &str) -> Result<Self, InvalidProxyToken> {
        if text.len() < MIN_PROXY_TOKEN_BYTES {
            return Err(InvalidProxyToken::TooShort);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidProxyToken::Unsendable);
        }
        Ok(Self(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// Compares in constant time; only the length can be found out.
    fn is(&self, presented: &[u8]) -> bool {
        is_same(&self.0, presented)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_token_is_long_and_sendable() {
        let token = "0123456789abcdef0123456789abcdef";
        let known = ProxyToken::new(token).ok().unwrap();
        assert!(known.is(token.as_bytes()));
        assert!(!known.is(b"0123456789abcdef0123456789abcdeg") && !known.is(b""));
        let refused = |text: &str| ProxyToken::new(text).err();
        assert_eq!(refused(&token[1..]), Some(InvalidProxyToken::TooShort));
        assert_eq!(refused(&format!("{token} x")), Some(InvalidProxyToken::Unsendable));
    }
}
