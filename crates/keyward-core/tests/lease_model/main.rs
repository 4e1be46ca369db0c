//! The real state machines of the revocation protocol, in every order in which things can happen
//! to two nodes, a writer and a database, within small bounds; and the proof that the search would
//! find a broken rule.
//!
//! `LEASE_MODEL=wide` explores wider bounds as well, for minutes.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "places and keys are within the bounds of the model; the numbers are the result"
)]

mod authority;
mod model;
mod process;
mod properties;
mod state;
mod world;
mod worlds;
mod writer;

use stateright::{Checker, HasDiscoveries, Model};

use crate::model::Step;
use crate::properties::PROMISE_KEPT;
use crate::world::World;
use crate::worlds::{CLOCK_FIRST, FLAWED, SMALL, WIDE};

const THREADS: usize = 2;

#[test]
fn the_promise_is_kept_in_every_small_world() {
    let states: usize = SMALL.into_iter().map(explore).sum();
    eprintln!("{states:>9} states in all small worlds");
}

#[test]
fn the_clock_may_be_read_first_once_the_request_is_there() {
    explore(CLOCK_FIRST);
}

#[test]
fn the_promise_is_kept_in_the_wide_worlds_when_asked_for() {
    if std::env::var_os("LEASE_MODEL").is_some_and(|bounds| bounds == "wide") {
        let states: usize = WIDE.into_iter().map(explore).sum();
        eprintln!("{states:>9} states in all wide worlds");
    }
}

#[test]
fn every_broken_rule_is_found() {
    for world in FLAWED {
        let (steps, states) = shortest_counterexample(world);
        let count = steps.len();
        eprintln!("{count:>9} steps, {states} states: {}: {steps:?}", world.name);
    }
}

/// How a request comes to be accepted. The search goes on for a while behind the first finding, and
/// keeps the last one: what it found bounds the next search.
fn shortest_counterexample(world: World) -> (Vec<Step>, usize) {
    let mut shortest = None;
    let mut depth = usize::MAX;
    loop {
        let found = HasDiscoveries::AnyOf([PROMISE_KEPT].into());
        let search = world.checker().finish_when(found).target_max_depth(depth);
        let checker = search.spawn_bfs().join();
        let Some(path) = checker.discovery(PROMISE_KEPT) else {
            return shortest.unwrap_or_else(|| panic!("not found: {}", world.name));
        };
        let steps = path.into_actions();
        // a state behind n steps is at depth n + 1
        depth = steps.len() + 1;
        shortest = Some((steps, checker.unique_state_count()));
    }
}

/// Visits every state there is.
fn explore(world: World) -> usize {
    let checker = world.checker().threads(THREADS).spawn_dfs().join();
    let states = checker.unique_state_count();
    eprintln!("{states:>9} states, {:>3} steps deep: {}", checker.max_depth(), world.name);
    checker.assert_properties();
    states
}
