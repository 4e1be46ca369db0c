//! What a request says about its caller: the key, the tenant it names, the marks of a browser.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, ORIGIN};

use keyward_core::decision::TenantHeader;
use keyward_core::profile::Carrier;

use crate::keyset::TenantFacts;
use crate::lookup::{find, find_all, is_repeated};

/// The header of [`Carrier::XApiKey`].
pub(crate) static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The credential of a request, not yet read.
pub(crate) enum Carried<'h> {
    /// None.
    Nothing,
    /// More than one.
    Several,
    /// One; it may still be anything.
    One(&'h str),
    /// One that is not even text.
    Unreadable,
}

/// Finds the credential in the carriers of the product.
pub(crate) fn credential<'h>(headers: &'h HeaderMap, carriers: &[Carrier]) -> Carried<'h> {
    if is_repeated(headers, &AUTHORIZATION) || is_repeated(headers, &X_API_KEY) {
        return Carried::Several;
    }
    let authorizations = find_all(headers, &AUTHORIZATION);
    let api_keys = find_all(headers, &X_API_KEY);
    let by_scheme = authorizations.filter_map(|value| of_scheme(value.as_bytes(), carriers));
    let by_header =
        api_keys.filter(|_| carriers.contains(&Carrier::XApiKey)).map(http::HeaderValue::as_bytes);
    let mut found = by_scheme.chain(by_header);
    match (found.next(), found.next()) {
        (None, _) => Carried::Nothing,
        (Some(_), Some(_)) => Carried::Several,
        (Some(bytes), None) => match str::from_utf8(bytes.trim_ascii()) {
            Ok("") => Carried::Nothing,
            Ok(text) => Carried::One(text),
            Err(_) => Carried::Unreadable,
        },
    }
}

/// The credential behind an accepted scheme; schemes are not case-sensitive.
fn of_scheme<'h>(value: &'h [u8], carriers: &[Carrier]) -> Option<&'h [u8]> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    let carrier = if scheme.eq_ignore_ascii_case(b"bearer") {
        Carrier::Bearer
    } else if scheme.eq_ignore_ascii_case(b"apikey") {
        Carrier::ApiKeyScheme
    } else {
        return None;
    };
    carriers.contains(&carrier).then_some(rest)
}

/// How to send a key, for people.
pub(crate) fn describe(carriers: &[Carrier]) -> String {
    let words: Vec<&str> = carriers
        .iter()
        .map(|carrier| match carrier {
            Carrier::Bearer => "Authorization: Bearer …",
            Carrier::ApiKeyScheme => "Authorization: ApiKey …",
            Carrier::XApiKey => "x-api-key: …",
        })
        .collect();
    words.join(" or ")
}

/// What the tenant header says about the tenant of the key.
pub(crate) fn tenant_header(
    headers: &HeaderMap,
    name: Option<&HeaderName>,
    tenant: &TenantFacts,
) -> TenantHeader {
    let Some(name) = name else {
        return TenantHeader::NotRequired;
    };
    let mut values = find_all(headers, name).peekable();
    if values.peek().is_none() {
        TenantHeader::Missing
    } else if values.all(|value| tenant.is_named(value.as_bytes())) {
        TenantHeader::Matches
    } else {
        TenantHeader::Differs
    }
}

/// Whether a browser's page made this call: browsers set these marks, pages cannot remove them.
pub(crate) fn is_from_browser(headers: &HeaderMap) -> bool {
    find(headers, &ORIGIN).is_some()
        || find_all(headers, &SEC_FETCH_SITE).any(|site| site.as_bytes() != b"none")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Carrier] = &[Carrier::Bearer, Carrier::ApiKeyScheme, Carrier::XApiKey];

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn found(pairs: &[(&'static str, &'static str)], carriers: &[Carrier]) -> String {
        match credential(&headers(pairs), carriers) {
            Carried::Nothing => "nothing".to_owned(),
            Carried::Several => "several".to_owned(),
            Carried::Unreadable => "unreadable".to_owned(),
            Carried::One(text) => text.to_owned(),
        }
    }

    #[test]
    fn one_key_in_one_accepted_place() {
        assert_eq!(found(&[], ALL), "nothing");
        assert_eq!(found(&[("authorization", "Bearer k")], ALL), "k");
        assert_eq!(found(&[("authorization", "bearer  k ")], ALL), "k");
        assert_eq!(found(&[("authorization", "ApiKey k")], ALL), "k");
        assert_eq!(found(&[("x-api-key", "k")], ALL), "k");
        assert_eq!(found(&[("authorization", "Basic k")], ALL), "nothing");
        assert_eq!(found(&[("authorization", "Bearer")], ALL), "nothing");
        assert_eq!(found(&[("x-api-key", "k")], &[Carrier::Bearer]), "nothing");
        let two = [("authorization", "Bearer k"), ("x-api-key", "k")];
        assert_eq!(found(&two, ALL), "several");
        assert_eq!(found(&two, &[Carrier::Bearer]), "k");
        let twice = [("authorization", "Bearer k"), ("authorization", "Bearer j")];
        assert_eq!(found(&twice, ALL), "several");
        let twice = [("authorization", "Basic k"), ("authorization", "Bearer j")];
        assert_eq!(found(&twice, ALL), "several");
    }

    #[test]
    fn marks_of_a_browser() {
        let check = |pairs: &[(&'static str, &'static str)]| is_from_browser(&headers(pairs));
        assert!(!check(&[]));
        assert!(!check(&[("sec-fetch-site", "none"), ("sec-fetch-mode", "cors")]));
        assert!(check(&[("origin", "null")]));
        assert!(check(&[("sec-fetch-site", "cross-site")]));
        assert!(check(&[("sec-fetch-site", "same-site")]));
    }
}
