//! The figures of a run: a table for people, JSON for programs.

use std::process::Command;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::ledger::Tally;
use crate::moment;

/// One line of the table.
struct Row {
    what: String,
    wanted: String,
    got: String,
    met: Option<bool>,
}

/// What is written at the end.
#[derive(Default)]
pub(crate) struct Report {
    rows: Mutex<Vec<Row>>,
    phases: Mutex<Map<String, Value>>,
}

/// Named figures.
#[derive(Default)]
pub(crate) struct Figures(Map<String, Value>);

impl Figures {
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    pub(crate) fn shown(self) -> Value {
        Value::Object(self.0)
    }
}

/// Spans in nanoseconds, sorted.
pub(crate) struct Spans(Vec<u64>);

impl Spans {
    pub(crate) fn new(mut spans: Vec<u64>) -> Self {
        spans.sort_unstable();
        Self(spans)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that this many of a thousand do not exceed, in milliseconds.
    pub(crate) fn at(&self, thousandths: usize) -> f64 {
        let position = (self.0.len() * thousandths).div_ceil(1_000).saturating_sub(1);
        moment::ms(self.0.get(position).copied().unwrap_or(0))
    }

    /// The longest, in nanoseconds.
    pub(crate) fn max_ns(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.at(1_000)
    }

    pub(crate) fn text(&self) -> String {
        format!("{:.1} / {:.1} / {:.1} ms", self.at(500), self.at(990), self.max())
    }

    pub(crate) fn shown(&self) -> Value {
        json!({
            "count": self.count(), "p50Ms": self.at(500), "p90Ms": self.at(900),
            "p99Ms": self.at(990), "maxMs": self.max(),
        })
    }
}

impl Report {
    /// A line that only informs.
    pub(crate) fn says(&self, what: &str, got: String) {
        eprintln!("  {what}: {got}");
        let row = Row { what: what.to_owned(), wanted: "–".to_owned(), got, met: None };
        self.rows.lock().push(row);
    }

    /// A line with something wanted.
    pub(crate) fn wants(&self, what: &str, wanted: &str, got: String, met: bool) {
        let verdict = if met { "reached" } else { "NOT REACHED" };
        eprintln!("  {what}: {got} (wanted {wanted}: {verdict})");
        let row = Row { what: what.to_owned(), wanted: wanted.to_owned(), got, met: Some(met) };
        self.rows.lock().push(row);
    }

    /// The figures of a phase.
    pub(crate) fn phase(&self, name: &str, figures: &Value, tally: &Arc<Tally>) {
        let figures = json!({ "figures": figures, "requests": tally.shown() });
        self.phases.lock().insert(name.to_owned(), figures);
    }

    /// Whether everything wanted was reached.
    pub(crate) fn is_met(&self) -> bool {
        self.rows.lock().iter().all(|row| row.met != Some(false))
    }

    /// The table in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = String::from("| | wanted | measured | |\n| --- | --- | --- | --- |\n");
        for Row { what, wanted, got, met } in self.rows.lock().iter() {
            let verdict = match met {
                Some(true) => "reached",
                Some(false) => "**not reached**",
                None => "",
            };
            for cell in [what, wanted, got, verdict] {
                table.push_str("| ");
                table.push_str(cell);
                table.push(' ');
            }
            table.push_str("|\n");
        }
        table
    }

    /// Everything.
    pub(crate) fn shown(&self, about: &Value, violations: &[Value]) -> Value {
        let row = |row: &Row| {
            let mut shown = Figures::default();
            shown.set("what", row.what.as_str());
            shown.set("wanted", row.wanted.as_str());
            shown.set("got", row.got.as_str());
            shown.set("met", row.met);
            shown.shown()
        };
        json!({
            "about": about,
            "rows": self.rows.lock().iter().map(row).collect::<Vec<_>>(),
            "phases": *self.phases.lock(),
            "violations": violations,
        })
    }
}

/// What belongs over every table of results.
pub(crate) fn circumstances(seed: u64, binary: &std::path::Path) -> Figures {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = file("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let changed = run("git", &["status", "--porcelain", "--untracked-files=no"]);
    let mut figures = Figures::default();
    figures.set("seed", seed);
    figures.set("commit", run("git", &["rev-parse", "--short", "HEAD"]));
    figures.set("changedSince", changed.is_some_and(|list| !list.is_empty()));
    figures.set("keyward", run(&binary.to_string_lossy(), &["--version"]));
    figures.set("kernel", file("/proc/sys/kernel/osrelease").trim());
    figures.set("processors", std::thread::available_parallelism().map_or(0, usize::from));
    figures.set("processor", model.map(|(_, name)| name));
    figures.set("loadAverage", file("/proc/loadavg").trim());
    figures.set("wallMs", moment::wall_ms());
    figures
}
