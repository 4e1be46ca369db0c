//! What all machines of one simulation share: the product, the letters, and the ledger.

use std::fmt::{Arguments, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{from_value, json};

use keyward_core::catalog::Catalog;
use keyward_core::key::{Keyring, Pepper, TagKey};
use keyward_core::profile::Profile;
use keyward_gateway::DataPlane;

use crate::chance::Chance;
use crate::client::Letter;
use crate::database::Database;
use crate::host::{Gate, HostClock};
use crate::ledger::Ledger;
use crate::primary::{Call, Said};
use crate::remote::Post;

/// The one scope of the product, and the roles with and without its area.
pub(crate) const SCOPE: &str = "reports:read";
pub(crate) const POWERFUL: &str = "analyst";
pub(crate) const POWERLESS: &str = "auditor";

/// What is broken on purpose, to see whether the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    /// The primary answers renewals with what a standby knows that lags behind.
    RenewalsFromStandby,
    /// Clocks of every other node run at a tenth of the speed, far beyond the bound.
    SlowClocks,
    /// Nodes count on leases that last four times as long as they tell the register.
    LongLeases,
}

/// A node's machine; it outlives the processes on it.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) clock: Arc<HostClock>,
    pub(crate) gate: Gate,
    pub(crate) plane: Mutex<Weak<DataPlane>>,
}

pub(crate) struct Scene {
    pub(crate) defect: Defect,
    /// Whether clocks do what they like, so that only strict requests are sent.
    pub(crate) wild: bool,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) hosts: Vec<Machine>,
    pub(crate) database: Mutex<Database>,
    pub(crate) standby: Mutex<Database>,
    pub(crate) calls: Post<Call>,
    pub(crate) answers: Post<Said>,
    pub(crate) letters: Post<Letter>,
    pub(crate) ledger: Mutex<Ledger>,
    /// How many times slower than usual the primary is.
    pub(crate) slowness: AtomicU64,
    /// Whether no more harm is done.
    pub(crate) calm: AtomicBool,
    pub(crate) tick_ms: AtomicU64,
    ids: AtomicU64,
    chance: Mutex<Chance>,
    trace: Mutex<String>,
}

impl Scene {
    pub(crate) fn new(mut chance: Chance, defect: Defect) -> Self {
        let wild = defect == Defect::None && chance.one_in(6);
        let count = 3 + chance.index(8) / 6 + chance.index(8) / 7;
        let hosts = (0..count).map(|position| Machine {
            name: format!("node-{position}"),
            clock: Arc::new(HostClock::new(chance.fork(), rate_ppm(&mut chance, position, defect))),
            gate: Gate::default(),
            plane: Mutex::default(),
        });
        Self {
            hosts: hosts.collect(),
            defect,
            wild,
            catalog: catalog(),
            keyring: Arc::new(keyring()),
            database: Mutex::default(),
            standby: Mutex::default(),
            calls: Post::default(),
            answers: Post::default(),
            letters: Post::default(),
            ledger: Mutex::default(),
            slowness: AtomicU64::new(1),
            calm: AtomicBool::new(false),
            tick_ms: AtomicU64::new(0),
            ids: AtomicU64::new(1),
            chance: Mutex::new(chance),
            trace: Mutex::default(),
        }
    }

    /// Draws from the randomness of the scene.
    pub(crate) fn chance<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.chance.lock())
    }

    pub(crate) fn id(&self) -> u128 {
        u128::from(self.ids.fetch_add(1, Ordering::SeqCst))
    }

    /// The bound on how much slower than true time a clock is, where it is kept.
    pub(crate) fn slowest_ppm(&self) -> u64 {
        if self.defect == Defect::SlowClocks { 11_000_000 } else { 500 }
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Writes down what happened.
    pub(crate) fn note(&self, what: Arguments<'_>) {
        let at = self.tick_ms.load(Ordering::SeqCst);
        writeln!(self.trace.lock(), "{at} {what}").unwrap();
    }

    /// Writes down that a promise was broken.
    pub(crate) fn violated(&self, what: &str) {
        let at = self.tick_ms.load(Ordering::SeqCst);
        self.note(format_args!("VIOLATION {what}"));
        self.ledger.lock().violations.push(format!("at {at} ms: {what}"));
    }

    pub(crate) fn trace(&self) -> String {
        self.trace.lock().clone()
    }
}

/// The rate of a machine's clock, within the bound.
pub(crate) fn rate_ppm(chance: &mut Chance, host: usize, defect: Defect) -> i64 {
    if defect == Defect::SlowClocks && host.is_multiple_of(2) {
        return -900_000;
    }
    i64::try_from(chance.below(501)).unwrap() - 250
}

fn profile() -> Profile {
    from_value(json!({
        "name": "acme", "title": "Acme", "base_path": "/v1", "openapi": "openapi.json",
        "keys": {"prefix": "acme", "environments": {"live": "live"}, "carriers": ["bearer"]},
        "scopes": {SCOPE: {"description": "."}, "audit:read": {"description": "."}},
        "roles": {
            POWERFUL: {"title": "Analyst", "areas": ["reports"]},
            POWERLESS: {"title": "Auditor", "areas": ["audit"]},
        },
    }))
    .unwrap()
}

fn catalog() -> Arc<Catalog> {
    let operation = |id: &str, scope: &str| {
        let security = json!([{"key": [scope]}]);
        json!({"operationId": id, "summary": ".", "security": security})
    };
    let document = json!({
        "openapi": "3.1.0",
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/v1/reports": {"get": operation("listReports", SCOPE)},
            "/v1/audit": {"get": operation("audit", "audit:read")},
        },
    });
    Arc::new(Catalog::new(&profile(), &document).unwrap())
}

fn keyring() -> Keyring {
    let format = profile().token_format();
    Keyring::new(format, TagKey::new(&[1; 32]), Pepper::new(1, &[2; 32]), Vec::new())
}
