//! The rows that a statement answers.

use std::fmt;
use std::ops::Range;

use super::{Statement, StoreError};

/// One answered row. Getters take the column's index from 0 and refuse another kind of value
/// with [`StoreError::Corrupt`].
pub struct Row {
    statement: &'static str,
    cells: Box<[Cell]>,
    held: Box<[u8]>,
}

/// A value of a row; texts and bytes are somewhere in what the row holds.
#[derive(Clone)]
enum Cell {
    Null,
    Int(i64),
    Text(Range<usize>),
    Blob(Range<usize>),
}

/// A value of a row, as it is read from an engine and by a getter.
#[derive(Clone, Copy)]
pub(super) enum Field<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl Field<'_> {
    /// The word for the value's kind in an error; the value itself may be confidential.
    const fn kind(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Int(_) => "an integer",
            Self::Text(_) => "text",
            Self::Blob(_) => "bytes",
        }
    }
}

/// Puts rows of one answer together. A load reads millions of them, so each takes two pieces of
/// memory and not one for every text.
pub(super) struct RowBuilder {
    statement: &'static Statement,
    cells: Vec<Cell>,
    held: Vec<u8>,
}

impl RowBuilder {
    pub(super) const fn new(statement: &'static Statement) -> Self {
        Self { statement, cells: Vec::new(), held: Vec::new() }
    }

    /// The next column's value.
    pub(super) fn push(&mut self, field: Field<'_>) {
        let cell = match field {
            Field::Null => Cell::Null,
            Field::Int(value) => Cell::Int(value),
            Field::Text(text) => Cell::Text(self.hold(text.as_bytes())),
            Field::Blob(bytes) => Cell::Blob(self.hold(bytes)),
        };
        self.cells.push(cell);
    }

    fn hold(&mut self, bytes: &[u8]) -> Range<usize> {
        let begin = self.held.len();
        self.held.extend_from_slice(bytes);
        begin..self.held.len()
    }

    /// The row of all values since the row before it.
    pub(super) fn row(&mut self) -> Row {
        let row = Row {
            statement: self.statement.name(),
            cells: Box::from(self.cells.as_slice()),
            held: Box::from(self.held.as_slice()),
        };
        self.cells.clear();
        self.held.clear();
        row
    }
}

impl Row {
    /// The number of columns.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether the row has no column.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// An integer that is never null.
    pub fn int(&self, column: usize) -> Result<i64, StoreError> {
        match self.field(column)? {
            Field::Int(value) => Ok(value),
            other => Err(self.mismatch(column, "an integer", other)),
        }
    }

    /// An integer or null.
    pub fn opt_int(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.field(column)? {
            Field::Null => Ok(None),
            _ => self.int(column).map(Some),
        }
    }

    /// A boolean stored as 0 or 1.
    pub fn bool(&self, column: usize) -> Result<bool, StoreError> {
        match self.int(column)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.corrupt(column, format!("expected 0 or 1, found {other}"))),
        }
    }

    /// Text that is never null.
    pub fn text(&self, column: usize) -> Result<&str, StoreError> {
        match self.field(column)? {
            Field::Text(value) => Ok(value),
            other => Err(self.mismatch(column, "text", other)),
        }
    }

    /// Text or null.
    pub fn opt_text(&self, column: usize) -> Result<Option<&str>, StoreError> {
        match self.field(column)? {
            Field::Null => Ok(None),
            _ => self.text(column).map(Some),
        }
    }

    /// Bytes that are never null.
    pub fn blob(&self, column: usize) -> Result<&[u8], StoreError> {
        match self.field(column)? {
            Field::Blob(value) => Ok(value),
            other => Err(self.mismatch(column, "bytes", other)),
        }
    }

    /// Bytes or null.
    pub fn opt_blob(&self, column: usize) -> Result<Option<&[u8]>, StoreError> {
        match self.field(column)? {
            Field::Null => Ok(None),
            _ => self.blob(column).map(Some),
        }
    }

    /// The error of a caller that could not parse what the column holds.
    pub fn corrupt(&self, column: usize, problem: impl Into<String>) -> StoreError {
        StoreError::Corrupt { statement: self.statement, column, problem: problem.into() }
    }

    fn field(&self, column: usize) -> Result<Field<'_>, StoreError> {
        let field = match self.cells.get(column) {
            Some(Cell::Null) => Some(Field::Null),
            Some(Cell::Int(value)) => Some(Field::Int(*value)),
            Some(Cell::Text(range)) => {
                let bytes = self.held.get(range.clone());
                bytes.and_then(|bytes| str::from_utf8(bytes).ok()).map(Field::Text)
            }
            Some(Cell::Blob(range)) => self.held.get(range.clone()).map(Field::Blob),
            None => None,
        };
        field.ok_or_else(|| {
            self.corrupt(column, format!("the row has only {} columns", self.cells.len()))
        })
    }

    fn mismatch(&self, column: usize, wanted: &str, found: Field<'_>) -> StoreError {
        self.corrupt(column, format!("expected {wanted}, found {}", found.kind()))
    }
}

/// Tells where the row is from, and not what may be confidential in it.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { statement, cells, .. } = self;
        f.debug_struct("Row")
            .field("statement", statement)
            .field("columns", &cells.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static STATEMENT: Statement = Statement::shared("ROW", "SELECT 1");

    #[test]
    fn each_row_has_its_own_values() {
        let mut rows = RowBuilder::new(&STATEMENT);
        for field in [Field::Text("key"), Field::Null, Field::Blob(b"\xff\0"), Field::Int(-7)] {
            rows.push(field);
        }
        let first = rows.row();
        for field in [Field::Text(""), Field::Text("grün"), Field::Blob(b""), Field::Int(1)] {
            rows.push(field);
        }
        let second = rows.row();

        assert_eq!((first.len(), first.is_empty(), rows.row().is_empty()), (4, false, true));
        assert_eq!((first.text(0).unwrap(), first.opt_text(1).unwrap()), ("key", None));
        assert_eq!((first.blob(2).unwrap(), first.int(3).unwrap()), (&b"\xff\0"[..], -7));
        assert_eq!((second.text(0).unwrap(), second.opt_text(1).unwrap()), ("", Some("grün")));
        assert_eq!((second.opt_blob(2).unwrap(), second.bool(3).unwrap()), (Some(&b""[..]), true));
    }

    #[test]
    fn another_kind_of_value_is_refused_without_being_told() {
        let mut rows = RowBuilder::new(&STATEMENT);
        rows.push(Field::Text("confidential"));
        rows.push(Field::Null);
        rows.push(Field::Int(2));
        let row = rows.row();
        let told = |error: StoreError| {
            let StoreError::Corrupt { statement: "ROW", column, problem } = error else {
                panic!("another error: {error}")
            };
            (column, problem)
        };
        let problem = |column, problem: &str| (column, problem.to_owned());
        let is = |error, expected| assert_eq!(told(error), expected);
        is(row.int(0).unwrap_err(), problem(0, "expected an integer, found text"));
        is(row.opt_blob(0).unwrap_err(), problem(0, "expected bytes, found text"));
        is(row.text(1).unwrap_err(), problem(1, "expected text, found null"));
        is(row.opt_text(2).unwrap_err(), problem(2, "expected text, found an integer"));
        is(row.bool(2).unwrap_err(), problem(2, "expected 0 or 1, found 2"));
        is(row.opt_int(3).unwrap_err(), problem(3, "the row has only 3 columns"));
        assert!(!format!("{row:?}").contains("confidential"));
    }
}
