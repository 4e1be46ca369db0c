//! The real state machines of the revocation protocol, in every order in which things can happen
//! to two nodes, a writer and a database, within small bounds; and the proof that the search would
//! find a broken rule.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "places and keys are within the bounds of the model; the numbers are the result"
)]

mod authority;
mod model;
mod process;
mod properties;
mod state;
mod world;
mod writer;

use stateright::{Checker, Model};
use world::World;

#[test]
fn probe() {
    let all = World { reaches: &["a revocation is answered"], settled: 2, ..World::CALM };
    let world = World { keys: 1, ..all };
    run(World { name: "1 two keys fail", failures: 1, ..all });
    run(World { name: "1 two keys hint", hints: 1, ..all });
    run(World { name: "2 joining 2 keys page", settled: 1, page: 1, ..all });
    run(World { name: "2b joining 1 key fail", settled: 1, failures: 1, ..world });
    run(World { name: "3 slow 2 keys", slow_renewals: true, ..all });
    run(World { name: "4 fills 1 node", fills: 2, nodes: 1, settled: 1, evictions: 1, loads_facts: false, keys: 2, slow_applies: true, ..all });
    run(World { name: "4b fills 1 node h2", fills: 3, nodes: 1, settled: 1, evictions: 1, loads_facts: false, keys: 2, slow_applies: true, horizon: 2,..all });
    run(World { name: "4b fills 2 nodes", fills: 2, evictions: 0, loads_facts: false, slow_applies: true, ..world });
    run(World { name: "6 restarts", crashes: 1, stops: 1, ..world });
    run(World { name: "6 crash fail", crashes: 1, failures: 1, ..world });
    run(World { name: "7 leaps", leaps: 1, horizon: 1, ..world });
    run(World { name: "7 leaps watch 1 node", leaps: 1, watches: true, nodes: 1, settled: 1, horizon: 2, ..world });
    run(World { name: "8 promotions", promotions: 1, ..world });
    run(World { name: "8 promotions 2 keys 1 node", promotions: 1, nodes: 1, settled: 1, ..all });
    run(World { name: "9 strict", strict: 2, failures: 1, ..world });
    run(World { name: "10 slow applies", slow_applies: true, ..world });
    run(World { name: "11 polls", polls: 1, promotions: 1, nodes: 1, settled: 1, watches: true, ..world });
    run(World { name: "12 together", together: true, aborts: 1, ..world });
    run(World { name: "13 watch", watches: true, ..world });
}

fn run(world: World) {
    let checker =
        world.checker().threads(2).target_state_count(6_000_000).spawn_dfs().join();
    eprintln!(
        "{}: {} states of {}, depth {}",
        world.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}
