//! Public routes and how a request finds its own.

use std::fmt;

use crate::catalog::{AreaSet, Forwarding};
use crate::error::{Error, Result};
use crate::scope::ScopeSet;

/// The most routes in a catalogue.
pub(super) const MAX_ROUTES: usize = 4_096;

/// The methods a route can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 7] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// The word in a request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    /// The method of a request line. Methods are case-sensitive.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == word)
    }

    /// Whether it promises not to change anything (RFC 9110 §9.2.1).
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One way of being allowed: all of its scopes, within areas the role may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// The scopes a key needs, all of them.
    pub scopes: ScopeSet,
    /// The areas the role of the key's owner must be allowed.
    pub areas: AreaSet,
}

/// One operation of the product's API that keys may call.
#[derive(Clone, Debug)]
pub struct Route {
    /// The document's `operationId`.
    pub operation_id: String,
    /// The method.
    pub method: Method,
    /// The path template, such as `/v1/reports/{reportId}`.
    pub template: String,
    /// The document's summary.
    pub summary: String,
    /// Any one of these suffices.
    pub alternatives: Box<[Alternative]>,
    /// The alternatives as text for `Keyward-Accepted-Scopes`: `;` between them, `,` within one.
    pub accepted: String,
    /// The built-in operation of Keyward that serves it instead of an upstream.
    pub builtin: Option<String>,
    /// Whether it is never decided from memory alone: the authority is asked each time.
    pub strict: bool,
    /// How its requests are forwarded.
    pub forwarding: Forwarding,
}

/// What the allowlist says of a request.
#[derive(Clone, Copy, Debug)]
pub enum RouteMatch<'a> {
    /// This route.
    Route(&'a Route),
    /// The path is public, the method is not; these are.
    OtherMethods(&'a [Method]),
    /// Not on the allowlist.
    None,
}

#[derive(Debug, Default)]
struct PathEntry {
    methods: Vec<Method>,
    routes: Vec<usize>,
}

/// All routes, found by path and method.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    routes: Vec<Route>,
    paths: Vec<PathEntry>,
    by_template: std::collections::BTreeMap<String, usize>,
    matcher: matchit::Router<usize>,
}

impl RouteTable {
    pub(super) fn all(&self) -> &[Route] {
        &self.routes
    }

    pub(super) fn add(&mut self, route: Route) -> Result<()> {
        if self.routes.len() == MAX_ROUTES {
            let text = format!("the OpenAPI document has more than {MAX_ROUTES} routes");
            return Err(Error::validation("paths", text));
        }
        let position = if let Some(known) = self.by_template.get(&route.template) {
            *known
        } else {
            let position = self.paths.len();
            self.matcher
                .insert(&route.template, position)
                .map_err(|e| Error::validation("paths", format!("path {}: {e}", route.template)))?;
            self.by_template.insert(route.template.clone(), position);
            self.paths.push(PathEntry::default());
            position
        };
        if let Some(entry) = self.paths.get_mut(position) {
            entry.methods.push(route.method);
            entry.routes.push(self.routes.len());
        }
        self.routes.push(route);
        Ok(())
    }

    pub(super) fn find(&self, method: &str, path: &str) -> RouteMatch<'_> {
        let Some(entry) = self.matcher.at(path).ok().and_then(|hit| self.paths.get(*hit.value))
        else {
            return RouteMatch::None;
        };
        let mut candidates = entry.routes.iter().filter_map(|position| self.routes.get(*position));
        match candidates.find(|route| route.method.as_str() == method) {
            Some(route) => RouteMatch::Route(route),
            None => RouteMatch::OtherMethods(&entry.methods),
        }
    }
}
