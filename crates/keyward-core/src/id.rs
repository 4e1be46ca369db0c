//! Typed record ids: a prefix and twenty-two base62 digits of 128 bits (`ten_0C3…`).

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base62;
use crate::clock::Clock;

/// Digits behind the prefix of every id.
pub const ID_DIGITS: usize = 22;

/// The text was not an id of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_ and 22 letters or digits")]
pub struct InvalidId {
    /// The prefix that was expected.
    pub prefix: &'static str,
}

/// 48 bits of milliseconds, then 80 random bits: ids of one kind sort by the time they were made.
fn time_ordered(clock: &dyn Clock) -> u128 {
    let mut random = [0_u8; 10];
    clock.fill_random(&mut random);
    let millis = u128::try_from(clock.now().as_millis()).unwrap_or(0);
    let low = random.iter().fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
    (millis << 80) | low
}

fn parse(prefix: &'static str, text: &str) -> Result<u128, InvalidId> {
    let digits = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .filter(|digits| digits.len() == ID_DIGITS)
        .ok_or(InvalidId { prefix })?;
    base62::decode_number(digits.as_bytes()).ok_or(InvalidId { prefix })
}

/// The text of an id with a prefix of that length.
fn text<const N: usize>(prefix: &str, bits: u128) -> [u8; N] {
    let mut text = [b'_'; N];
    let (head, digits) = text.split_at_mut(N.saturating_sub(ID_DIGITS));
    for (slot, byte) in head.iter_mut().zip(prefix.bytes()) {
        *slot = byte;
    }
    digits.copy_from_slice(&base62::encode_number::<ID_DIGITS>(bits));
    text
}

fn write(text: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(str::from_utf8(text).map_err(|_| fmt::Error)?)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident = $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// What stands before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id that sorts after those made before.
            pub fn generate(clock: &dyn Clock) -> Self {
                Self(time_ordered(clock))
            }

            /// The id of these 128 bits.
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// Its text, in ASCII.
            pub fn text(self) -> [u8; $prefix.len() + 1 + ID_DIGITS] {
                text($prefix, self.0)
            }

            /// The 128 bits behind the prefix.
            pub const fn bits(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(&self.text(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(&self.text(), f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse($prefix, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

id! {
    /// A tenant: the isolated customer.
    TenantId = "ten"
}
id! {
    /// A user: a person, or a service account of one tenant.
    UserId = "usr"
}
id! {
    /// An API key. The bits are random and tagged, see [`crate::key`]; they stand in the token.
    KeyId = "key"
}
id! {
    /// An admin token, made like a key.
    AdminTokenId = "adm"
}
id! {
    /// A single-use link with which the first administrator is made.
    SetupLinkId = "stp"
}
id! {
    /// One occurrence of an event.
    EventId = "evt"
}
id! {
    /// One entry of the audit trail.
    AuditEventId = "aud"
}
id! {
    /// One process of a deployment, from its start to its end.
    NodeId = "nod"
}
id! {
    /// One request, on any plane.
    RequestId = "req"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_others() {
        let id = TenantId::from_bits(7);
        assert_eq!(id.to_string(), "ten_0000000000000000000007");
        assert_eq!("ten_0000000000000000000007".parse(), Ok(id));
        for text in [
            "",
            "ten_",
            "usr_0000000000000000000007",
            "ten_00000000000000000000071",
            "ten_zzzzzzzzzzzzzzzzzzzzzz",
        ] {
            assert_eq!(text.parse::<TenantId>(), Err(InvalidId { prefix: "ten" }), "{text}");
        }
    }
}
