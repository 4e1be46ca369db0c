//! The fewest scopes that allow some calls.

use crate::catalog::{Catalog, Role, Route};
use crate::scope::ScopeSet;

impl Catalog {
    /// A small set of scopes with which a key may call every one of the routes: no scope of it can
    /// be left out. Among several ways of being allowed the one that adds the fewest scopes wins.
    pub fn fewest_scopes(&self, routes: &[&Route]) -> ScopeSet {
        let mut chosen = ScopeSet::EMPTY;
        let mut open: Vec<&Route> = routes.to_vec();
        loop {
            open.retain(|route| !self.opens(chosen, route));
            // routes with one way left come first: what they need is needed anyway
            let ways = open.iter().flat_map(|route| {
                let choice = route.alternatives.len() > 1;
                let missing = route.alternatives.iter().map(|way| way.scopes.minus(chosen));
                missing.map(move |scopes| (choice, scopes.len(), scopes))
            });
            let next = ways.min_by_key(|(choice, added, _)| (*choice, *added));
            match next {
                Some((_, _, scopes)) => chosen = chosen.union(scopes),
                None => return self.without_idle(chosen, routes),
            }
        }
    }

    /// Whether a key with these scopes may call the route, when its owner's role allows it.
    pub fn opens(&self, scopes: ScopeSet, route: &Route) -> bool {
        let granted = self.with_implied(scopes);
        route.alternatives.iter().any(|way| granted.contains_all(way.scopes))
    }

    /// Whether a key with these scopes and an owner of this role may call the route.
    pub fn opens_for(&self, role: &Role, scopes: ScopeSet, route: &Route) -> bool {
        let granted = self.with_implied(scopes);
        route
            .alternatives
            .iter()
            .any(|way| granted.contains_all(way.scopes) && role.areas.contains_all(way.areas))
    }

    fn with_implied(&self, scopes: ScopeSet) -> ScopeSet {
        scopes
            .positions()
            .filter_map(|position| self.scopes.get(position))
            .fold(scopes, |set, scope| set.union(scope.implied))
    }

    /// The set without the scopes that later choices made idle.
    fn without_idle(&self, chosen: ScopeSet, routes: &[&Route]) -> ScopeSet {
        chosen.positions().fold(chosen, |set, position| {
            let smaller = set.minus(ScopeSet::of(position));
            let enough = routes.iter().all(|route| self.opens(smaller, route));
            if enough { smaller } else { set }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::catalog::{Alternative, AreaSet, Forwarding, Method};

    fn catalog() -> Catalog {
        let scope = |about: &str| json!({ "description": about });
        let profile = json!({
            "name": "demo",
            "title": "Demo",
            "base_path": "/v1",
            "openapi": "openapi.yaml",
            "keys": {
                "prefix": "dm",
                "carriers": ["bearer"],
                "environments": { "live": "live" },
                "write_implies_read": true,
            },
            "scopes": {
                "a:read": scope("A"),
                "a:write": scope("A"),
                "b:read": scope("B"),
                "c:read": scope("C"),
            },
            "roles": {
                "owner": { "title": "Owner", "areas": ["*"] },
                "reader": { "title": "Reader", "areas": ["b"] },
            },
        });
        let profile = serde_json::from_value(profile).unwrap();
        let document = json!({
            "openapi": "3.1.0",
            "components": {
                "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            },
            "paths": {
                "/a": { "get": { "operationId": "a", "security": [{ "key": ["a:read"] }] } },
            },
        });
        Catalog::new(&profile, &document).unwrap()
    }

    fn route(catalog: &Catalog, ways: &[&[&str]]) -> Route {
        let needed = |names: &&[&str]| catalog.requirement(names).unwrap();
        Route {
            operation_id: "x".into(),
            method: Method::Get,
            template: "/x".into(),
            summary: String::new(),
            alternatives: ways.iter().map(needed).collect(),
            accepted: String::new(),
            builtin: None,
            strict: false,
            forwarding: Forwarding::default(),
        }
    }

    fn names(catalog: &Catalog, routes: &[Route]) -> Vec<String> {
        let routes: Vec<&Route> = routes.iter().collect();
        let set = catalog.fewest_scopes(&routes);
        catalog.scope_names(set).map(str::to_owned).collect()
    }

    #[test]
    fn what_is_needed_anyway_is_used_again() {
        let catalog = catalog();
        let choice = route(&catalog, &[&["b:read"], &["c:read"]]);
        let fixed = route(&catalog, &[&["c:read"]]);
        assert_eq!(names(&catalog, &[choice, fixed]), ["c:read"]);
        let both = route(&catalog, &[&["a:read", "b:read"]]);
        assert_eq!(names(&catalog, &[both]), ["a:read", "b:read"]);
    }

    #[test]
    fn an_implied_scope_is_not_asked_for() {
        let catalog = catalog();
        let read = route(&catalog, &[&["a:read"]]);
        let write = route(&catalog, &[&["a:write"]]);
        assert_eq!(names(&catalog, &[read, write]), ["a:write"]);
    }

    #[test]
    fn a_role_opens_what_its_areas_cover() {
        let catalog = catalog();
        let choice = route(&catalog, &[&["b:read"], &["c:read"]]);
        let scopes = catalog.scope_set(&["b:read", "c:read"]);
        let reader = catalog.role("reader").unwrap();
        assert!(catalog.opens_for(reader, scopes, &choice));
        assert!(!catalog.opens_for(reader, catalog.scope_set(&["c:read"]), &choice));
    }

    proptest! {
        #[test]
        fn every_call_is_covered_and_nothing_is_idle(
            sets in prop::collection::vec(prop::collection::vec(1_u8..16, 1..4), 0..12)
        ) {
            let catalog = catalog();
            let way = |bits: &u8| {
                let scopes = (0..4).filter(|at| bits & (1 << at) != 0).map(ScopeSet::of);
                let scopes = scopes.fold(ScopeSet::EMPTY, ScopeSet::union);
                Alternative { scopes, areas: AreaSet::EMPTY }
            };
            let routes: Vec<Route> = sets
                .iter()
                .map(|ways| {
                    let alternatives = ways.iter().map(way).collect();
                    Route { alternatives, ..route(&catalog, &[]) }
                })
                .collect();
            let routes: Vec<&Route> = routes.iter().collect();
            let chosen = catalog.fewest_scopes(&routes);
            prop_assert!(routes.iter().all(|route| catalog.opens(chosen, route)));
            for position in chosen.positions() {
                let smaller = chosen.minus(ScopeSet::of(position));
                prop_assert!(!routes.iter().all(|route| catalog.opens(smaller, route)));
            }
        }
    }
}
