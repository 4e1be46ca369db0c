//! The secrets of a deployment: one private file, outside the database.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use keyward_core::Clock;
use keyward_core::assertion::{AssertionError, SigningKey};
use keyward_core::key::{Keyring, Pepper, TagKey, TokenFormat};
use keyward_store::ContextKey;
use toml::de::{DeTable, DeValue};
use zeroize::{Zeroize, Zeroizing};

use super::private_file::{self, Readers};
use super::problem::{ConfigError, Problem};
use super::settings::{DeploymentEnvironment, Settings};

/// Bytes of every secret.
const SECRET_BYTES: usize = 32;
/// The most versions of the pepper that are kept.
const MAX_PEPPERS: usize = 16;
/// What the file is called in messages.
const WHAT: &str = "the secrets file";

const FORMAT: &str = "every secret is 64 hexadecimal digits in quotes; `keyward config init \
                      --secrets-file FILE` writes a file that shows the shape";

type Secret = Zeroizing<[u8; SECRET_BYTES]>;

/// Peppers and signing secrets. No formatter; all of it is wiped when dropped.
pub(crate) struct DeploymentSecrets {
    key_id_tag: Secret,
    pepper: (u16, Secret),
    earlier_peppers: BTreeMap<u16, Secret>,
    store_context: Secret,
    assertion: Secret,
    assertion_seed: Secret,
}

impl DeploymentSecrets {
    /// Reads the file. A new deployment that is not in production gets one made.
    pub(crate) fn load(settings: &Settings, clock: &dyn Clock) -> Result<Self, ConfigError> {
        let path = path(settings);
        if !exists(&path)? {
            may_begin(settings, &path)?;
            create(&path, clock)?;
        }
        Ok(Self::read(&path)?)
    }

    /// Reads the file, which must be there.
    pub(crate) fn read(path: &Path) -> Result<Self, Problem> {
        let text = private_file::read(path, Readers::Owner, WHAT)?;
        parse(&text).map_err(|found| {
            let (place, what) = found;
            // a parser's own message could quote the line, and with it a secret
            Problem::new(format!("{WHAT} {}: {place}: {what}", path.display()), FORMAT)
        })
    }

    /// The secrets behind all keys, for tokens of this format.
    pub(crate) fn keyring(&self, format: TokenFormat) -> Keyring {
        let earlier = self.earlier_peppers.iter();
        let earlier = earlier.map(|(version, bytes)| Pepper::new(*version, bytes)).collect();
        let (version, bytes) = &self.pepper;
        let current = Pepper::new(*version, bytes);
        Keyring::new(format, TagKey::new(&self.key_id_tag), current, earlier)
    }

    /// The key under which tenant contexts are signed.
    pub(crate) fn context_key(&self) -> ContextKey {
        ContextKey::new(*self.store_context)
    }

    /// The key of HS256 assertions for upstreams without a secret of their own.
    pub(crate) fn shared_assertion_key(&self) -> Result<SigningKey, AssertionError> {
        SigningKey::hs256(&self.assertion[..])
    }

    /// The secret behind [`Self::shared_assertion_key`], for the sandbox that verifies with it.
    pub(crate) fn shared_assertion_secret(&self) -> &[u8; SECRET_BYTES] {
        &self.assertion
    }

    /// The key of EdDSA assertions.
    pub(crate) fn public_assertion_key(&self) -> Result<SigningKey, AssertionError> {
        SigningKey::eddsa(&self.assertion_seed[..])
    }
}

/// Where the secrets of these settings are.
pub(crate) fn path(settings: &Settings) -> PathBuf {
    let named = settings.secrets_file.clone();
    named.unwrap_or_else(|| settings.data_dir.0.join("secrets.toml"))
}

/// Whether the first start is still to come, which makes the secrets.
pub(crate) fn is_new_deployment(settings: &Settings) -> bool {
    let path = path(settings);
    !path.exists() && may_begin(settings, &path).is_ok()
}

fn exists(path: &Path) -> Result<bool, Problem> {
    path.try_exists().map_err(|error| {
        let text = format!("{WHAT} {}: {error}", path.display());
        Problem::new(text, "make its folder accessible to this user")
    })
}

/// Refuses to make secrets where others are missed: keys hashed with them would all stop.
fn may_begin(settings: &Settings, path: &Path) -> Result<(), Problem> {
    let shown = path.display();
    if settings.environment == DeploymentEnvironment::Production {
        let text = format!("{WHAT} {shown} is not there");
        let fix = format!(
            "make it once, with `keyward config init --secrets-file {shown}`, and give the same \
             file to every node"
        );
        return Err(Problem::new(text, fix));
    }
    let Some(database) = settings.store.url.strip_prefix("sqlite:") else {
        return Ok(());
    };
    let database = settings.data_dir.0.join(database);
    // an empty file is what a first start leaves that was stopped at once
    if std::fs::metadata(&database).is_ok_and(|about| about.len() > 0) {
        let text = format!(
            "{WHAT} {shown} is not there, but the database {} is: its keys were hashed with the \
             secrets that are missing",
            database.display()
        );
        return Err(Problem::new(text, "restore the secrets file from its backup"));
    }
    Ok(())
}

/// Writes a file with new secrets, unless there is one.
pub(crate) fn create(path: &Path, clock: &dyn Clock) -> Result<bool, Problem> {
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str("# Keyward's secrets. Keep a copy in a safe place: without them no key works.\n");
    for name in ["key-id-tag", "store-context", "assertion", "assertion-seed"] {
        push_secret(&mut text, name, clock);
    }
    text.push_str("\n[pepper]\ncurrent = 1\n");
    push_secret(&mut text, "1", clock);
    private_file::create(path, &text).map_err(|error| {
        let text = format!("{WHAT} {} cannot be written: {error}", path.display());
        Problem::new(text, "make its folder writable for this user")
    })
}

fn push_secret(text: &mut String, name: &str, clock: &dyn Clock) {
    let mut bytes = Zeroizing::new([0_u8; SECRET_BYTES]);
    clock.fill_random(&mut bytes[..]);
    let _ = write!(text, "{name} = \"");
    for byte in bytes.iter() {
        let _ = write!(text, "{byte:02x}");
    }
    text.push_str("\"\n");
}

/// Where in the file, and what is wrong there.
type Fault = (String, &'static str);

fn parse(text: &str) -> Result<DeploymentSecrets, Fault> {
    let line = |at: usize| {
        format!("line {}", text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1)
    };
    let document = DeTable::parse(text)
        .map_err(|error| (line(error.span().map_or(0, |span| span.start)), "this is not TOML"))?;
    let mut single = BTreeMap::new();
    let mut pepper = None;
    for (name, value) in document.into_inner() {
        let place = line(name.span().start);
        match (&**name.get_ref(), value.into_inner()) {
            ("pepper", DeValue::Table(versions)) => pepper = Some(peppers(&versions)?),
            ("key-id-tag" | "store-context" | "assertion" | "assertion-seed", value) => {
                single.insert(name.get_ref().to_string(), secret(&value, &place)?);
            }
            _ => return Err((place, "there is no such secret")),
        }
    }
    let mut take =
        |name: &str| single.remove(name).ok_or_else(|| (name.to_owned(), "this secret is missing"));
    let missing = || ("[pepper]".to_owned(), "this section is missing");
    let (pepper, earlier_peppers) = pepper.ok_or_else(missing)?;
    Ok(DeploymentSecrets {
        key_id_tag: take("key-id-tag")?,
        pepper,
        earlier_peppers,
        store_context: take("store-context")?,
        assertion: take("assertion")?,
        assertion_seed: take("assertion-seed")?,
    })
}

/// A secret with the number of its version.
type Versioned = (u16, Secret);

/// The pepper for new hashes, and those that old hashes were made with.
fn peppers(table: &DeTable<'_>) -> Result<(Versioned, BTreeMap<u16, Secret>), Fault> {
    let place = |name: &str| format!("[pepper] {name}");
    let mut current = None;
    let mut versions = BTreeMap::new();
    for (name, value) in table {
        let name: &str = name.get_ref();
        if name == "current" {
            let number = value.get_ref().as_integer().and_then(|n| n.as_str().parse().ok());
            current = Some(number.ok_or_else(|| (place(name), "not the number of a version"))?);
            continue;
        }
        let version: u16 =
            name.parse().map_err(|_| (place(name), "not `current`, not a number"))?;
        versions.insert(version, secret(value.get_ref(), &place(name))?);
    }
    let current = current.ok_or_else(|| (place("current"), "missing"))?;
    if versions.len() > MAX_PEPPERS {
        return Err(("[pepper]".to_owned(), "at most 16 versions"));
    }
    let unknown = || (place("current"), "there is no pepper of this version");
    let pepper = versions.remove(&current).ok_or_else(unknown)?;
    Ok(((current, pepper), versions))
}

fn secret(value: &DeValue<'_>, place: &str) -> Result<Secret, Fault> {
    let fault = || (place.to_owned(), "not 64 hexadecimal digits in quotes");
    let digits = value.as_str().ok_or_else(fault)?.as_bytes();
    if digits.len() != SECRET_BYTES * 2 {
        return Err(fault());
    }
    let mut bytes = Zeroizing::new([0_u8; SECRET_BYTES]);
    for (slot, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let mut number = pair.iter().try_fold(0_u8, |sum, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            Some((sum << 4) | u8::try_from(digit).ok()?)
        });
        *slot = number.ok_or_else(fault)?;
        number.zeroize();
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Err((place.to_owned(), "all zero is no secret"));
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
