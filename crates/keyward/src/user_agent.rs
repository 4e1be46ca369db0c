//! What is kept of a user agent: a caller's text that ends up in lists and in the audit trail.

use keyward_core::Environment;
use keyward_core::key::{SecretKind, TokenFormat};

/// The most characters that are kept.
const MAX_CHARS: usize = 256;
/// What stands in place of a text with a key in it.
const WITHHELD: &str = "(held a key, not kept)";

/// The user agent as it is kept: cut, without control characters, and not at all when a key of
/// this product begins in it, also one that was cut off.
pub(crate) fn kept(text: &str, format: &TokenFormat) -> String {
    let kinds = Environment::ALL.map(SecretKind::Api);
    if kinds.into_iter().chain([SecretKind::Admin]).any(|kind| text.contains(format.head(kind))) {
        return WITHHELD.to_owned();
    }
    let shown = text.chars().map(|c| if c.is_control() { '?' } else { c });
    shown.take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_control_characters_are_not_kept() {
        let format = TokenFormat::new("acme", |environment| environment.as_str().to_owned());
        assert_eq!(kept("curl/8.5", &format), "curl/8.5");
        assert_eq!(kept("acme_live_0gKz", &format), WITHHELD);
        assert_eq!(kept("x acme_adm_", &format), WITHHELD);
        assert_eq!(kept("a\nb\u{1b}c", &format), "a?b?c");
        assert_eq!(kept(&"x".repeat(MAX_CHARS + 1), &format).len(), MAX_CHARS);
    }
}
