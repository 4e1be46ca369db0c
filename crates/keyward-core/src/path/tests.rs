use proptest::prelude::*;

use super::*;
use crate::environment::Environment;
use InvalidTarget as No;

fn refusal(text: &str) -> Option<InvalidTarget> {
    Target::parse(text).err()
}

#[test]
fn plain_paths_pass_as_they_are() {
    for path in [
        "/",
        "/v1",
        "/v1/reports",
        "/v1/reports/",
        "/v1/reports/rep_1",
        "/v1/reports:build",
        "/v1/a.b/c..d/...",
        "/v1/a@b/c+d/e=f/g,h/i!j/k$l/(m)/*/n'o/p&q",
        "/v1/caf%C3%A9",
        "/v1/caf%c3%a9",
        "/v1/a%20b",
        "/v1/100%25",
        "/v1/%3F",
        "/V1/REPORTS",
        "/v1/~me/-/_",
    ] {
        let target = Target::parse(path).unwrap();
        assert_eq!((target.path, target.query), (path, None));
    }
}

#[test]
fn the_query_is_kept_raw() {
    for query in ["", "a=b", "a=%2F%00&b=//..", "?", "a?b", "a;b", "%", "x=\\"] {
        let text = format!("/v1/reports?{query}");
        assert_eq!(Target::parse(&text).unwrap().query, Some(query));
    }
    assert_eq!(refusal("/v1?a b"), Some(No::ForeignByte));
    assert_eq!(refusal("/v1?é"), Some(No::ForeignByte));
    let long = format!("/?{}", "a".repeat(MAX_QUERY_BYTES + 1));
    assert_eq!(refusal(&long), Some(No::QueryTooLong));
}

const REFUSED: &[(&str, No)] = &[
    ("", No::NotAPath),
    ("v1", No::NotAPath),
    ("*", No::NotAPath),
    ("http://evil/v1", No::NotAPath),
    ("host:443", No::NotAPath),
    ("//", No::EmptySegment),
    ("//v1", No::EmptySegment),
    ("/v1//reports", No::EmptySegment),
    ("/v1/reports//", No::EmptySegment),
    ("/.", No::DotSegment),
    ("/..", No::DotSegment),
    ("/./v1", No::DotSegment),
    ("/v1/./reports", No::DotSegment),
    ("/v1/../admin", No::DotSegment),
    ("/v1/..", No::DotSegment),
    ("/%2e%2e/admin", No::NeedlessEncoding),
    ("/v1/%2E", No::NeedlessEncoding),
    ("/v1/.%2e/admin", No::NeedlessEncoding),
    ("/v1/%2e./admin", No::NeedlessEncoding),
    ("/v1/..%2fadmin", No::EncodedSlash),
    ("/v1/a%2fb", No::EncodedSlash),
    ("/v1/a%2Fb", No::EncodedSlash),
    ("/v1/a%5cb", No::Backslash),
    ("/v1/a%5Cb", No::Backslash),
    ("/v1/a\\b", No::Backslash),
    ("/\\v1", No::Backslash),
    ("/v1/a;b=c", No::Parameter),
    ("/v1/..;/admin", No::Parameter),
    ("/v1/;", No::Parameter),
    ("/v1/a%3bb", No::Parameter),
    ("/v1/a%3Bb", No::Parameter),
    ("/v1/a%00", No::EncodedControl),
    ("/v1/a%0a", No::EncodedControl),
    ("/v1/a%0d%0aX: y", No::EncodedControl),
    ("/v1/a%1f", No::EncodedControl),
    ("/v1/a%7f", No::EncodedControl),
    ("/v1/a%c2%80", No::EncodedControl),
    ("/%61dmin", No::NeedlessEncoding),
    ("/v1/%41", No::NeedlessEncoding),
    ("/v1/%30", No::NeedlessEncoding),
    ("/v1/%2d", No::NeedlessEncoding),
    ("/v1/%5f", No::NeedlessEncoding),
    ("/v1/%7e", No::NeedlessEncoding),
    ("/v1/%252e", No::DoubleEncoding),
    ("/v1/%252f", No::DoubleEncoding),
    ("/v1/%25%32%66", No::NeedlessEncoding),
    ("/v1/%25ff", No::DoubleEncoding),
    ("/v1/%", No::BadEncoding),
    ("/v1/%2", No::BadEncoding),
    ("/v1/%zz", No::BadEncoding),
    ("/v1/%2g", No::BadEncoding),
    ("/v1/%u002e", No::BadEncoding),
    ("/v1/%-1", No::BadEncoding),
    ("/v1/%c0%ae", No::NotUtf8),
    ("/v1/%c0%af", No::NotUtf8),
    ("/v1/%e0%80%af", No::NotUtf8),
    ("/v1/%f8%80%80%80%af", No::NotUtf8),
    ("/v1/%ff", No::NotUtf8),
    ("/v1/%c3", No::NotUtf8),
    ("/v1/%ed%a0%80", No::NotUtf8),
    ("/v1/a b", No::ForeignByte),
    ("/v1/a\tb", No::ForeignByte),
    ("/v1/a\0b", No::ForeignByte),
    ("/v1/a\nb", No::ForeignByte),
    ("/v1/é", No::ForeignByte),
    ("/v1/a\u{ff0f}b", No::ForeignByte),
    ("/v1/a\"b", No::ForeignByte),
    ("/v1/<a>", No::ForeignByte),
    ("/v1/a|b", No::ForeignByte),
    ("/v1/a^b", No::ForeignByte),
    ("/v1/`a`", No::ForeignByte),
    ("/v1/{a}", No::ForeignByte),
    ("/v1/[a]", No::ForeignByte),
    ("/v1#f", No::Fragment),
    ("/v1/reports#", No::Fragment),
    ("/v1?a=b#f", No::Fragment),
];

#[test]
fn every_second_reading_is_refused() {
    for (text, reason) in REFUSED {
        assert_eq!(refusal(text), Some(*reason), "{text:?}");
    }
    let long = format!("/{}", "a".repeat(MAX_PATH_BYTES));
    assert_eq!(refusal(&long), Some(No::PathTooLong));
}

#[test]
fn keys_in_the_address_are_seen_through_encoding() {
    let format = TokenFormat::new("acme", |e: Environment| e.as_str().to_owned());
    let key = format!("acme_live_{}", "0".repeat(71));
    let sees = |text: &str| carried_credential(text, &format).is_some();
    assert!(sees(&format!("/v1/{key}")));
    assert!(sees(&format!("/v1/reports?key={key}")));
    assert!(sees(&format!("/v1/reports?key=%61{}", &key[1..])));
    assert!(!sees("/v1/reports?key=acme_live_abc"));
}

proptest! {
    #[test]
    fn parsing_never_panics_and_keeps_the_bytes(text in "\\PC{0,60}") {
        if let Ok(target) = Target::parse(&text) {
            let whole = match target.query {
                Some(query) => format!("{}?{query}", target.path),
                None => target.path.to_owned(),
            };
            prop_assert_eq!(whole, text);
        }
    }

    #[test]
    fn what_looks_plain_passes_every_check(text in "/?[a-zA-Z0-9/_.%-]{0,24}") {
        if is_plain(&text) {
            prop_assert_eq!(check_path(&text), Ok(()));
        }
        prop_assert_eq!(Target::parse(&text).map(|it| it.path.len()), {
            check_path(&text).map(|()| text.len())
        });
    }

    /// Decoding an accepted path twice, collapsing slashes, resolving dots or cutting at `;` finds
    /// the same segments as reading it once.
    #[test]
    fn what_passes_reads_one_way(text in "/[a-z%0-9A-F./;\\\\]{0,24}") {
        if let Ok(target) = Target::parse(&text) {
            let decoded = percent_decode_str(target.path).decode_utf8().unwrap();
            prop_assert_eq!(decoded.matches('/').count(), target.path.matches('/').count());
            prop_assert!(!decoded.contains("//"));
            prop_assert!(!decoded.contains([';', '\\', '\0']));
            prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."));
            let twice = percent_decode_str(&decoded).collect::<Vec<_>>();
            prop_assert_eq!(twice, decoded.as_bytes());
        }
    }
}
