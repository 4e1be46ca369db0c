//! What happens to keys that come where others may see them too.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::REFERER;
use http::request::Parts;

use keyward_core::error::{Error, ErrorCode};
use keyward_core::key::{Exposed, Exposure, TokenFormat};
use keyward_core::path::{carried_credential, credential_in_url};

use crate::carrier::{self, Carried};
use crate::exposures::ExposedRow;
use crate::keyset::{KnownKey, Recognized};
use crate::lookup::find_all;
use crate::pipeline::{Exchange, Staged};

impl Exchange<'_> {
    /// Refuses a request whose address, or that of the page it comes from, holds a key.
    pub(super) fn refuse_key_in(&self, address: &str, headers: &HeaderMap) -> Staged<()> {
        let format = self.plane.authority.keys.keyring().format();
        match key_in_address(address, headers, format) {
            Some(found) => {
                self.expose_text(&found, Exposure::Url);
                Err(credential_in_url().into())
            }
            None => Ok(()),
        }
    }

    /// Refuses a request that came in clear text with a key, whatever the key is worth. One without
    /// a key learns what any such request learns.
    pub(crate) fn refuse_clear_text(&self, parts: &Parts) -> Staged<()> {
        match carrier::credential(&parts.headers, &self.plane.product.carriers) {
            Carried::Nothing => return Ok(()),
            Carried::One(text) => self.expose_text(text, Exposure::ClearText),
            Carried::Several | Carried::Unreadable => {}
        }
        Err(tls_required().into())
    }

    /// Notes that a text was exposed, if it is a key.
    pub(super) fn expose_text(&self, text: &str, by: Exposure) {
        let keys = &self.plane.authority.keys;
        let presented = keys.keyring().format().parse(text);
        if let Ok(Recognized::Known(key)) = presented.map(|presented| keys.recognize(&presented)) {
            self.expose(&key, by);
        }
    }

    /// Notes that a key was exposed. The log says so once in a while, and names it by its id.
    pub(super) fn expose(&self, key: &KnownKey, by: Exposure) {
        let exposed = Exposed { at: self.record.at, by };
        let row = ExposedRow { tenant: key.tenant.id, key: key.id, exposed };
        if self.plane.recorder.exposures.note(row) {
            tracing::warn!(
                key_id = %key.id,
                tenant = %key.tenant.id,
                by = by.as_str(),
                request_id = %self.record.request_id,
                ip = %self.record.client,
                "a key was exposed"
            );
        }
    }
}

/// The refusal of a key that came in clear text.
pub(crate) fn tls_required() -> Error {
    let text = "The key came without TLS, where everybody on the way can read it; call the \
                https:// address, and rotate this key";
    Error::new(ErrorCode::TlsRequired, text)
}

/// What looks like a key in the address of a request, which need not be one that can be read, or in
/// that of the page it comes from.
pub(crate) fn key_in_address(
    address: &str,
    headers: &HeaderMap,
    format: &TokenFormat,
) -> Option<String> {
    let found = carried_credential(address, format).map(Cow::into_owned);
    found.or_else(|| {
        find_all(headers, &REFERER).find_map(|line| {
            let line = String::from_utf8_lossy(line.as_bytes());
            carried_credential(&line, format).map(Cow::into_owned)
        })
    })
}
