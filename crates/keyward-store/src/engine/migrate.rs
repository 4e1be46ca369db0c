//! Migrations: numbered, forward only, the same numbers and names on both engines.

use aws_lc_rs::digest;

use super::StoreError;

/// One numbered step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// `V0001__name`; versions rise without gaps.
    pub name: &'static str,
    /// The text for SQLite.
    pub sqlite: &'static str,
    /// The text for PostgreSQL.
    pub postgres: &'static str,
}

/// Includes the same file from both folders, so that a missing twin does not compile.
macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        vec![$(Migration {
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
        }),*]
    };
}

/// The migrations of this binary, oldest first.
pub fn migrations() -> Vec<Migration> {
    embedded![
        "V0001__schema",
        "V0002__row_level_security",
        "V0003__nodes",
        "V0004__database_roles",
        "V0005__suspect_keys",
        "V0006__tenant_writes",
        "V0007__exposed_keys"
    ]
}

impl Migration {
    /// The number in the name.
    ///
    /// # Errors
    /// [`StoreError::Internal`] when the name is not of the form `V0001__name`.
    pub fn version(&self) -> Result<u32, StoreError> {
        let digits = self.name.strip_prefix('V').and_then(|rest| rest.split_once("__"));
        digits
            .and_then(|(digits, _)| digits.parse().ok())
            .ok_or_else(|| StoreError::Internal(format!("`{}` names no migration", self.name)))
    }
}

/// A migration found in the history table of a database.
pub(super) struct Applied {
    pub(super) version: u32,
    pub(super) name: String,
    pub(super) checksum: String,
}

/// A migration still to run.
pub(super) struct Pending {
    pub(super) version: u32,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
    pub(super) checksum: String,
}

/// The SHA-256 of a migration's text in hex. Line ends are read as `\n` whatever the checkout
/// made of them.
fn checksum(sql: &str) -> String {
    let sum = digest::digest(&digest::SHA256, sql.replace("\r\n", "\n").as_bytes());
    hex(sum.as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The schema version of a database with this history; 0 for a new one.
pub(super) fn version_of(applied: &[Applied]) -> u32 {
    applied.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// What to run on a database with this history, after checking that it is ours.
///
/// # Errors
/// [`StoreError::NewerSchema`]; [`StoreError::Refused`] when a migration was edited after it
/// had run.
pub(super) fn plan(
    known: &[Migration],
    sql: impl Fn(&Migration) -> &'static str,
    applied: &[Applied],
) -> Result<Vec<Pending>, StoreError> {
    let newest = known.last().map_or(Ok(0), Migration::version)?;
    let found = version_of(applied);
    if found > newest {
        return Err(StoreError::NewerSchema { found, known: newest });
    }
    let mut pending = Vec::new();
    for migration in known {
        let version = migration.version()?;
        let text = sql(migration);
        let sum = checksum(text);
        match applied.iter().find(|found| found.version == version) {
            None => {
                pending.push(Pending { version, name: migration.name, sql: text, checksum: sum });
            }
            Some(found) if found.name == migration.name && found.checksum == sum => {}
            Some(found) => {
                return Err(StoreError::Refused(format!(
                    "migration {} of this binary is not the `{}` that the database ran: use the \
                     binary that made this database, or a later release",
                    migration.name, found.name
                )));
            }
        }
    }
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(version: u32, sql: &str) -> Applied {
        Applied { version, name: format!("V{version:04}__x"), checksum: checksum(sql) }
    }

    const TWO: &[Migration] = &[
        Migration { name: "V0001__x", sqlite: "one", postgres: "one" },
        Migration { name: "V0002__x", sqlite: "two", postgres: "two" },
    ];

    #[test]
    fn plans_what_is_missing_and_refuses_what_is_not_ours() {
        let names = |applied: &[Applied]| {
            plan(TWO, |m| m.sqlite, applied)
                .map(|pending| pending.iter().map(|p| p.version).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), [1, 2]);
        assert_eq!(names(&[applied(1, "one")]).unwrap(), [2]);
        assert_eq!(names(&[applied(1, "one"), applied(2, "two")]).unwrap(), [0; 0]);
        assert!(matches!(names(&[applied(1, "edited")]), Err(StoreError::Refused(_))));
        let newer = [applied(1, "one"), applied(2, "two"), applied(7, "seven")];
        assert!(matches!(names(&newer), Err(StoreError::NewerSchema { found: 7, known: 2 })));
    }

    #[test]
    fn line_ends_do_not_change_a_checksum() {
        assert_eq!(checksum("a\nb\n"), checksum("a\r\nb\r\n"));
    }

    #[test]
    fn versions_rise_without_gaps_and_every_file_is_listed() {
        let known = migrations();
        for (place, migration) in known.iter().enumerate() {
            assert_eq!(migration.version().unwrap() as usize, place + 1, "{}", migration.name);
        }
        for engine in ["sqlite", "postgres"] {
            let folder = format!("{}/migrations/{engine}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let listed: Vec<_> = known.iter().map(|m| format!("{}.sql", m.name)).collect();
            assert_eq!(files, listed, "files of {engine}");
        }
    }
}
