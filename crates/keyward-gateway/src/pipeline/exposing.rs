//! What happens to keys that come where others may see them too.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::REFERER;
use http::request::Parts;

use keyward_core::error::{Error, ErrorCode};
use keyward_core::key::{Exposed, Exposure};
use keyward_core::path::{Target, credential_in_url};

use crate::carrier::{self, Carried};
use crate::exposures::ExposedRow;
use crate::keyset::{KnownKey, Recognized};
use crate::lookup::find;
use crate::pipeline::{Exchange, Staged};

impl Exchange<'_> {
    /// Refuses a request whose address, or that of the page it comes from, holds a key.
    pub(super) fn refuse_key_in(&self, target: Target<'_>, headers: &HeaderMap) -> Staged<()> {
        let format = self.plane.authority.keys.keyring().format();
        let referer = find(headers, &REFERER).and_then(|it| it.to_str().ok());
        let in_referer = || referer.and_then(|it| format.find_in(it)).map(Cow::Borrowed);
        let Some(found) = target.carried_credential(format).or_else(in_referer) else {
            return Ok(());
        };
        self.expose_text(&found, Exposure::Url);
        Err(credential_in_url().into())
    }

    /// Refuses a request that came in clear text with a key, whatever the key is worth. One without
    /// a key learns what any such request learns.
    pub(super) fn refuse_clear_text(&self, parts: &Parts) -> Staged<()> {
        match carrier::credential(&parts.headers, &self.plane.product.carriers) {
            Carried::Nothing => return Ok(()),
            Carried::One(text) => self.expose_text(text, Exposure::ClearText),
            Carried::Several | Carried::Unreadable => {}
        }
        let text = "The key came without TLS, where everybody on the way can read it; call the \
                    https:// address, and rotate this key";
        Err(Error::new(ErrorCode::TlsRequired, text).into())
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
