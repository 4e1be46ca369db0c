//! TLS of the listeners: which certificates, and how they are read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use keyward_core::time::Timestamp;
use keyward_gateway::Certificate;
use serde::{Deserialize, Serialize};

use super::private_file::{self, Readers};
use super::problem::Problem;
use super::units::Millis;

/// The largest chain that is read, in bytes.
const MAX_CHAIN_BYTES: u64 = 1024 * 1024;

/// Certificates of all listeners.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct CertificateFileSettings {
    /// How often the files are looked at for changes.
    pub(crate) check_every: Millis,
}

impl Default for CertificateFileSettings {
    fn default() -> Self {
        Self { check_every: Millis(30_000) }
    }
}

/// TLS of one listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TlsSettings {
    /// Certificates, chosen by the name a caller asks for; the first is for everybody else.
    /// Without one, and without `acme`, there is no TLS.
    pub(crate) certificate: Vec<CertificateSettings>,
    /// Whether it also shows the certificate of `[acme]`, and answers the authority's challenges.
    pub(crate) acme: bool,
}

/// A certificate and its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct CertificateSettings {
    /// A PEM file with the certificate and those that vouch for it, in order.
    pub(crate) chain_file: PathBuf,
    /// A PEM file with its private key, which at most its group may read.
    pub(crate) key_file: PathBuf,
}

impl TlsSettings {
    /// Whether connections are encrypted.
    pub(crate) const fn is_on(&self) -> bool {
        self.acme || !self.certificate.is_empty()
    }

    /// All files, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.certificate.iter().flat_map(|it| [&*it.chain_file, &*it.key_file])
    }

    /// Reads the certificates, which must be valid now.
    ///
    /// # Errors
    /// The first file that cannot be served, and why.
    pub(crate) fn read(&self, now: Timestamp) -> Result<Vec<Certificate>, Problem> {
        self.certificate.iter().map(|it| it.read(now)).collect()
    }
}

impl CertificateSettings {
    fn read(&self, now: Timestamp) -> Result<Certificate, Problem> {
        let chain = read_chain(&self.chain_file)?;
        let key = private_file::read(&self.key_file, Readers::Group, "the key of a certificate")?;
        let read = Certificate::from_pem(&chain, key.as_bytes());
        let checked = read.and_then(|certificate| certificate.check(now).map(|()| certificate));
        checked.map_err(|error| {
            let (chain, key) = (self.chain_file.display(), self.key_file.display());
            let text = format!("the certificate {chain} with the key {key}: {error}");
            Problem::new(
                text,
                "write both files anew, the certificate first and its issuers behind",
            )
        })
    }
}

fn read_chain(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: std::io::Error| {
        let text = format!("the certificate {} cannot be read: {error}", path.display());
        Problem::new(text, "name a PEM file that this user may read")
    };
    let mut chain = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_CHAIN_BYTES).read_to_end(&mut chain).map_err(unreadable)?;
    Ok(chain)
}
