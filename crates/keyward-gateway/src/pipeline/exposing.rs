//! What happens to keys that come where others may see them too.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::REFERER;
use http::request::Parts;

use keyward_core::key::{Exposed, Exposure, TokenFormat};
use keyward_core::path::carried_credential;

use crate::carrier::{self, Carried};
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
                Err(Exposure::Url.refusal().into())
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
        Err(Exposure::ClearText.refusal().into())
    }

    /// Notes that a text was exposed, if it is a key.
    pub(super) fn expose_text(&self, text: &str, by: Exposure) {
        let keys = &self.plane.authority.keys;
        let presented = keys.keyring().format().parse(text);
        if let Ok(Recognized::Known(key)) = presented.map(|presented| keys.recognize(&presented)) {
            self.expose(&key, by);
        }
    }

    /// Notes that a key was exposed.
    pub(super) fn expose(&self, key: &KnownKey, by: Exposure) {
        let exposed = Exposed { at: self.record.at, by };
        let (request_id, client) = (self.record.request_id, Some(self.record.client));
        self.plane.recorder.exposures.expose(key, exposed, request_id, client);
    }
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
