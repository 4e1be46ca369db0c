//! The certificates of the listeners, and for how long they last.

use keyward_core::time::Timestamp;
use keyward_gateway::Certificate;

use super::{Finding, bad, good};
use crate::config::Settings;
use crate::config::tls::TlsSettings;
use crate::node::AcmeFolder;

const CHECK: &str = "certificates";
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// With fewer days left than this, whoever renews should have done so.
const FEW_DAYS: i64 = 14;

/// One finding for each listener that ends TLS.
pub(super) fn findings(settings: &Settings, now: Timestamp) -> Vec<Finding> {
    let gateways = settings.gateway.listener.iter();
    let gateways = gateways.map(|it| (format!("gateway {}", it.listen), &it.tls));
    let others = [("control", &settings.control.tls), ("internal", &settings.internal.tls)];
    let listeners = others.into_iter().map(|(name, tls)| (name.to_owned(), tls)).chain(gateways);
    let listeners = listeners.filter(|(_, tls)| tls.is_on());
    listeners.map(|(name, tls)| of_listener(&name, tls, settings, now)).collect()
}

fn of_listener(name: &str, tls: &TlsSettings, settings: &Settings, now: Timestamp) -> Finding {
    let read = tls.read(now).and_then(|mut certificates| {
        if tls.acme {
            certificates.extend(AcmeFolder::of(settings).valid_certificate(now)?);
        }
        Ok(certificates)
    });
    let certificates = match read {
        Ok(certificates) => certificates,
        Err(problem) => return bad(CHECK, problem),
    };
    let Some(end) = certificates.iter().map(Certificate::not_after).min() else {
        return advised(
            format!("{name}: none yet"),
            "start the node; it orders one, and says in its log why when it gets none",
        );
    };
    let days = (end.as_millis() - now.as_millis()) / DAY_MS;
    let found = format!("{name}: {days} days left, until {end}");
    if days < FEW_DAYS {
        return advised(found, "look why it was not renewed");
    }
    good(CHECK, found)
}

fn advised(found: String, fix: &str) -> Finding {
    Finding { fix: Some(fix.to_owned()), ..good(CHECK, found) }
}
