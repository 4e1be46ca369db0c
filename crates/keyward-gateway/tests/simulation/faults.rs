//! What goes wrong: pauses, broken links, crashes, promotions, and clocks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use turmoil::Sim;

use keyward_core::lease::Incarnation;

use crate::chance::Chance;
use crate::client::CLIENTS;
use crate::primary::PRIMARY;
use crate::scene::{Defect, Scene, rate_ppm};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A machine takes no step.
    Pause(usize),
    /// Nothing gets through between a node and the primary.
    Cut(usize),
    /// Nothing gets through in one direction.
    CutTo(usize),
    CutFrom(usize),
    /// Everything gets through, but late.
    Hold(usize),
    /// Nothing gets through between the callers and a node.
    CutCallers(usize),
    Crash(usize),
    CrashPrimary,
    /// The primary is gone, and comes back as what a standby knows.
    Promote {
        behind: bool,
    },
    SlowPrimary,
    Clock(usize),
}

/// What is wrong now, and what may go wrong next.
pub(crate) struct Faults {
    scene: Arc<Scene>,
    chance: Chance,
    active: Vec<(u64, Kind)>,
    next_ms: u64,
    replicate_ms: u64,
    histories: u64,
}

impl Faults {
    pub(crate) fn new(scene: Arc<Scene>, chance: Chance) -> Self {
        let first = Incarnation::FIRST.0;
        let (active, next_ms, replicate_ms) = (Vec::new(), 900, 0);
        Self { scene, chance, active, next_ms, replicate_ms, histories: first }
    }

    /// What happens to the machines at this instant.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        if now_ms >= self.replicate_ms {
            *self.scene.standby.lock() = self.scene.database.lock().clone();
            let lags = self.scene.defect == Defect::RenewalsFromStandby;
            let (low, high) = if lags { (2_800, 3_600) } else { (5, 900) };
            self.replicate_ms = now_ms + self.chance.between(low, high);
        }
        let over: Vec<Kind> = self.take_over(|until_ms| until_ms <= now_ms);
        for kind in over {
            self.end(sim, kind, now_ms);
        }
        if now_ms >= self.next_ms {
            self.next_ms = now_ms + self.chance.between(20, 900);
            let kind = self.kind();
            if !self.active.iter().any(|(_, other)| collide(*other, kind)) {
                let lasts_ms = match self.chance.below(3) {
                    0 => self.chance.between(10, 300),
                    1 => self.chance.between(300, 1_500),
                    _ => self.chance.between(1_500, 4_500),
                };
                self.scene.note(format_args!("{kind:?} for {lasts_ms} ms"));
                self.active.push((now_ms + lasts_ms, kind));
                self.begin(sim, kind, now_ms);
            }
        }
    }

    /// Everything is well again.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        self.next_ms = u64::MAX;
        let over = self.take_over(|_| true);
        for kind in over {
            self.end(sim, kind, now_ms);
        }
        self.scene.calm.store(true, Ordering::SeqCst);
        self.scene.note(format_args!("all is well again"));
    }

    pub(crate) fn crash(&self, sim: &mut Sim<'_>, host: usize) {
        let name = self.scene.hosts[host].name.as_str();
        self.scene.note(format_args!("{name} dies"));
        sim.crash(name);
    }

    fn take_over(&mut self, is_over: impl Fn(u64) -> bool) -> Vec<Kind> {
        let over = self.active.extract_if(.., |(until_ms, _)| is_over(*until_ms));
        over.map(|(_, kind)| kind).collect()
    }

    fn kind(&mut self) -> Kind {
        let host = self.chance.index(self.scene.hosts.len());
        if self.scene.defect == Defect::SlowClocks {
            return Kind::Cut(0);
        }
        match self.chance.below(16) {
            0..3 => Kind::Pause(host),
            3 | 4 => Kind::Cut(host),
            5 => Kind::CutTo(host),
            6 => Kind::CutFrom(host),
            7 | 8 => Kind::Hold(host),
            9 => Kind::CutCallers(host),
            10 | 11 => Kind::Crash(host),
            12 => Kind::CrashPrimary,
            13 => Kind::Promote { behind: self.chance.one_in(2) },
            14 => Kind::SlowPrimary,
            _ => Kind::Clock(host),
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, kind: Kind, now_ms: u64) {
        let scene = Arc::clone(&self.scene);
        let name = |host: usize| scene.hosts[host].name.as_str();
        match kind {
            Kind::Pause(host) => scene.hosts[host].gate.set(true),
            Kind::Cut(host) => sim.partition(name(host), PRIMARY),
            Kind::CutTo(host) => sim.partition_oneway(name(host), PRIMARY),
            Kind::CutFrom(host) => sim.partition_oneway(PRIMARY, name(host)),
            Kind::Hold(host) => sim.hold(name(host), PRIMARY),
            Kind::CutCallers(host) => sim.partition(name(host), CLIENTS),
            Kind::Crash(host) => sim.crash(name(host)),
            Kind::CrashPrimary | Kind::Promote { .. } => sim.crash(PRIMARY),
            Kind::SlowPrimary => scene.slowness.store(4, Ordering::SeqCst),
            Kind::Clock(host) => {
                let rate_ppm = self.rate_ppm(host);
                scene.hosts[host].clock.set_rate(now_ms * 1_000_000, rate_ppm);
            }
        }
    }

    fn rate_ppm(&mut self, host: usize) -> i64 {
        if !self.scene.wild {
            return rate_ppm(&mut self.chance, host, self.scene.defect);
        }
        // stands still, creeps or races
        [-1_000_000, -900_000, -400_000, 600_000, 3_000_000][self.chance.index(5)]
    }

    fn end(&mut self, sim: &mut Sim<'_>, kind: Kind, now_ms: u64) {
        self.scene.note(format_args!("{kind:?} is over"));
        let scene = Arc::clone(&self.scene);
        let name = |host: usize| scene.hosts[host].name.as_str();
        match kind {
            Kind::Pause(host) => scene.hosts[host].gate.set(false),
            Kind::Cut(host) => sim.repair(name(host), PRIMARY),
            Kind::CutTo(host) => sim.repair_oneway(name(host), PRIMARY),
            Kind::CutFrom(host) => sim.repair_oneway(PRIMARY, name(host)),
            Kind::Hold(host) => sim.release(name(host), PRIMARY),
            Kind::CutCallers(host) => sim.repair(name(host), CLIENTS),
            Kind::Crash(host) => sim.bounce(name(host)),
            Kind::CrashPrimary => sim.bounce(PRIMARY),
            Kind::Promote { behind } => {
                self.promote(behind);
                sim.bounce(PRIMARY);
            }
            Kind::SlowPrimary => scene.slowness.store(1, Ordering::SeqCst),
            Kind::Clock(host) if scene.wild => {
                scene.hosts[host].clock.set_rate(now_ms * 1_000_000, 0);
            }
            Kind::Clock(_) => {}
        }
    }

    /// A standby becomes the primary, with another history from its first transaction on.
    fn promote(&mut self, behind: bool) {
        let mut database = self.scene.database.lock();
        if behind {
            *database = self.scene.standby.lock().clone();
        }
        self.histories = self.histories.max(database.incarnation.0) + 1;
        database.incarnation = Incarnation(self.histories);
        *self.scene.standby.lock() = database.clone();
        let lost = self.scene.ledger.lock().lose(&database);
        let (epoch, history) = (database.epoch, database.incarnation.0);
        self.scene.note(format_args!("history {history} begins at {epoch}; {lost} lost"));
    }
}

/// Whether two faults are about the same machine or link in a way that cannot be told apart.
fn collide(one: Kind, other: Kind) -> bool {
    let link = |kind: Kind| match kind {
        Kind::Cut(host) | Kind::CutTo(host) | Kind::CutFrom(host) | Kind::Hold(host) => Some(host),
        _ => None,
    };
    let is_primary = |kind: Kind| matches!(kind, Kind::CrashPrimary | Kind::Promote { .. });
    one == other
        || (is_primary(one) && is_primary(other))
        || (link(one).is_some() && link(one) == link(other))
}
