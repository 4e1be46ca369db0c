//! Any JSON document is a catalogue or is refused with a text, and every route found is reachable
//! only by its own method.
#![no_main]

use std::sync::LazyLock;

use keyward_core::Catalog;
use keyward_core::catalog::RouteMatch;
use keyward_core::profile::Profile;
use libfuzzer_sys::fuzz_target;

static PROFILE: LazyLock<Profile> =
    LazyLock::new(|| toml::from_str(include_str!("profile.toml")).expect("the profile is ours"));

fuzz_target!(|data: &[u8]| {
    let Ok(document) = serde_json::from_slice(data) else {
        return;
    };
    match Catalog::new(&PROFILE, &document) {
        Ok(catalog) => {
            for route in catalog.routes() {
                assert!(!route.alternatives.is_empty());
                assert!(!matches!(
                    catalog.route("NONE", &route.template),
                    RouteMatch::Route(_)
                ));
            }
        }
        Err(error) => assert!(!error.public().is_empty()),
    }
});
