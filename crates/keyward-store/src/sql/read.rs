//! Reading typed values from rows.

use std::str::FromStr;

use keyward_core::Timestamp;
use keyward_core::ip::IpAllowlist;
use keyward_core::key::KeyHash;

use crate::engine::{Row, StoreError};

/// A value with a text form, such as an id.
pub(super) fn parsed<T: FromStr>(row: &Row, column: usize) -> Result<T, StoreError> {
    let text = row.text(column)?;
    text.parse().map_err(|_| row.corrupt(column, "not the expected form"))
}

/// A value with a text form, or null.
pub(super) fn opt_parsed<T: FromStr>(row: &Row, column: usize) -> Result<Option<T>, StoreError> {
    match row.opt_text(column)? {
        Some(_) => parsed(row, column).map(Some),
        None => Ok(None),
    }
}

/// An instant.
pub(super) fn instant(row: &Row, column: usize) -> Result<Timestamp, StoreError> {
    row.int(column).map(Timestamp::from_millis)
}

/// An instant, or null.
pub(super) fn opt_instant(row: &Row, column: usize) -> Result<Option<Timestamp>, StoreError> {
    Ok(row.opt_int(column)?.map(Timestamp::from_millis))
}

/// A JSON array of texts.
pub(super) fn list(row: &Row, column: usize) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(row.text(column)?).map_err(|e| row.corrupt(column, e.to_string()))
}

/// A list of networks.
pub(super) fn networks(row: &Row, column: usize) -> Result<IpAllowlist, StoreError> {
    IpAllowlist::parse(&list(row, column)?).map_err(|e| row.corrupt(column, e.to_string()))
}

/// A SHA-256 hash.
pub(super) fn hash(row: &Row, column: usize) -> Result<[u8; 32], StoreError> {
    row.blob(column)?.try_into().map_err(|_| row.corrupt(column, "not 32 bytes"))
}

/// A key hash with the version of its pepper in the column behind it.
pub(super) fn key_hash(row: &Row, column: usize) -> Result<(KeyHash, u16), StoreError> {
    let version = u16::try_from(row.int(column + 1)?)
        .map_err(|_| row.corrupt(column + 1, "not a pepper version"))?;
    Ok((KeyHash::from_bytes(hash(row, column)?), version))
}

/// A list of texts as a JSON array.
pub(super) fn json_list(texts: &[String]) -> String {
    serde_json::Value::from(texts.to_vec()).to_string()
}

/// Rows of a load in the order of `N` columns.
pub struct LoadPage<T, const N: usize> {
    rows: Vec<Row>,
    read: fn(&Row) -> Result<T, StoreError>,
    /// What the ordering columns of the last row have, readable or not: the next page begins behind
    /// it. `None` when there was no row.
    pub last: Option<[String; N]>,
}

impl<T, const N: usize> LoadPage<T, N> {
    pub(crate) fn new(
        rows: Vec<Row>,
        columns: [usize; N],
        read: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Self, StoreError> {
        let mut last = None;
        if let Some(row) = rows.last() {
            let mut texts = [const { String::new() }; N];
            for (text, column) in texts.iter_mut().zip(columns) {
                row.text(column)?.clone_into(text);
            }
            last = Some(texts);
        }
        Ok(Self { rows, read, last })
    }

    /// Reads what can be read, which takes milliseconds. A row that cannot is as if it were not
    /// there: whoever it is for is refused, and nobody else has to suffer for it.
    pub fn into_facts(self) -> Vec<T> {
        self.rows.iter().filter_map(|row| told((self.read)(row))).collect()
    }
}

/// A fact that can be read; else the log says why not.
pub(crate) fn told<T>(read: Result<T, StoreError>) -> Option<T> {
    read.inspect_err(|error| {
        tracing::error!(%error, "a row that is decided with cannot be read; it counts as missing");
    })
    .ok()
}
