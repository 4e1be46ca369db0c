//! The limits of every field that callers fill in, and the checks against them.

use keyward_core::{Error, Result};

/// The most characters in a name of a tenant, user, service account, key or admin token.
pub const MAX_NAME_CHARS: usize = 64;
/// The most characters in a description.
pub const MAX_DESCRIPTION_CHARS: usize = 500;
/// The most characters in the comment or reason of a change.
pub const MAX_COMMENT_CHARS: usize = 500;
/// The most bytes in a tenant's slug.
pub const MAX_SLUG_BYTES: usize = 48;
/// The most bytes in an e-mail address.
pub const MAX_EMAIL_BYTES: usize = 254;
/// The most bytes in the name of a role.
pub const MAX_ROLE_BYTES: usize = 48;
/// The most scopes in one request.
pub const MAX_SCOPES: usize = 64;
/// The most bytes in the name of one scope.
pub const MAX_SCOPE_BYTES: usize = keyward_core::scope::MAX_SCOPE_BYTES;
/// The most networks in an IP list.
pub const MAX_NETWORKS: usize = keyward_core::ip::MAX_NETWORKS;
/// The most bytes in one network: the longest IPv6 text and a prefix length.
pub const MAX_NETWORK_BYTES: usize = 49;
/// The longest life of a key, in days.
pub const MAX_KEY_DAYS: u32 = 3_650;
/// The longest life of an admin token, in days.
pub const MAX_ADMIN_TOKEN_DAYS: u32 = 365;
/// The life of an admin token when the caller names none, in days.
pub const DEFAULT_ADMIN_TOKEN_DAYS: u32 = 90;
/// The longest overlap of a rotation, in seconds.
pub const MAX_OVERLAP_SECONDS: u32 = 30 * 86_400;
/// The overlap of a rotation when the caller names none, in seconds.
pub const DEFAULT_OVERLAP_SECONDS: u32 = 86_400;
/// The highest number of requests in one window.
pub const MAX_RATE_LIMIT: u32 = 1_000_000_000;
/// The longest window of a rate limit, in seconds.
pub const MAX_RATE_WINDOW_SECONDS: u32 = 86_400;
/// The longest path that can be explained or verified, in bytes.
pub const MAX_PATH_BYTES: usize = 2_048;
/// The longest HTTP method that can be explained or verified, in bytes.
pub const MAX_METHOD_BYTES: usize = 16;
/// The longest header value that can be explained, in bytes.
pub const MAX_HEADER_VALUE_BYTES: usize = 512;
/// The longest text of an IP address, in bytes.
pub const MAX_IP_BYTES: usize = 45;
/// The most bytes of a pasted secret.
pub const MAX_SECRET_BYTES: usize = 512;
/// The most calls for which scopes can be suggested at once.
pub const MAX_CALLS: usize = 64;
/// The fewest characters in an administrator's password.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// The most characters in an administrator's password.
pub const MAX_PASSWORD_CHARS: usize = 128;
/// The longest search text, in characters.
pub const MAX_SEARCH_CHARS: usize = 100;
/// The longest span of the unused filter, in days.
pub const MAX_UNUSED_DAYS: u32 = 3_650;
/// The most a single verification may cost.
pub const MAX_COST: u32 = 10_000;

/// A request that knows its limits.
pub trait Bounded {
    /// Refuses, with `validation_failed` naming the field, what is out of bounds.
    fn check(&self) -> Result<()>;
}

/// A name people read: 1 to [`MAX_NAME_CHARS`] characters, none of them a control character, and
/// not blank.
pub fn name(field: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::validation(field, format!("{field} must not be empty")));
    }
    characters(field, text, MAX_NAME_CHARS)
}

/// A text of at most `max` characters without control characters, line breaks excepted.
pub fn text(field: &str, text: &str, max: usize) -> Result<()> {
    let printable: String = text.chars().filter(|c| *c != '\n').collect();
    characters(field, &printable, max)
}

fn characters(field: &str, text: &str, max: usize) -> Result<()> {
    if text.chars().count() > max {
        return Err(Error::validation(field, format!("{field} has at most {max} characters")));
    }
    if text.chars().any(is_unshowable) {
        let message = format!("{field} must not contain control characters");
        return Err(Error::validation(field, message));
    }
    Ok(())
}

/// Whether a character is none that is shown: controls, the separators of lines and paragraphs, and
/// what turns the direction of the text around it, by which a name can be made to look like another
/// in a log (Unicode TR 36 §3.5).
fn is_unshowable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of 1 to `max` bytes.
pub fn bytes(field: &str, text: &str, max: usize) -> Result<()> {
    if text.is_empty() {
        return Err(Error::validation(field, format!("{field} must not be empty")));
    }
    if text.len() > max {
        return Err(Error::validation(field, format!("{field} has at most {max} bytes")));
    }
    Ok(())
}

/// A number of `min` to `max`, both included.
pub fn number(field: &str, value: u32, min: u32, max: u32) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::validation(field, format!("{field} must lie between {min} and {max}")))
}

/// A list of `min` to `max` entries.
pub fn count(field: &str, entries: usize, min: usize, max: usize) -> Result<()> {
    if entries < min {
        let message = format!("{field} needs at least {min} {}", entry_word(min));
        return Err(Error::validation(field, message));
    }
    if entries > max {
        let message = format!("{field} takes at most {max} {}", entry_word(max));
        return Err(Error::validation(field, message));
    }
    Ok(())
}

fn entry_word(entries: usize) -> &'static str {
    if entries == 1 { "entry" } else { "entries" }
}

/// A list of scope names: at least one, bounded in number and length. What they mean is for the
/// catalogue to say.
pub fn scopes(field: &str, scopes: &[String]) -> Result<()> {
    count(field, scopes.len(), 1, MAX_SCOPES)?;
    scopes.iter().try_for_each(|scope| bytes(field, scope, MAX_SCOPE_BYTES))
}

/// An e-mail address: one `@` with something around it, no blanks, at most [`MAX_EMAIL_BYTES`].
pub fn email(field: &str, text: &str) -> Result<()> {
    bytes(field, text, MAX_EMAIL_BYTES)?;
    let well_formed = text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    });
    if well_formed && !text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    Err(Error::validation(field, format!("{field} must be an address such as ada@example.com")))
}

/// A lower-case word of letters, digits and `-` that begins with a letter, as in slugs.
pub fn slug(field: &str, text: &str) -> Result<()> {
    bytes(field, text, MAX_SLUG_BYTES)?;
    let word = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if word && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase()) {
        return Ok(());
    }
    let message = format!(
        "{field} must begin with a letter and hold lower-case letters, digits and '-' only"
    );
    Err(Error::validation(field, message))
}

/// Checks a value that may be absent.
pub fn optional<T: ?Sized>(value: Option<&T>, check: impl FnOnce(&T) -> Result<()>) -> Result<()> {
    value.map_or(Ok(()), check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(result: Result<()>) -> Option<String> {
        let error = result.err()?;
        error.details().get("field").and_then(|f| f.as_str()).map(str::to_owned)
    }

    #[test]
    fn refusals_name_the_field() {
        let refused = Some("name".to_owned());
        assert_eq!(field_of(name("name", "billing worker")), None);
        assert_eq!(field_of(name("name", "  ")), refused);
        for unshowable in ['\u{7}', '\u{2028}', '\u{202e}', '\u{2067}'] {
            assert_eq!(field_of(name("name", &format!("a{unshowable}b"))), refused);
        }
        assert_eq!(field_of(name("name", &"é".repeat(MAX_NAME_CHARS))), None);
        assert_eq!(field_of(name("name", &"é".repeat(MAX_NAME_CHARS + 1))), refused);
        assert_eq!(field_of(text("name", "two\nlines", 10)), None);
        assert_eq!(field_of(number("name", 5, 1, 4)), refused);
        assert_eq!(field_of(count("name", 0, 1, 4)), refused);
        assert_eq!(field_of(count("name", 5, 1, 4)), refused);
    }

    #[test]
    fn addresses_slugs_and_scopes() {
        assert!(email("email", "ada@example.com").is_ok());
        for bad in ["", "ada", "@example.com", "ada@", "a@b@c", "a da@example.com"] {
            assert!(email("email", bad).is_err(), "{bad:?}");
        }
        assert!(slug("slug", "acme-inc").is_ok());
        for bad in ["", "Lagos", "1a", "-a", "a_b", "a b"] {
            assert!(slug("slug", bad).is_err(), "{bad:?}");
        }
        assert!(scopes("scopes", &[]).is_err());
        assert!(scopes("scopes", &["reports:read".to_owned()]).is_ok());
        assert!(scopes("scopes", &vec!["a:b".to_owned(); MAX_SCOPES + 1]).is_err());
    }
}
