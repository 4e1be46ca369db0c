//! Scopes: two-segment names, resolved against a catalogue to bits.

use std::fmt;
use std::str::FromStr;

/// The most scopes a catalogue may hold.
pub const MAX_SCOPES: usize = 128;
/// The most bytes in a scope name.
pub const MAX_SCOPE_BYTES: usize = 64;

/// A well-formed scope name, `resource:action` or `action:resource` as the profile has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeName(String);

impl ScopeName {
    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before and behind the colon.
    pub fn halves(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or((&self.0, ""))
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a scope name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidScopeName {
    /// One segment only, such as `reports`.
    #[error("a bare capability is not a scope")]
    Bare,
    /// A `*` anywhere.
    #[error("wildcards are not accepted")]
    Wildcard,
    /// Anything else that is not two segments of letters, digits, `-` and `_`.
    #[error(
        "a scope has two segments of lower-case letters, digits, '-' and '_', with ':' between"
    )]
    Malformed,
}

impl FromStr for ScopeName {
    type Err = InvalidScopeName;

    fn from_str(text: &str) -> Result<Self, InvalidScopeName> {
        if text.contains('*') {
            return Err(InvalidScopeName::Wildcard);
        }
        if text.len() > MAX_SCOPE_BYTES {
            return Err(InvalidScopeName::Malformed);
        }
        match text.split_once(':') {
            Some((first, second)) if is_segment(first) && is_segment(second) => {
                Ok(Self(text.to_owned()))
            }
            None if is_segment(text) => Err(InvalidScopeName::Bare),
            _ => Err(InvalidScopeName::Malformed),
        }
    }
}

/// Whether the text is a lower-case word as it stands in scopes, areas, roles and slugs.
pub fn is_segment(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// A set of scopes as bits of their positions in one catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(u128);

impl ScopeSet {
    /// No scope.
    pub const EMPTY: Self = Self(0);

    /// The set of the one scope at this position, empty when the position is past the last.
    pub const fn of(position: usize) -> Self {
        if position < MAX_SCOPES { Self(1 << position) } else { Self(0) }
    }

    /// The scopes in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The scopes of this set that the other lacks.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every scope of `other` is in this set.
    pub const fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is no scope in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many scopes it holds.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The positions of its scopes, ascending.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let position = left.trailing_zeros() as usize;
            // without its lowest bit
            left &= left.checked_sub(1)?;
            Some(position)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        let check = |text: &str| text.parse::<ScopeName>().map(|name| name.to_string());
        assert_eq!(check("reports:read"), Ok("reports:read".to_owned()));
        assert_eq!(check("read:universe"), Ok("read:universe".to_owned()));
        assert_eq!(check("reports"), Err(InvalidScopeName::Bare));
        assert_eq!(check("*"), Err(InvalidScopeName::Wildcard));
        assert_eq!(check("reports:*"), Err(InvalidScopeName::Wildcard));
        for text in ["", ":", "a:", ":a", "a:b:c", "Reports:read", "reports: read", "1:a"] {
            assert_eq!(check(text), Err(InvalidScopeName::Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in ".{0,80}") {
            if let Ok(name) = text.parse::<ScopeName>() {
                prop_assert_eq!(name.as_str(), text.as_str());
            }
        }

        #[test]
        fn sets_behave_like_sets(a: u128, b: u128) {
            let (a, b) = (ScopeSet(a), ScopeSet(b));
            prop_assert!(a.union(b).contains_all(a));
            prop_assert!(a.minus(b).union(b).contains_all(a));
            prop_assert_eq!(a.positions().count(), a.len() as usize);
        }
    }
}
