//! The account at the authority: made once, then kept.

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::folder::AcmeFolder;
use super::transport::Transport;
use crate::config::ConfigError;
use crate::config::acme::AcmeSettings;
use crate::config::private_file;

/// The account of these settings.
pub(super) struct Accounts<'a> {
    pub(super) settings: &'a AcmeSettings,
    pub(super) folder: &'a AcmeFolder,
    pub(super) transport: &'a Transport,
}

/// An account as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    contact: Vec<String>,
    credentials: AccountCredentials,
}

impl Accounts<'_> {
    /// The account that is kept, with the contacts of the settings.
    ///
    /// # Errors
    /// When the authority is not reached, or the file cannot be read.
    pub(super) async fn kept(&self) -> anyhow::Result<Option<Account>> {
        let Some(text) = self.folder.account().map_err(ConfigError::from)? else {
            return Ok(None);
        };
        let Kept { contact, credentials } =
            serde_json::from_str(&text).context("the account in the folder cannot be read")?;
        let account = Account::builder_with_http(Box::new(self.transport.clone()));
        let account = account.from_credentials(credentials).await;
        let account = account.context("the directory of the authority cannot be read")?;
        let wanted = self.contact();
        if wanted != contact {
            let contacts: Vec<&str> = wanted.iter().map(String::as_str).collect();
            account.update_contacts(&contacts).await.context("the contact was not changed")?;
            let Kept { credentials, .. } = serde_json::from_str(&text)?;
            self.keep(&Kept { contact: wanted, credentials })?;
        }
        Ok(Some(account))
    }

    /// Makes an account and keeps it.
    ///
    /// # Errors
    /// When the authority makes none, or it cannot be kept.
    pub(super) async fn make(&self) -> anyhow::Result<Account> {
        let contact = self.contact();
        let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: self.settings.terms_agreed,
            only_return_existing: false,
        };
        let external = self.external()?;
        let account = Account::builder_with_http(Box::new(self.transport.clone()));
        let directory = self.settings.directory_url.clone();
        let made = account.create(&wanted, directory, external.as_ref()).await;
        let (account, credentials) = made.context("no account could be made")?;
        self.keep(&Kept { contact, credentials })?;
        Ok(account)
    }

    fn keep(&self, kept: &Kept) -> anyhow::Result<()> {
        let text = Zeroizing::new(serde_json::to_string(kept)?);
        self.folder.keep_account(&text).context("the account cannot be written")
    }

    fn contact(&self) -> Vec<String> {
        let url = |address: &String| {
            let scheme = if address.starts_with("mailto:") { "" } else { "mailto:" };
            format!("{scheme}{address}")
        };
        self.settings.contact.iter().map(url).collect()
    }

    /// The key that binds the account to one that the authority knows (RFC 8555 §7.3.4).
    fn external(&self) -> anyhow::Result<Option<ExternalAccountKey>> {
        let settings = self.settings;
        let (Some(id), Some(file)) =
            (&settings.external_account_id, &settings.external_account_key_file)
        else {
            return Ok(None);
        };
        let key = private_file::read_line(file, "the key of the external account");
        let key = key.map_err(ConfigError::from)?;
        let key = BASE64_URL_SAFE_NO_PAD.decode(key.trim_end_matches('='));
        let key = Zeroizing::new(key.context("acme.external-account-key-file is no base64url")?);
        Ok(Some(ExternalAccountKey::new(id.clone(), &key)))
    }
}
