//! Whole deployments in simulated time: real followers and real decisions on 3 to 5 machines, with
//! a simulated primary, network and clocks, and everything going wrong that may.
//!
//! What is held against them, whatever happens:
//!
//! * R1: no request that is sent after a change was answered `effective` is accepted against it.
//! * R2: what was made is accepted by every node at once, or not decided; and it is decided when
//!   all is well.
//! * R3: a lease and a second after all is well again every node knows everything.
//! * R4: nothing is accepted without a lease or a question to the primary.
//! * R5: with a dead node a change takes effect within its lease and a second.
//! * R7: what was answered `propagating` is true by `effectiveBy`.
//!
//! A simulation follows from its seed alone. `KEYWARD_SIMULATE=SEED` prints what happens in one,
//! `KEYWARD_SIMULATE=FIRST..LAST` runs many.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod chance;
mod client;
mod database;
mod faults;
mod host;
mod ledger;
mod node;
mod primary;
mod remote;
mod run;
mod scene;

use std::sync::atomic::{AtomicU64, Ordering};

use run::{Report, run};
use scene::Defect;

/// Simulations of an ordinary run.
const SEEDS: u64 = 200;
/// Simulations of which one must notice a defect.
const SEEDS_OF_A_DEFECT: u64 = 40;
/// Threads, each with a simulation of its own at a time.
const THREADS: usize = 2;

/// Which simulations to run instead of the ordinary ones.
#[expect(clippy::disallowed_methods, reason = "how a failing simulation is run alone")]
fn wanted() -> Option<String> {
    std::env::var("KEYWARD_SIMULATE").ok()
}

/// Sums over many simulations.
#[derive(Default)]
struct Sums {
    seeds: u64,
    simulated_ms: u64,
    requests: u64,
    accepted: u64,
    lowered: u64,
    promised: u64,
    failed: Vec<u64>,
}

impl Sums {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.simulated_ms += report.simulated_ms;
        self.requests += report.requests;
        self.accepted += report.accepted;
        self.lowered += report.lowered;
        self.promised += report.promised;
        if !report.violations.is_empty() {
            self.failed.push(report.seed);
            let seed = report.seed;
            eprintln!("seed {seed} breaks a promise: {}", report.violations.join("; "));
            eprintln!(
                "run it alone: KEYWARD_SIMULATE={seed} cargo test -p keyward-gateway \
                 --test simulation -- --nocapture promises"
            );
        }
    }

    fn show(&self) -> String {
        format!(
            "{} seeds, {} simulated hours, {} requests ({} accepted), {} effective changes, \
             {} answered propagating, {} seeds with violations",
            self.seeds,
            self.simulated_ms / 3_600_000,
            self.requests,
            self.accepted,
            self.lowered,
            self.promised,
            self.failed.len(),
        )
    }
}

fn run_all(first: u64, last: u64, defect: Defect) -> Sums {
    let next = AtomicU64::new(first);
    let sums = parking_lot::Mutex::new(Sums::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= last {
                        return;
                    }
                    let report = run(seed, defect);
                    sums.lock().add(&report);
                }
            });
        }
    });
    sums.into_inner()
}

fn run_alone(seed: u64) -> Sums {
    let report = run(seed, Defect::None);
    eprintln!("{}", report.trace);
    let mut sums = Sums::default();
    sums.add(&report);
    sums
}

#[test]
fn the_promises_hold_whatever_goes_wrong() {
    let sums = wanted().map_or_else(
        || run_all(0, SEEDS, Defect::None),
        |text| match text.split_once("..") {
            Some((first, last)) => {
                run_all(first.parse().unwrap(), last.parse().unwrap(), Defect::None)
            }
            None => run_alone(text.parse().unwrap()),
        },
    );
    eprintln!("{}", sums.show());
    assert!(sums.failed.is_empty(), "seeds with violations: {:?}", sums.failed);
    assert!(sums.accepted > 0 && sums.lowered > 0, "nothing was tried");
}

#[test]
fn a_seed_says_everything() {
    for seed in [3, 17] {
        let (one, other) = (run(seed, Defect::None), run(seed, Defect::None));
        assert!(one.trace.len() > 1_000);
        assert!(one.trace == other.trace, "seed {seed} has two traces");
    }
}

/// Whether one of the first simulations notices a defect as this promise broken.
fn is_noticed(defect: Defect, promise: &str) -> bool {
    let mut reports = (0..SEEDS_OF_A_DEFECT).map(|seed| run(seed, defect));
    reports.any(|report| report.violations.iter().any(|it| it.contains(promise)))
}

#[test]
fn renewals_that_a_standby_answers_are_noticed() {
    assert!(is_noticed(Defect::RenewalsFromStandby, "R1"));
}

#[test]
fn clocks_that_are_far_too_slow_are_noticed() {
    assert!(is_noticed(Defect::SlowClocks, "R1"));
}

#[test]
fn leases_that_are_counted_on_for_too_long_are_noticed() {
    assert!(is_noticed(Defect::LongLeases, "R4"));
}
