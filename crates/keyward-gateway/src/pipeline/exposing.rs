//! What happens to keys that come where others may see them too.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::REFERER;
use http::request::Parts;

use keyward_core::error::{Error, ErrorCode};
use keyward_core::key::{Exposed, Exposure, TokenFormat};
use keyward_core::path::{Target, carried_credential, credential_in_url};

use crate::carrier::{self, Carried};
use crate::exposures::ExposedRow;
use crate::keyset::{KnownKey, Recognized};
use crate::lookup::find;
use crate::pipeline::{Exchange, Staged};

impl Exchange<'_> {
    /// Refuses a request whose address, or that of the page it comes from, holds a key.
    pub(super) fn refuse_key_in(
        &self,
        text: &str,
        target: Option<Target<'_>>,
        headers: &HeaderMap,
    ) -> Staged<()> {
        let format = self.plane.authority.keys.keyring().format();
        match key_in_address(text, target, headers, format) {
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

/// What looks like a key in the address of a request, which may have no meaning as a target, or in
/// that of the page it comes from.
pub(crate) fn key_in_address<'a>(
    text: &'a str,
    target: Option<Target<'a>>,
    headers: &'a HeaderMap,
    format: &TokenFormat,
) -> Option<Cow<'a, str>> {
    let found = match target {
        Some(target) => target.carried_credential(format),
        None => carried_credential(text, format),
    };
    found.or_else(|| {
        find(headers, &REFERER)?;
        headers.get_all(REFERER).iter().find_map(|line| {
            match String::from_utf8_lossy(line.as_bytes()) {
                Cow::Borrowed(line) => carried_credential(line, format),
                Cow::Owned(line) => {
                    carried_credential(&line, format).map(|found| Cow::Owned(found.into_owned()))
                }
            }
        })
    })
}
