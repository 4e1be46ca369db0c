//! Rules about lines, in any language.

use super::{Finding, MAX_COLUMNS, MAX_FILE_LINES, MAX_TEST_FILE_LINES, is_test_file};

/// Words of notes to oneself, in pieces so that this file has none.
pub(super) const NOTES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// The call that waits for time to pass, without its parenthesis.
pub(super) const WAIT: &str = concat!("sle", "ep");

/// Findings of a text. `tests` are the numbers of lines in test modules, from 1, ascending.
pub(super) fn scan(path: &str, text: &str, tests: &[usize]) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let in_tests = |number: usize| is_test_file(path) || tests.binary_search(&number).is_ok();
    let numbered = || lines.iter().zip(1_usize..);
    let count = |matches: &dyn Fn(&str, usize) -> bool| {
        numbered().filter(|(line, number)| matches(line, *number)).count()
    };
    let waits = format!("{WAIT}(");
    let (length, limit) = length(path, lines.len(), tests.len());
    [
        ("file-lines", length, limit),
        ("columns", count(&|line, _| line.chars().count() > MAX_COLUMNS), 0),
        ("naked-note", count(&|line, _| has_naked_note(line)), 0),
        ("wait-in-test", count(&|line, number| in_tests(number) && line.contains(&waits)), 0),
    ]
    .into_iter()
    .filter(|(_, value, limit)| value > limit)
    .map(|(rule, value, limit)| Finding { rule, subject: path.to_owned(), value, limit })
    .collect()
}

/// The length that counts and its limit: the product's part of a file, or the whole when tests
/// make it too long.
fn length(path: &str, lines: usize, tests: usize) -> (usize, usize) {
    let product = lines.saturating_sub(tests);
    if is_test_file(path) || lines > MAX_TEST_FILE_LINES {
        (lines, MAX_TEST_FILE_LINES)
    } else {
        (product, MAX_FILE_LINES)
    }
}

/// Whether the line holds the word of a note that is not followed by `(reference)`.
fn has_naked_note(line: &str) -> bool {
    NOTES.iter().any(|word| {
        line.match_indices(word).any(|(start, _)| {
            let before = line.get(..start).and_then(|text| text.chars().next_back());
            let after = line.get(start + word.len()..).and_then(|text| text.chars().next());
            let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !is_word(before) && !is_word(after) && after != Some('(')
        })
    })
}
