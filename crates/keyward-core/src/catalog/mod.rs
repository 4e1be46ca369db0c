//! The catalogue of a product: its scopes, areas, roles and public routes, resolved to bits.

mod forwarding;
mod mint;
mod openapi;
mod route;
mod suggest;

use std::collections::BTreeMap;

pub use forwarding::Forwarding;
pub use route::{Alternative, Method, Route, RouteMatch};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::profile::{AuthorityMode, MAX_AREAS, Profile, RoleEntry, ScopeOrder};
use crate::scope::{MAX_SCOPES, ScopeName, ScopeSet};
use route::RouteTable;

/// A set of product areas as bits of their positions in one catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AreaSet(u64);

impl AreaSet {
    /// No area.
    pub const EMPTY: Self = Self(0);

    const fn of(position: usize) -> Self {
        if position < MAX_AREAS { Self(1 << position) } else { Self(0) }
    }

    /// The areas in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every area of `other` is in this set.
    pub const fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is no area in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A scope of the catalogue.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name.
    pub name: ScopeName,
    /// What it lets a key do.
    pub description: String,
    /// The permission level as the product words it.
    pub level: Option<String>,
    /// The product area it opens.
    pub area: String,
    areas: AreaSet,
    implied: ScopeSet,
}

/// A role of the catalogue.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// The areas it may use.
    pub areas: AreaSet,
    operations: Vec<String>,
}

impl Role {
    /// Whether its holder may use this scope of Keyward's own API.
    pub fn may_use(&self, management_scope: &str) -> bool {
        self.operations.iter().any(|granted| granted == "*" || granted == management_scope)
    }
}

/// Everything a decision needs to know about the product.
#[derive(Debug)]
pub struct Catalog {
    scopes: Vec<Scope>,
    areas: Vec<String>,
    roles: Vec<Role>,
    routes: RouteTable,
    warnings: Vec<String>,
    mode: AuthorityMode,
}

impl Catalog {
    /// Resolves a profile and its OpenAPI document. The message names what to fix.
    pub fn new(profile: &Profile, document: &Value) -> Result<Self> {
        profile.validate()?;
        let mut catalog = Self {
            scopes: Vec::new(),
            areas: Vec::new(),
            roles: Vec::new(),
            routes: RouteTable::default(),
            warnings: Vec::new(),
            mode: profile.authority.mode,
        };
        catalog.add_scopes(profile)?;
        for (name, entry) in &profile.roles {
            let role = catalog.role_of(name, entry)?;
            catalog.roles.push(role);
        }
        openapi::read_routes(document, &mut catalog)?;
        Ok(catalog)
    }

    /// The scopes, in the order of their names.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// The roles, in the order of their names.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The public routes, in the order of the document.
    pub fn routes(&self) -> &[Route] {
        self.routes.all()
    }

    /// The names of the areas.
    pub fn areas(&self) -> &[String] {
        &self.areas
    }

    /// What the document says that has no effect here.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The role of this name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// The position of the role of this name.
    pub fn role_position(&self, name: &str) -> Option<usize> {
        self.roles.iter().position(|role| role.name == name)
    }

    /// The route of a request. The path is the one that will be forwarded, without the query.
    pub fn route(&self, method: &str, path: &str) -> RouteMatch<'_> {
        self.routes.find(method, path)
    }

    /// The set of these names; names the catalogue does not know grant nothing.
    pub fn scope_set<S: AsRef<str>>(&self, names: &[S]) -> ScopeSet {
        names.iter().filter_map(|name| self.scope_position(name.as_ref())).fold(
            ScopeSet::EMPTY,
            |set, position| {
                let implied = self.scopes.get(position).map_or(ScopeSet::EMPTY, |s| s.implied);
                set.union(ScopeSet::of(position)).union(implied)
            },
        )
    }

    /// What it takes to have all of these scopes; `None` when the catalogue lacks one of them.
    pub fn requirement<S: AsRef<str>>(&self, names: &[S]) -> Option<Alternative> {
        let scopes = names.iter().try_fold(ScopeSet::EMPTY, |set, name| {
            let position = self.scope_position(name.as_ref())?;
            Some(set.union(ScopeSet::of(position)))
        })?;
        let areas = self.areas_of(scopes);
        Some(Alternative { scopes, areas })
    }

    /// The names of a set.
    pub fn scope_names(&self, set: ScopeSet) -> impl Iterator<Item = &str> {
        set.positions().filter_map(|position| self.scopes.get(position)).map(|s| s.name.as_str())
    }

    /// The names of a set of areas.
    pub fn area_names(&self, set: AreaSet) -> impl Iterator<Item = &str> {
        self.areas
            .iter()
            .enumerate()
            .filter(move |(position, _)| set.contains_all(AreaSet::of(*position)))
            .map(|(_, name)| name.as_str())
    }

    fn scope_position(&self, name: &str) -> Option<usize> {
        self.scopes.binary_search_by(|scope| scope.name.as_str().cmp(name)).ok()
    }

    fn areas_of(&self, set: ScopeSet) -> AreaSet {
        set.positions()
            .filter_map(|position| self.scopes.get(position))
            .fold(AreaSet::EMPTY, |areas, scope| areas.union(scope.areas))
    }

    fn add_scopes(&mut self, profile: &Profile) -> Result<()> {
        if profile.scopes.is_empty() || profile.scopes.len() > MAX_SCOPES {
            let text = format!("profile: scopes: 1 to {MAX_SCOPES} scopes");
            return Err(Error::validation("scopes", text));
        }
        for (text, entry) in &profile.scopes {
            let name: ScopeName = text
                .parse()
                .map_err(|e| Error::validation("scopes", format!("profile: scopes.{text}: {e}")))?;
            let (first, second) = name.halves();
            let resource = match profile.keys.scope_order {
                ScopeOrder::ResourceAction => first,
                ScopeOrder::ActionResource => second,
            };
            let area = entry.area.clone().unwrap_or_else(|| resource.to_owned());
            let areas = self.intern_area(&area)?;
            self.scopes.push(Scope {
                name,
                description: entry.description.clone(),
                level: entry.level.clone(),
                area,
                areas,
                implied: ScopeSet::EMPTY,
            });
        }
        if profile.keys.write_implies_read {
            self.imply_reads(profile.keys.scope_order);
        }
        Ok(())
    }

    fn imply_reads(&mut self, order: ScopeOrder) {
        let positions: BTreeMap<String, usize> =
            self.scopes.iter().enumerate().map(|(at, s)| (s.name.to_string(), at)).collect();
        for scope in &mut self.scopes {
            let read = match (order, scope.name.halves()) {
                (ScopeOrder::ResourceAction, (resource, "write")) => format!("{resource}:read"),
                (ScopeOrder::ActionResource, ("write", resource)) => format!("read:{resource}"),
                _ => continue,
            };
            scope.implied = positions.get(&read).map_or(ScopeSet::EMPTY, |at| ScopeSet::of(*at));
        }
    }

    fn intern_area(&mut self, name: &str) -> Result<AreaSet> {
        if let Some(position) = self.areas.iter().position(|area| area == name) {
            return Ok(AreaSet::of(position));
        }
        if self.areas.len() == MAX_AREAS {
            let text = format!("profile: at most {MAX_AREAS} product areas");
            return Err(Error::validation("areas", text));
        }
        self.areas.push(name.to_owned());
        Ok(AreaSet::of(self.areas.len() - 1))
    }

    fn role_of(&mut self, name: &str, entry: &RoleEntry) -> Result<Role> {
        let mut areas = AreaSet::EMPTY;
        for area in &entry.areas {
            areas =
                if area == "*" { AreaSet(u64::MAX) } else { areas.union(self.intern_area(area)?) };
        }
        let operations = entry.operations.clone();
        Ok(Role { name: name.to_owned(), title: entry.title.clone(), areas, operations })
    }
}

#[cfg(test)]
mod tests;
