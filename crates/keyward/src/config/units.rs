//! Durations and sizes as people write them: `30s`, `5m`, `10MiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units of time from the largest to the smallest, with their milliseconds.
const TIMES: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size from the largest to the smallest, with their bytes.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Millis(pub(crate) u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) usize);

/// The text is no duration or no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUnit {
    #[error("not a duration: write a whole number and one of ms, s, m, h, d, such as \"30s\"")]
    Duration,
    #[error("not a size: write a whole number and one of B, KiB, MiB, GiB, such as \"10MiB\"")]
    Size,
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn write(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
    match units.iter().find(fits).or(units.last()) {
        Some((name, factor)) => write!(f, "{}{name}", value / factor),
        None => write!(f, "{value}"),
    }
}

impl Millis {
    pub(crate) const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl Size {
    pub(crate) const fn bytes(self) -> usize {
        self.0
    }
}

impl FromStr for Millis {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        parse(text, &TIMES).map(Self).ok_or(InvalidUnit::Duration)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, &TIMES)
    }
}

impl FromStr for Size {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let bytes = parse(text, &SIZES).ok_or(InvalidUnit::Size)?;
        usize::try_from(bytes).map(Self).map_err(|_| InvalidUnit::Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, u64::try_from(self.0).unwrap_or(u64::MAX), &SIZES)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // a bare number is refused too: nobody can see its unit
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(Millis, Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_in_the_largest_whole_unit() {
        let table = [
            ("0ms", 0, "0ms"),
            ("250ms", 250, "250ms"),
            ("30s", 30_000, "30s"),
            ("90s", 90_000, "90s"),
            ("5m", 300_000, "5m"),
            ("300 s", 300_000, "5m"),
            ("24h", 86_400_000, "1d"),
        ];
        for (text, millis, written) in table {
            assert_eq!(text.parse(), Ok(Millis(millis)), "{text}");
            assert_eq!(Millis(millis).to_string(), written);
        }
        for bad in ["", "5", "s", "-5s", "1.5s", "5 minutes", "99999999999999999999d"] {
            assert_eq!(bad.parse::<Millis>(), Err(InvalidUnit::Duration), "{bad}");
        }
        assert!(format!("{}d", u64::MAX).parse::<Millis>().is_err());
    }

    #[test]
    fn sizes_are_read_and_written_in_the_largest_whole_unit() {
        let table = [
            ("0B", 0, "0B"),
            ("64KiB", 65_536, "64KiB"),
            ("1024 KiB", 1 << 20, "1MiB"),
            ("10MiB", 10 << 20, "10MiB"),
            ("1000B", 1_000, "1000B"),
        ];
        for (text, bytes, written) in table {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), written);
        }
        for bad in ["", "10", "10MB", "10mib", "-1B", "99999999999GiB"] {
            assert_eq!(bad.parse::<Size>(), Err(InvalidUnit::Size), "{bad}");
        }
    }
}
