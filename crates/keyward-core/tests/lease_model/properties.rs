//! What must hold in every state, and what must be reached lest the model says nothing.

use keyward_core::lease::Standing;
use stateright::{Expectation, Property};

use crate::authority::node_id;
use crate::process::{Fact, Process, subject};
use crate::state::{PROMISE, State};
use crate::world::World;
use crate::writer::Revocation;

type Condition = fn(&World, &State) -> bool;

/// The name of the property that is the promise.
pub(crate) const PROMISE_KEPT: &str = "the promise is kept";

const ALWAYS: [(&str, Condition); 6] = [
    (PROMISE_KEPT, |_, state| state.fault != Some(PROMISE)),
    ("nothing else goes wrong", |_, state| state.fault.is_none_or(|fault| fault == PROMISE)),
    ("what is effective stays so", effective_stays),
    ("a wait is bounded", waits_are_bounded),
    ("a lease is granted after its changes", |_, state| {
        state.processes.iter().all(leased_after_changes)
    }),
    ("memory follows the history it claims", |_, state| {
        state.processes.iter().all(|process| memory_follows(state, process))
    }),
];

const SOMETIMES: [(&str, Condition); 10] = [
    ("a revocation is answered", |world, state| {
        State::keys(world).any(|key| state.is_effective(key))
    }),
    ("all revocations are answered", |world, state| {
        State::keys(world).all(|key| state.is_effective(key))
    }),
    ("a key is accepted while the other is revoked", |world, state| {
        state.is_effective(0) && (0..world.nodes).any(|place| state.accepts(world, place, 1))
    }),
    ("a lease ends", |world, state| {
        let over = |place: usize| {
            let until_ns = state.processes[place].may_until_ns(world);
            until_ns > 0 && state.clock_ns(place) >= until_ns
        };
        (0..world.nodes).any(over)
    }),
    ("a change outwaits a lease", |world, state| {
        let valid = |key| state.processes.iter().any(|it| it.memory[key] == Fact::Valid);
        State::keys(world).any(|key| state.is_effective(key) && valid(key))
    }),
    ("a change is answered while a lease lasts", |world, state| {
        let lasts = |place| state.clock_ns(place) < state.processes[place].may_until_ns(world);
        state.is_effective(0) && (0..world.nodes).any(lasts)
    }),
    ("a quiet node is not waited for", |world, state| {
        State::keys(world).any(|key| skips_a_node(state, key))
    }),
    ("a reading is refused", |_, state| state.processes.iter().any(refuses_a_reading)),
    ("a node enters another history", |world, state| {
        let entered = |process: &Process| {
            process.protocol.incarnation() == Some(state.authority.incarnation)
                && process.may_until_ns(world) > 0
        };
        state.authority.incarnation.0 > 1 && state.processes.iter().any(entered)
    }),
    ("a silent node is forgotten", |world, state| {
        let known = |process: &Process| state.authority.row(process.number).is_some();
        world.leaps > 0 && !state.processes.iter().all(known)
    }),
];

pub(crate) fn always() -> Vec<Property<World>> {
    ALWAYS.iter().map(|(name, condition)| property(Expectation::Always, name, *condition)).collect()
}

pub(crate) fn sometimes() -> Vec<Property<World>> {
    let reached = |(name, condition): &(&'static str, Condition)| {
        property(Expectation::Sometimes, name, *condition)
    };
    SOMETIMES.iter().map(reached).collect()
}

fn property(expectation: Expectation, name: &'static str, condition: Condition) -> Property<World> {
    Property { expectation, name, condition }
}

fn effective_stays(_: &World, state: &State) -> bool {
    state.writer.revocations.iter().all(|revocation| match revocation {
        Revocation::Effective(fence) => {
            fence.clone().standing(state.writer_ns()) == Standing::Effective
        }
        _ => true,
    })
}

/// Whatever happens, a change is effective once the longest lease has passed after its commit.
fn waits_are_bounded(world: &World, state: &State) -> bool {
    let now_ns = state.writer_ns();
    let latest_ns = now_ns + world.terms.certainly_over_ns(world.terms.hold_ms());
    state.writer.revocations.iter().all(|revocation| match revocation {
        Revocation::Waiting(fence) => match fence.clone().standing(now_ns) {
            Standing::Effective => true,
            Standing::Propagating { by_ns, .. } => now_ns < by_ns && by_ns <= latest_ns,
        },
        _ => true,
    })
}

fn leased_after_changes(process: &Process) -> bool {
    process.lease.until_ns == 0 || process.protocol.applied() >= Some(process.granted)
}

/// Memory holds what its history says, up to what the node has applied; and nothing that its
/// history does not say.
fn memory_follows(state: &State, process: &Process) -> bool {
    let authority = &state.authority;
    if process.protocol.incarnation() != Some(authority.incarnation) {
        return true;
    }
    (0..process.memory.len()).all(|key| {
        let revoked = authority.revocation(key);
        match process.memory[key] {
            Fact::Absent => true,
            Fact::Valid => revoked.is_none_or(|epoch| process.protocol.applied() < Some(epoch)),
            Fact::Revoked => revoked.is_some(),
        }
    })
}

fn skips_a_node(state: &State, key: usize) -> bool {
    let (Revocation::Waiting(fence), Some(epoch)) =
        (&state.writer.revocations[key], state.revoked_at(key))
    else {
        return false;
    };
    let unapplied = |row: &&crate::authority::Row| row.applied < epoch;
    state.authority.rows.iter().filter(unapplied).any(|row| !fence.awaits(node_id(row.node)))
}

fn refuses_a_reading(process: &Process) -> bool {
    process.filling.iter().any(|fill| {
        let refused = |read| !process.fills.clone().admits(fill.stamp, read, &[subject(fill.key)]);
        fill.found.is_some_and(|(read, _)| refused(read))
    })
}
