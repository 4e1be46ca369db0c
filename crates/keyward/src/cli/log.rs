//! Log lines on stderr: text for people, one JSON object a line for machines.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::Arc;

use keyward_core::Clock;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::exit::{Done, Exit, Failure};
use crate::config::settings::{LogFormat, LogSettings};

/// Starts logging for this process.
pub(super) fn start(settings: &LogSettings, clock: Arc<dyn Clock>) -> Done {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        let text = format!("log.level {:?}: {error}", settings.level);
        Failure::new(Exit::Config, text).advising("use a level such as info, or info,keyward=debug")
    })?;
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        builder.event_format(JsonLines(clock)).try_init()
    } else {
        builder.with_timer(Instants(clock)).with_ansi(false).try_init()
    };
    started.map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

struct Instants(Arc<dyn Clock>);

impl FormatTime for Instants {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", self.0.now())
    }
}

/// `ts`, `level`, `msg`, then the fields of the event at the top.
struct JsonLines(Arc<dyn Clock>);

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line(Map::new());
        line.put("ts", self.0.now().to_string());
        line.put("level", event.metadata().level().as_str().to_lowercase());
        line.put("target", event.metadata().target());
        event.record(&mut line);
        let text = serde_json::to_string(&line.0).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        let name = if name == "message" { "msg" } else { name };
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}
