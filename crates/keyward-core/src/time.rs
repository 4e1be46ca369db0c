//! Instants on the wire and in the store.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds in one second.
pub const SECOND_MS: i64 = 1_000;
/// Milliseconds in one minute.
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
/// Milliseconds in one hour.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Milliseconds in one day of 24 hours.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// Bytes of the text of an instant.
const TEXT_BYTES: usize = 24;

/// An instant in milliseconds since 1970-01-01T00:00:00Z; RFC 3339 UTC on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The last instant that can be written with a four-digit year: 9999-12-30T22:00:00Z.
    pub const MAX: Self = Self(253_402_207_200_000);

    /// The first one: 0000-01-01T00:00:00Z. An instant before it could not be written at all.
    pub const MIN: Self = Self(-62_167_219_200_000);

    /// An instant from milliseconds since the epoch, cut to the range of the type.
    pub const fn from_millis(millis: i64) -> Self {
        if millis > Self::MAX.0 {
            Self::MAX
        } else if millis < Self::MIN.0 {
            Self::MIN
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(SECOND_MS)
    }

    /// Its text on the wire, in ASCII: `2027-02-20T23:59:00.000Z` (RFC 3339).
    pub fn text(self) -> [u8; TEXT_BYTES] {
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let (days, rest) = (self.0.div_euclid(DAY_MS), self.0.rem_euclid(DAY_MS));
        let (year, month, day) = date(days);
        let fields = [
            (3, year),
            (6, month),
            (9, day),
            (12, rest / HOUR_MS),
            (15, rest / MINUTE_MS % 60),
            (18, rest / SECOND_MS % 60),
            (22, rest % SECOND_MS),
        ];
        for (last, value) in fields {
            let mut value = value.unsigned_abs();
            let digits = text.iter_mut().take(last + 1).rev();
            for digit in digits.take_while(|it| it.is_ascii_digit()) {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        text
    }

    /// As a date of HTTP, such as `Sun, 22 Nov 2026 16:00:00 GMT` (RFC 9110 §5.6.7).
    pub fn to_http_date(self) -> String {
        let instant = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
        // the range of this type is that of years with four digits
        printer.timestamp_to_rfc9110_string(&instant).unwrap_or_default()
    }

    /// The instant `millis` later (earlier when negative), cut to the range of the type.
    pub const fn plus_ms(self, millis: i64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this instant; negative when this one comes first.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

/// Year, month and day of so many days since the epoch, by eras of 400 years that begin in March:
/// leap days then come last, and months are as long as the line through their numbers says.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_BEFORE_EPOCH: i64 = 719_468;
    const ERA_DAYS: i64 = 146_097;
    let days = days + DAYS_BEFORE_EPOCH;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// The text was not an RFC 3339 instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 instant such as 2027-02-20T23:59:00Z")]
pub struct InvalidTimestamp;

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        Ok(Self::from_millis(instant.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_and_reads_rfc_3339() {
        let instant = Timestamp::from_millis(1_800_000_000_123);
        assert_eq!(instant.to_string(), "2027-01-15T08:00:00.123Z");
        assert_eq!(instant.to_string().parse(), Ok(instant));
        assert_eq!("tomorrow".parse::<Timestamp>(), Err(InvalidTimestamp));
    }

    proptest! {
        #[test]
        fn instants_are_written_as_by_jiff(
            millis in Timestamp::MIN.0..=Timestamp::MAX.0, days in -719_528_i64..2_932_896,
        ) {
            for millis in [millis, days * DAY_MS, days * DAY_MS - 1] {
                let instant = Timestamp::from_millis(millis);
                let other = jiff::Timestamp::from_millisecond(instant.0).unwrap();
                prop_assert_eq!(instant.to_string(), format!("{other:.3}"));
            }
        }
    }

    #[test]
    fn the_first_and_the_last_instant_are_written() {
        assert_eq!(Timestamp::MIN.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30T22:00:00.000Z");
        assert_eq!(Timestamp::from_millis(951_782_400_000).to_string(), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn writes_dates_of_http() {
        let date = |millis| Timestamp::from_millis(millis).to_http_date();
        assert_eq!(date(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(!Timestamp::MAX.to_http_date().is_empty());
        assert!(!Timestamp::MIN.to_http_date().is_empty());
    }

    #[test]
    fn the_far_future_is_cut_to_a_writable_instant() {
        let far = Timestamp::from_millis(1).plus_ms(i64::MAX);
        assert_eq!(far, Timestamp::MAX);
        assert!(far.to_string().starts_with("9999-12-30T22:00:00"));
    }

    #[test]
    fn so_is_the_far_past() {
        let far = Timestamp::from_millis(i64::MIN).plus_ms(-1);
        assert_eq!(far, Timestamp::MIN);
        assert_eq!(far.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!("-009999-01-02T02:00:00Z".parse(), Ok(Timestamp::MIN));
    }
}
