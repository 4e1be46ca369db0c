//! Budgets and names: what keeps every file small enough to be read at once.

mod exceptions;
mod names;
mod rust;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use exceptions::Exceptions;

/// Lines of a file, its tests left out.
const MAX_FILE_LINES: usize = 500;
/// Lines of a file of tests, and of any file with its tests.
const MAX_TEST_FILE_LINES: usize = 800;
/// Lines of a function, blank lines and comments left out.
const MAX_FUNCTION_LINES: usize = 70;
/// Lines of a function that handles an operation, which is one named `handle`.
const MAX_HANDLER_LINES: usize = 40;
/// Characters of a line.
const MAX_COLUMNS: usize = 100;
/// The list of exceptions.
const EXCEPTIONS: &str = "xtask/tidy-exceptions.txt";
/// The files these rules are about.
const EXTENSIONS: [&str; 6] = ["rs", "sh", "sql", "ts", "tsx", "py"];

/// What was found amiss in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// The rule, as it stands in the list of exceptions.
    rule: &'static str,
    /// The file, or file and function.
    subject: String,
    /// How much there is.
    value: usize,
    /// How much there may be.
    limit: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, subject, value, limit } = self;
        write!(f, "{rule} {subject} {value} (at most {limit})")
    }
}

/// Checks every file git knows or would add.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut findings = Vec::new();
    for path in files(root)? {
        findings.extend(names::scan(&path));
        if !EXTENSIONS.iter().any(|extension| has_extension(&path, extension)) {
            continue;
        }
        let text =
            fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
        findings.extend(scan(&path, &text)?);
    }
    let list = fs::read_to_string(root.join(EXCEPTIONS))
        .with_context(|| format!("cannot read {EXCEPTIONS}"))?;
    let problems = Exceptions::parse(&list)?.apply(findings);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{} to correct:\n  {}", problems.len(), problems.join("\n  "))
}

/// All findings of one file.
fn scan(path: &str, text: &str) -> Result<Vec<Finding>> {
    if !has_extension(path, "rs") {
        return Ok(text::scan(path, text, &[]));
    }
    let source = rust::Source::parse(path, text)?;
    let mut findings = text::scan(path, text, source.test_lines());
    findings.extend(source.findings(path));
    Ok(findings)
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// Whether the whole file is about tests: `tests.rs`, anything in `tests/`, and `a.test.ts`.
fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.starts_with("tests.")
        || name.contains(".test.")
        || path.split('/').any(|part| part == "tests")
}

fn files(root: &Path) -> Result<Vec<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git")
        .current_dir(root)
        .args(arguments)
        .output()
        .context("cannot start git")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut files: Vec<String> = names
        .split('\0')
        .filter(|name| !name.is_empty() && root.join(name).is_file())
        .map(str::to_owned)
        .collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `value` by rule and subject of everything found in `text`.
    fn found(path: &str, text: &str) -> Vec<(&'static str, String, usize)> {
        let findings = scan(path, text).unwrap();
        findings.into_iter().map(|f| (f.rule, f.subject, f.value)).collect()
    }

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    work();\n".repeat(lines - 2))
    }

    #[test]
    fn a_tidy_file_has_no_findings() {
        let text = format!("{}{}", function("a", MAX_FUNCTION_LINES), function("handle", 40));
        assert_eq!(found("src/a.rs", &text), []);
    }

    #[test]
    fn long_functions_and_handlers_are_named_with_their_type() {
        let text = format!("struct A;\nimpl A {{\n{}}}\n", function("grow", 71));
        assert_eq!(found("src/a.rs", &text), [("function-lines", "src/a.rs:A::grow".into(), 71)]);
        let blank =
            function("a", 71).replace("{\n", "{\n\n    // why\n").replacen("    work();\n", "", 1);
        assert_eq!(found("src/a.rs", &blank), []);
        let text = function("handle", 41);
        assert_eq!(found("src/a.rs", &text), [("handler-lines", "src/a.rs:handle".into(), 41)]);
    }

    #[test]
    fn braces_in_strings_and_comments_do_not_count() {
        let text =
            "fn a() {\n    let _ = \"}\\\"{\";\n    // }\n    let _ = r#\"}\"#;\n}\nfn b() {}\n";
        assert_eq!(found("src/a.rs", text), []);
    }

    #[test]
    fn tests_at_the_end_of_a_file_have_their_own_budget() {
        let tests = |lines| {
            format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const _: () = ();\n".repeat(lines))
        };
        let product = "const A: () = ();\n".repeat(400);
        assert_eq!(found("src/a.rs", &format!("{product}{}", tests(300))), []);
        let all = [("file-lines", "src/a.rs".to_owned(), 903)];
        assert_eq!(found("src/a.rs", &format!("{product}{}", tests(500))), all);
        let product = "const A: () = ();\n".repeat(501);
        let part = [("file-lines", "src/a.rs".to_owned(), 501)];
        assert_eq!(found("src/a.rs", &format!("{product}{}", tests(10))), part);
        assert_eq!(found("src/tests.rs", &product), []);
    }

    #[test]
    fn long_lines_are_counted_in_characters() {
        assert_eq!(found("a.sh", &format!("{}\n", "é".repeat(100))), []);
        let text = format!("{}\nshort\n", "é".repeat(101));
        assert_eq!(found("a.sh", &text), [("columns", "a.sh".into(), 1)]);
    }

    #[test]
    fn notes_to_self_need_a_reference() {
        let note = |rest: &str| format!("// {}{rest}\n", text::NOTES[0]);
        assert_eq!(found("src/a.rs", &note(": later")), [("naked-note", "src/a.rs".into(), 1)]);
        assert_eq!(found("src/a.rs", &note("(docs/adr/0007): later")), []);
        assert_eq!(found("src/a.rs", "const MASTODON: u8 = 1;\n"), []);
    }

    #[test]
    fn tests_do_not_wait() {
        let wait = format!("{}(second);\n", text::WAIT);
        let inside = format!("fn a() {{\n{wait}}}\n");
        assert_eq!(found("src/a.rs", &inside), []);
        let test = format!("#[cfg(test)]\nmod tests {{\n{inside}}}\n");
        assert_eq!(found("src/a.rs", &test), [("wait-in-test", "src/a.rs".into(), 1)]);
        assert_eq!(found("tests/a.rs", &inside), [("wait-in-test", "tests/a.rs".into(), 1)]);
    }

    #[test]
    fn drawers_are_no_modules() {
        let inline = found("src/a.rs", "mod helpers {}\n");
        assert_eq!(inline, [("drawer-module", "src/a.rs:helpers".into(), 1)]);
        let named = |path| names::scan(path).len();
        assert_eq!(named("crates/a/src/utils.rs"), 1);
        assert_eq!(named("crates/a/src/common/mod.rs"), 1);
        assert_eq!(named("crates/a/src/commonwealth.rs"), 0);
        assert_eq!(named("docs/types.md"), 0);
    }
}
