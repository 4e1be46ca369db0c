//! The list of exceptions, which may only shrink.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::{EXCEPTIONS, Finding};

/// The most exceptions there may be. Lower it when one is gone; never raise it.
const MOST_EXCEPTIONS: usize = 0;

/// What is excused: the value by rule and subject.
#[derive(Debug)]
pub(super) struct Exceptions(BTreeMap<(String, String), usize>);

impl Exceptions {
    /// Reads lines of `rule subject value`; `#` begins a comment.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let exceptions = Self::parse_any(text)?;
        if exceptions.0.len() > MOST_EXCEPTIONS {
            bail!("{EXCEPTIONS} may only shrink; it has more than {MOST_EXCEPTIONS} entries");
        }
        Ok(exceptions)
    }

    fn parse_any(text: &str) -> Result<Self> {
        let mut exceptions = BTreeMap::new();
        for (line, number) in text.lines().zip(1_usize..) {
            let entry = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = entry.split_whitespace().collect();
            let [rule, subject, value] = words.as_slice() else {
                if words.is_empty() {
                    continue;
                }
                bail!("{EXCEPTIONS}:{number}: write `rule subject value # reason`");
            };
            let value = value
                .parse()
                .with_context(|| format!("{EXCEPTIONS}:{number}: {value} is not a number"))?;
            let key = ((*rule).to_owned(), (*subject).to_owned());
            if exceptions.insert(key, value).is_some() {
                bail!("{EXCEPTIONS}:{number}: {rule} {subject} is there twice");
            }
        }
        Ok(Self(exceptions))
    }

    /// What is left to correct: findings that are not excused or have grown, and exceptions that
    /// are unused or looser than needed.
    pub(super) fn apply(mut self, findings: Vec<Finding>) -> Vec<String> {
        let mut problems = Vec::new();
        for finding in findings {
            let key = (finding.rule.to_owned(), finding.subject.clone());
            match self.0.remove(&key) {
                Some(excused) if excused == finding.value => {}
                Some(excused) if excused > finding.value => problems.push(format!(
                    "{finding} is excused up to {excused}: lower the exception to {}",
                    finding.value,
                )),
                _ => problems.push(finding.to_string()),
            }
        }
        let unused = self.0.keys();
        problems.extend(unused.map(|(rule, subject)| {
            format!("{rule} {subject} needs no exception any more: remove it")
        }));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(list: &str, value: usize) -> Vec<String> {
        let finding =
            Finding { rule: "file-lines", subject: "src/a.rs".to_owned(), value, limit: 500 };
        Exceptions::parse_any(list).unwrap().apply(vec![finding])
    }

    #[test]
    fn an_exception_fits_exactly() {
        let list = "# long by nature\nfile-lines src/a.rs 620 # a table\n";
        assert_eq!(problems(list, 620), Vec::<String>::new());
        assert!(problems(list, 621).concat().contains("621 (at most 500)"));
        assert!(problems(list, 610).concat().contains("lower the exception to 610"));
    }

    #[test]
    fn an_unused_exception_fails() {
        let list = "file-lines src/a.rs 620\ncolumns src/b.rs 1\n";
        assert!(problems(list, 620).concat().contains("columns src/b.rs needs no exception"));
    }

    #[test]
    fn a_malformed_list_is_refused() {
        for list in ["file-lines src/a.rs", "file-lines src/a.rs many", "a b 1\na b 2"] {
            assert!(Exceptions::parse_any(list).is_err(), "{list}");
        }
    }

    #[test]
    fn the_list_cannot_grow() {
        let list: Vec<String> =
            (0..=MOST_EXCEPTIONS).map(|n| format!("columns src/{n}.rs 1")).collect();
        assert!(Exceptions::parse(&list.join("\n")).is_err());
    }
}
