//! What commands print: results on stdout, everything else on stderr.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table};
use keyward_api::keys::Explanation;
use keyward_api::verify::TraceStep;
use serde::Serialize;
use serde_json::Value;

use super::exit::{Done, Exit, Failure};

/// How a result looks. The variants have no help texts: they would make every help page long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // for people
    Table,
    // one JSON document, never cut
    Json,
    // one JSON document a line
    Ndjson,
    // the secret alone, what commands that make one print by default
    Secret,
    // the secret as a line of an env file
    Env,
}

/// Where results go and how they look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Option<Format>,
    quiet: bool,
}

/// Something that can stand in a table.
pub(crate) trait Listed {
    /// The headings of its columns.
    const HEADINGS: &'static [&'static str];
    /// Its cells, one for each heading.
    fn cells(&self) -> Vec<String>;
}

/// What stands for a value that is not there.
pub(crate) const NOTHING: &str = "-";

impl Output {
    pub(crate) const fn new(format: Option<Format>, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Prints entries of a list.
    pub(crate) fn list<T: Serialize + Listed>(self, entries: &[T]) -> Done {
        match self.plain()? {
            Format::Json => print_json(&serde_json::json!({ "data": entries })),
            Format::Ndjson => entries.iter().try_for_each(print_line),
            _ => {
                let rows = entries.iter().map(Listed::cells).collect();
                print(&table(T::HEADINGS, rows))
            }
        }
    }

    /// Prints one record.
    pub(crate) fn record<T: Serialize>(self, record: &T) -> Done {
        match self.plain()? {
            Format::Json => print_json(record),
            Format::Ndjson => print_line(record),
            _ => print(&lines_of(&to_value(record)?)),
        }
    }

    /// Prints a decision with the trace of its checks.
    pub(crate) fn explanation(self, explanation: &Explanation) -> Done {
        match self.plain()? {
            Format::Json => print_json(explanation),
            Format::Ndjson => print_line(explanation),
            _ => {
                let step =
                    |step: &TraceStep| vec![step.check.to_string(), step.outcome.to_string()];
                let trace = explanation.trace.iter().map(step).collect();
                let verdict = if explanation.allowed { "allowed" } else { "refused" };
                let why = explanation.message.as_deref().unwrap_or_default();
                let code = explanation.code.as_deref().unwrap_or_default();
                let head = format!("{verdict}  {code}  {why}");
                print(&format!("{}\n{}", printable(head.trim_end()), table(&["CHECK", ""], trace)))
            }
        }
    }

    /// Prints an answer with a secret: by default the secret alone, so that it can be piped on.
    pub(crate) fn secret<T: Serialize>(self, answer: &T, secret: Option<&str>) -> Done {
        let gone = || {
            let text = "the answer shows no secret: this request was answered before";
            let next = "keyward key reissue, within one hour and before the first use";
            Failure::new(Exit::Conflict, text).advising(next)
        };
        match self.format {
            Some(Format::Json) => print_json(answer),
            Some(Format::Ndjson) => print_line(answer),
            Some(Format::Env) => print(&format!("API_KEY={}\n", secret.ok_or_else(gone)?)),
            Some(Format::Table | Format::Secret) | None => {
                print(&format!("{}\n", secret.ok_or_else(gone)?))
            }
        }
    }

    /// Says something to the person at the terminal.
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            // there is nobody to tell when stderr is closed
            let _ = writeln!(std::io::stderr(), "{}", printable(text));
        }
    }

    fn plain(self) -> Done<Format> {
        match self.format {
            Some(Format::Secret | Format::Env) => {
                let text = "--output secret and env are for commands that make a secret";
                Err(Failure::usage(text, "use table, json or ndjson"))
            }
            Some(format) => Ok(format),
            None => Ok(Format::Table),
        }
    }
}

/// Prints text as it is. A reader that has gone away is no failure.
pub(crate) fn print(text: &str) -> Done {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Io, format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints one JSON document on several lines.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Done {
    print(&format!("{:#}\n", to_value(value)?))
}

fn print_line<T: Serialize>(value: &T) -> Done {
    print(&format!("{}\n", to_value(value)?))
}

fn to_value<T: Serialize>(value: &T) -> Done<Value> {
    serde_json::to_value(value).map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// A table, cut to the terminal when there is one.
fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(headings);
    if let Some(width) = terminal_width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for cells in rows {
        let cells: Vec<String> = cells.iter().map(|cell| printable(cell)).collect();
        let mut row = comfy_table::Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    let mut text = String::new();
    for line in table.lines() {
        let _ = writeln!(text, "{}", line.trim_end().strip_prefix(' ').unwrap_or(&line));
    }
    text
}

fn terminal_width() -> Option<u16> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col).filter(|width| *width > 0)
}

/// A record as one line for each member, nested ones with dots.
fn lines_of(record: &Value) -> String {
    let mut pairs = Vec::new();
    flatten("", record, &mut pairs);
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let line = |(name, value): &(String, String)| format!("{name:width$}  {}\n", printable(value));
    pairs.iter().map(line).collect()
}

fn flatten(name: &str, value: &Value, pairs: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{key}"), member, pairs);
            }
        }
        Value::Array(entries) if entries.iter().any(Value::is_object) => {
            for (position, entry) in entries.iter().enumerate() {
                flatten(&format!("{name}[{position}]"), entry, pairs);
            }
        }
        other => pairs.push((name.to_owned(), cell(other))),
    }
}

/// A JSON value as the text of a cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(entries) if entries.is_empty() => NOTHING.to_owned(),
        Value::Array(entries) => entries.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The text of an optional value.
pub(crate) fn or_nothing<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

/// Text of others without control characters, which could rewrite the terminal.
pub(crate) fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_lines_and_tables_have_columns() {
        let record = serde_json::json!({ "id": "k", "fence": { "epoch": 7 }, "scopes": ["a", "b"],
            "gone": null });
        assert_eq!(
            lines_of(&record),
            "fence.epoch  7\ngone         -\nid           k\nscopes       a, b\n"
        );
        let rows = vec![vec!["one".to_owned(), "\u{1b}[31m".to_owned()]];
        let text = table(&["ID", "NAME"], rows);
        assert!(text.contains("one") && text.contains("\u{fffd}[31m"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn secrets_are_asked_for_where_there_are_some() {
        let output = Output::new(Some(Format::Secret), true);
        assert_eq!(output.record(&1).unwrap_err().exit(), Exit::Usage);
        let answered = Output::new(None, true).secret(&1, None);
        assert_eq!(answered.unwrap_err().exit(), Exit::Conflict);
    }
}
