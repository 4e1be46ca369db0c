//! Which scopes a new key may carry.

use crate::catalog::{Catalog, Role};
use crate::error::{Error, ErrorCode, Result};
use crate::scope::{InvalidScopeName, ScopeName};

// the most scopes asked for at once
const MAX_REQUESTED_SCOPES: usize = 64;

/// Words that belong to the settings of a tenant. No key of the product's API opens them.
const SETTINGS_WORDS: [&str; 10] = [
    "settings",
    "tenant",
    "tenants",
    "workspace",
    "organization",
    "members",
    "users",
    "roles",
    "billing",
    "keys",
];

impl Catalog {
    /// The sorted names a new key carries, or a refusal that says which name is wrong and why:
    /// a bare capability, a wildcard, a tenant-settings scope, an unknown scope, or a scope beyond
    /// the role of the key's owner.
    pub fn scopes_for_new_key(&self, requested: &[String], role: &Role) -> Result<Vec<String>> {
        if requested.is_empty() || requested.len() > MAX_REQUESTED_SCOPES {
            let text = format!("Name 1 to {MAX_REQUESTED_SCOPES} scopes");
            return Err(Error::validation("scopes", text));
        }
        let mut names = Vec::with_capacity(requested.len());
        for text in requested {
            self.check_grantable(text, role)?;
            names.push(text.clone());
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn check_grantable(&self, text: &str, role: &Role) -> Result<()> {
        let refuse = |public: String| Err(Error::validation("scopes", public).with("scope", text));
        let name: ScopeName = match text.parse() {
            Ok(name) => name,
            Err(InvalidScopeName::Wildcard) => {
                let public = format!("{text:?} is a wildcard; name each scope the key needs");
                return refuse(public);
            }
            Err(InvalidScopeName::Bare) => {
                let full: Vec<&str> = self.scopes_about(text).collect();
                let public = format!("{text:?} is a bare capability, not a scope");
                return refuse(match full.as_slice() {
                    [] => public,
                    some => format!("{public}; use {}", some.join(" or ")),
                });
            }
            Err(error @ InvalidScopeName::Malformed) => {
                return refuse(format!("{text:?} is not a scope: {error}"));
            }
        };
        let Some(scope) = self.scope_position(name.as_str()).and_then(|at| self.scopes.get(at))
        else {
            let (first, second) = name.halves();
            if SETTINGS_WORDS.contains(&first) || SETTINGS_WORDS.contains(&second) {
                let public = format!("{text:?} is a tenant setting; API keys cannot hold it");
                return refuse(public);
            }
            return refuse(match self.nearest(text) {
                Some(near) => format!("There is no scope {text:?}; did you mean {near}?"),
                None => format!("There is no scope {text:?} in this product"),
            });
        };
        if role.areas.contains_all(scope.areas) {
            return Ok(());
        }
        let may: Vec<&str> = self
            .roles()
            .iter()
            .filter(|r| r.areas.contains_all(scope.areas))
            .map(|r| r.name.as_str())
            .collect();
        let public = format!("The role {} cannot hold {text}", role.name);
        Err(Error::new(ErrorCode::RbacDenied, public)
            .with("failed", "role")
            .with("scope", text)
            .with("role", role.name.clone())
            .with("rolesThatCan", may))
    }

    fn scopes_about<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.scopes()
            .iter()
            .map(|scope| &scope.name)
            .filter(move |name| {
                let (first, second) = name.halves();
                first == word || second == word
            })
            .map(ScopeName::as_str)
    }

    fn nearest(&self, text: &str) -> Option<&str> {
        let names = self.scopes().iter().map(|scope| scope.name.as_str());
        names
            .map(|name| (distance(name, text), name))
            .min()
            .filter(|(d, _)| *d <= 3)
            .map(|(_, n)| n)
    }
}

/// Levenshtein distance over bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let substituted = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = substituted.min(*cell + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}
