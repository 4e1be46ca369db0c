//! Canonical JSON (RFC 8785) and the hash of a payload over it.

use aws_lc_rs::digest;
use serde_json::{Number, Value};

/// Integers up to this size are exact in the number type of RFC 8785.
const EXACT_INTEGER: u64 = 1 << 53;

/// SHA-256 in lowercase hex: of a string its UTF-8 bytes, of anything else its canonical JSON.
pub(crate) fn sha256(value: &Value) -> String {
    match value {
        Value::String(text) => sha256_bytes(text.as_bytes()),
        other => sha256_bytes(canonical(other).as_bytes()),
    }
}

/// SHA-256 of bytes in lowercase hex.
pub(crate) fn sha256_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // writing into a String cannot fail
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The one text RFC 8785 gives this value.
pub(crate) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out);
    out
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Number(number) => write_number(number, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            // by UTF-16 code units, which is not the order of UTF-8 bytes
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, (name, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_value(member, out);
            }
            out.push('}');
        }
    }
}

fn write_number(number: &Number, out: &mut String) {
    let exact = number.as_u64().is_some_and(|n| n <= EXACT_INTEGER)
        || number.as_i64().is_some_and(|n| n.unsigned_abs() <= EXACT_INTEGER);
    if exact {
        out.push_str(&number.to_string());
    } else {
        out.push_str(&ecmascript_number(number.as_f64().unwrap_or(0.0)));
    }
}

/// `Number::toString` of ECMAScript, from the shortest digits that read back the same.
fn ecmascript_number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let count = i32::try_from(digits.len()).unwrap_or(0);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    let text = if (count..=21).contains(&point) {
        format!("{digits}{}", zeros(point - count))
    } else if (1..=21).contains(&point) {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        format!("{whole}.{fraction}")
    } else if (-5..=0).contains(&point) {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{first}{dot}{rest}e{:+}", point - 1)
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_written_as_ecmascript_does() {
        // from the appendix of RFC 8785
        let cases: [(u64, &str); 10] = [
            (0x0000_0000_0000_0001, "5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x4155_5555_5555_5555, "5592405.333333333"),
        ];
        for (bits, text) in cases {
            assert_eq!(ecmascript_number(f64::from_bits(bits)), text);
        }
        assert_eq!(ecmascript_number(-0.0), "0");
        assert_eq!(ecmascript_number(-1.5), "-1.5");
    }

    #[test]
    fn members_are_sorted_by_utf_16() {
        let value = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "ö": 6});
        assert_eq!(
            canonical(&value),
            "{\"\\r\":2,\"1\":4,\"ö\":6,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
        assert_eq!(
            canonical(&json!({"b": [1.0, 2.5, null], "a": "\u{7}"})),
            r#"{"a":"\u0007","b":[1,2.5,null]}"#
        );
    }

    #[test]
    fn a_string_is_hashed_as_its_bytes() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&json!("abc")), abc);
        assert_eq!(sha256(&json!({"b": 1, "a": 2})), sha256_bytes(br#"{"a":2,"b":1}"#));
    }
}
