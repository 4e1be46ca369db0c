//! One simulation from beginning to end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::chance::Chance;
use crate::client::{CLIENTS, clients};
use crate::faults::Faults;
use crate::node::node;
use crate::primary::{PRIMARY, primary};
use crate::scene::{Defect, Scene};

/// When everything is well again.
pub(crate) const HEAL_MS: u64 = 6_000;
/// When every node must be up to date: a lease and a second later.
pub(crate) const CHECK_MS: u64 = HEAL_MS + 3_000;
/// When one node dies for good.
pub(crate) const CRASH_MS: u64 = CHECK_MS + 800;
const END_MS: u64 = CRASH_MS + 3_600;
/// What is committed this long before the check must be known everywhere.
const KNOWN_AFTER_MS: u64 = 1_000;
const TICK_MS: u64 = 4;

/// What came of a simulation.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) simulated_ms: u64,
    pub(crate) requests: u64,
    pub(crate) accepted: u64,
    pub(crate) lowered: u64,
    pub(crate) promised: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) trace: String,
}

/// Runs the simulation that follows from a seed.
pub(crate) fn run(seed: u64, defect: Defect) -> Report {
    let mut chance = Chance::new(seed);
    let scene = Arc::new(Scene::new(chance.fork(), defect));
    let slowest_ms = chance.between(4, 40);
    let mut sim = turmoil::Builder::new()
        .rng_seed(chance.next())
        .epoch(SystemTime::UNIX_EPOCH)
        .tick_duration(Duration::from_millis(TICK_MS))
        .simulation_duration(Duration::from_hours(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(slowest_ms))
        .tcp_capacity(256)
        .udp_capacity(4_096)
        .enable_random_order()
        .build();
    let on_primary = Arc::clone(&scene);
    sim.host(PRIMARY, move || primary(Arc::clone(&on_primary)));
    for (host, machine) in scene.hosts.iter().enumerate() {
        let on_node = Arc::clone(&scene);
        sim.host(machine.name.as_str(), move || node(Arc::clone(&on_node), host));
    }
    let (of_clients, with) = (Arc::clone(&scene), chance.fork());
    sim.host(CLIENTS, move || clients(Arc::clone(&of_clients), with.clone()));
    let mut faults = Faults::new(Arc::clone(&scene), chance.fork());
    let mut due = (None, 0);
    for now_ms in (0..END_MS).step_by(usize::try_from(TICK_MS).unwrap()) {
        scene.tick_ms.store(now_ms, Ordering::SeqCst);
        match now_ms {
            HEAL_MS => faults.heal(&mut sim, now_ms),
            CHECK_MS => check_convergence(&scene, due),
            CRASH_MS => faults.crash(&mut sim, 0),
            _ => {}
        }
        if now_ms == CHECK_MS - KNOWN_AFTER_MS {
            let database = scene.database.lock();
            due = (Some(database.incarnation), database.epoch.0);
        }
        faults.step(&mut sim, now_ms);
        sim.step().unwrap();
    }
    drop(sim);
    if !scene.ledger.lock().is_complete {
        scene.violated("R5: no answer at all with a dead node");
    }
    let ledger = scene.ledger.lock();
    Report {
        seed,
        simulated_ms: END_MS,
        requests: ledger.requests,
        accepted: ledger.accepted,
        lowered: ledger.lowered,
        promised: ledger.promised,
        violations: ledger.violations.clone(),
        trace: scene.trace(),
    }
}

/// R3: every node has applied whatever was committed a second ago.
fn check_convergence(scene: &Scene, due: (Option<keyward_core::lease::Incarnation>, u64)) {
    let history = scene.database.lock().incarnation;
    let (seen, epoch) = due;
    for machine in &scene.hosts {
        let known = machine.plane.lock().upgrade().map_or(0, |plane| plane.epoch().0);
        if seen == Some(history) && known < epoch {
            let name = machine.name.as_str();
            scene.violated(&format!("R3: {name} knows {known} of {epoch} after all is well"));
        }
    }
}
