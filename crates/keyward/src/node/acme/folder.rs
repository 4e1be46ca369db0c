//! The folder of `[acme]`: the account, the certificate with its key, and the challenges of an
//! order under way. Nodes that share it share all three; one of them orders at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use keyward_core::time::Timestamp;
use keyward_gateway::Certificate;
use zeroize::Zeroizing;

use crate::config::private_file::{self, Readers};
use crate::config::{Problem, Settings};

const ACCOUNT: &str = "account.json";
const CERTIFICATE: &str = "certificate.pem";
const LOCK: &str = "lock";
/// What the files of challenges begin and end with.
const CHALLENGE: (&str, &str) = ("challenge-", ".pem");
/// What the names of unfinished files end with.
const UNFINISHED: &str = ".new";

/// What the authority gave, and what it is shown.
pub(crate) struct AcmeFolder {
    path: PathBuf,
    domains: Vec<String>,
}

/// The right to order. It ends when this is dropped, and with the process.
pub(super) struct Turn {
    _locked: File,
}

/// A challenge that is answered until this is dropped.
pub(super) struct Answered {
    file: PathBuf,
}

impl AcmeFolder {
    /// That of these settings. Each authority has one of its own, so that a change of the
    /// authority begins anew and a change back does not.
    pub(crate) fn of(settings: &Settings) -> Self {
        let authority = settings.acme.directory_url.trim_start_matches("https://");
        let letter = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let authority: String = authority.chars().map(letter).collect();
        Self { path: settings.acme_dir().join(authority), domains: settings.acme.names() }
    }

    /// The names that are ordered.
    pub(super) fn domains(&self) -> &[String] {
        &self.domains
    }

    /// The file with the certificate, those that vouch for it, and its key.
    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.path.join(CERTIFICATE)
    }

    /// The certificate that is kept, valid or not; nothing before the first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn certificate(&self) -> Result<Option<Certificate>, Problem> {
        let file = self.certificate_file();
        let Some(pem) = read(&file, "the certificate of [acme]")? else {
            return Ok(None);
        };
        let certificate = Certificate::from_pem(pem.as_bytes(), pem.as_bytes());
        certificate.map(Some).map_err(|error| {
            let text = format!("the certificate {}: {error}", file.display());
            Problem::new(text, "remove the file; another certificate is ordered then")
        })
    }

    /// The same, which must be valid now.
    ///
    /// # Errors
    /// When it cannot be read, or is not valid any more.
    pub(crate) fn valid_certificate(&self, now: Timestamp) -> Result<Option<Certificate>, Problem> {
        let kept = self.certificate()?;
        let checked = kept.map(|certificate| certificate.check(now).map(|()| certificate));
        checked.transpose().map_err(|error| {
            let text = format!("the certificate {}: {error}", self.certificate_file().display());
            Problem::new(text, "look into the log of the node why no other was issued")
        })
    }

    /// Puts this chain with its key in the place of what is kept.
    pub(super) fn keep_certificate(&self, chain: &str, key: &str) -> io::Result<()> {
        let text = Zeroizing::new(format!("{}\n{key}", chain.trim_end()));
        private_file::replace(&self.certificate_file(), &text)
    }

    /// The account that is kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn account(&self) -> Result<Option<Zeroizing<String>>, Problem> {
        read(&self.path.join(ACCOUNT), "the account of [acme]")
    }

    /// Puts this account in the place of the one that is kept.
    pub(super) fn keep_account(&self, text: &str) -> io::Result<()> {
        private_file::replace(&self.path.join(ACCOUNT), text)
    }

    /// What is shown to an authority that looks who holds this name.
    pub(crate) fn challenge(&self, name: &str) -> Option<Certificate> {
        // nobody else decides which files are read
        let name = self.domains.iter().find(|domain| *domain == name)?;
        let pem = read(&self.challenge_file(name), "a challenge of [acme]").ok()??;
        Certificate::for_challenge(pem.as_bytes(), pem.as_bytes()).ok()
    }

    /// Has every node answer for this name with this certificate and key.
    pub(super) fn answer(&self, name: &str, pem: &str) -> io::Result<Answered> {
        let file = self.challenge_file(name);
        private_file::replace(&file, pem)?;
        Ok(Answered { file })
    }

    fn challenge_file(&self, name: &str) -> PathBuf {
        let (prefix, suffix) = CHALLENGE;
        self.path.join(format!("{prefix}{name}{suffix}"))
    }

    /// Takes the right to order; nothing while another process has it. What one left behind that
    /// ended in the middle is swept away.
    pub(super) fn take_turn(&self) -> io::Result<Option<Turn>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let locked = options.open(self.path.join(LOCK))?;
        match locked.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        self.sweep()?;
        Ok(Some(Turn { _locked: locked }))
    }

    fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(UNFINISHED) || name.starts_with(CHALLENGE.0) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        // what stays is swept away by the next order
        let _ = std::fs::remove_file(&self.file);
    }
}

fn read(file: &Path, what: &str) -> Result<Option<Zeroizing<String>>, Problem> {
    if matches!(file.try_exists(), Ok(false)) {
        return Ok(None);
    }
    private_file::read(file, Readers::Owner, what).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(at: &Path) -> AcmeFolder {
        let mut settings = Settings::default();
        at.clone_into(&mut settings.data_dir.0);
        settings.acme.domains = vec!["API.example.com".to_owned()];
        settings.acme.directory_url = "https://ca.example:14000/dir".to_owned();
        AcmeFolder::of(&settings)
    }

    fn pem(name: &str) -> String {
        pem_with(name, Vec::new())
    }

    /// One that answers a challenge, with the extension that nobody else knows.
    fn challenge_pem(name: &str) -> String {
        pem_with(name, vec![rcgen::CustomExtension::new_acme_identifier(&[7; 32])])
    }

    fn pem_with(name: &str, extensions: Vec<rcgen::CustomExtension>) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.custom_extensions = extensions;
        format!("{}{}", params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn one_process_orders_and_sweeps_what_was_left_behind() {
        let place = tempfile::tempdir().unwrap();
        let folder = folder(place.path());
        let turn = folder.take_turn().unwrap().unwrap();
        assert!(folder.take_turn().unwrap().is_none());
        std::mem::forget(
            folder.answer("api.example.com", &challenge_pem("api.example.com")).unwrap(),
        );
        let unfinished = folder.certificate_file().with_extension("1.new");
        std::fs::write(&unfinished, "half").unwrap();
        assert!(folder.challenge("api.example.com").is_some());
        drop(turn);
        let _turn = folder.take_turn().unwrap().unwrap();
        assert!(folder.challenge("api.example.com").is_none());
        assert!(!unfinished.exists());
    }

    #[test]
    fn challenges_are_answered_for_the_names_alone_and_for_a_while() {
        let place = tempfile::tempdir().unwrap();
        let folder = folder(place.path());
        let shown = folder.answer("api.example.com", &challenge_pem("api.example.com")).unwrap();
        let certificate = folder.challenge("api.example.com").unwrap();
        assert_eq!(certificate.names(), ["api.example.com"]);
        let other = folder.answer("other.example", &challenge_pem("other.example")).unwrap();
        for name in ["other.example", "../account", "", "API.example.com"] {
            assert!(folder.challenge(name).is_none(), "{name}");
        }
        drop((shown, other));
        assert!(folder.challenge("api.example.com").is_none());
    }

    #[test]
    fn what_is_kept_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let folder = folder(place.path());
        assert!(folder.certificate().unwrap().is_none() && folder.account().unwrap().is_none());
        let (chain, key) = (pem("api.example.com"), String::new());
        folder.keep_certificate(&chain, &key).unwrap();
        folder.keep_account("{}").unwrap();
        assert_eq!(folder.certificate().unwrap().unwrap().names(), ["api.example.com"]);
        let file = place.path().join("acme/ca.example-14000-dir/certificate.pem");
        for file in [file, folder.path.join(ACCOUNT)] {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        std::fs::write(folder.certificate_file(), "nothing").unwrap();
        assert!(folder.certificate().unwrap_err().problem.contains("no certificate"));
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(folder.certificate_file(), open).unwrap();
        assert!(folder.certificate().unwrap_err().problem.contains("other users"));
    }
}
