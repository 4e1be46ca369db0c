//! The product a deployment serves: its profile directory, read once at start.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use keyward_core::Catalog;
use keyward_core::profile::Profile;
use serde_json::Value;

/// The largest file of a profile in bytes.
const MAX_PROFILE_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// A profile with its resolved catalogue and its documents.
pub(crate) struct Product {
    /// `profile.toml`.
    pub(crate) profile: Profile,
    /// Scopes, roles and routes.
    pub(crate) catalog: Arc<Catalog>,
    /// The product's OpenAPI document.
    pub(crate) document: Value,
    /// Seeds of the sandbox, if the profile has some.
    pub(crate) seeds: Option<Value>,
}

impl Product {
    /// Reads a profile directory. The error names the file and what to fix.
    pub(crate) fn load(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("profile.toml");
        let profile: Profile = toml::from_str(&read(&path)?)
            .with_context(|| format!("{} is not a profile", path.display()))?;
        let document = document(&directory.join(&profile.openapi))?;
        let catalog = Catalog::new(&profile, &document)
            .map_err(|e| anyhow::anyhow!("{}: {}", directory.display(), e.public()))?;
        let seeds = profile.seeds.as_ref().map(|file| self::document(&directory.join(file)));
        Ok(Self { catalog: Arc::new(catalog), document, seeds: seeds.transpose()?, profile })
    }
}

/// Reads a YAML or JSON document.
fn document(path: &Path) -> anyhow::Result<Value> {
    yaml_serde::from_str(&read(path)?)
        .with_context(|| format!("{} is not a YAML or JSON document", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let size =
        std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    anyhow::ensure!(
        size <= MAX_PROFILE_FILE_BYTES,
        "{} is larger than {MAX_PROFILE_FILE_BYTES} bytes",
        path.display()
    );
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
