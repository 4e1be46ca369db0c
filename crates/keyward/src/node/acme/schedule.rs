//! When a certificate is ordered, and when again after a failure.

use std::time::Duration;

use keyward_core::time::Timestamp;

/// How often the pause after a failure doubles.
const DOUBLINGS: u32 = 6;
/// The longest pause that an authority may ask for.
const MAX_ASKED: Duration = Duration::from_hours(24);

/// A share of a span of time, so that nodes and deployments do not all come at once: nothing to
/// almost everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share(u8);

impl Share {
    pub(super) const fn new(random: u8) -> Self {
        Self(random)
    }

    fn of(self, span: Duration) -> Duration {
        span * u32::from(self.0) / 256
    }
}

/// From when on another certificate is ordered: before a third of this one's life is left, by up
/// to a thirtieth of it.
pub(super) fn renewal(not_before: Timestamp, not_after: Timestamp, share: Share) -> Timestamp {
    let life = not_after.as_millis().saturating_sub(not_before.as_millis());
    let life = Duration::from_millis(u64::try_from(life).unwrap_or_default());
    let left = life / 3 + share.of(life / 30);
    let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(not_after.as_millis().saturating_sub(left))
}

/// How long nothing is ordered after this many failures in a row. It doubles with each; up to a
/// quarter is added, and what the authority asks for is granted.
pub(super) fn pause(
    first: Duration,
    failures: u32,
    asked: Option<Duration>,
    share: Share,
) -> Duration {
    let doubled = first * (1 << failures.saturating_sub(1).min(DOUBLINGS));
    let asked = asked.unwrap_or_default().min(MAX_ASKED);
    let pause = doubled.max(asked);
    pause + share.of(pause / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + day * DAY_MS)
    }

    #[test]
    fn a_certificate_is_renewed_before_a_third_of_its_life_is_left() {
        assert_eq!(renewal(day(0), day(90), Share::new(0)), day(60));
        let early = renewal(day(0), day(90), Share::new(255));
        assert!(early > day(57) && early < day(58), "{early}");
        assert_eq!(renewal(day(0), day(6), Share::new(0)), day(4));
        // one that never was valid is due at once
        assert_eq!(renewal(day(5), day(5), Share::new(9)), day(5));
        assert_eq!(renewal(day(5), day(0), Share::new(9)), day(0));
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_the_authority_may_ask_for_more() {
        let minutes = |failures, asked: Option<u64>, random| {
            let first = Duration::from_mins(5);
            let asked = asked.map(Duration::from_mins);
            pause(first, failures, asked, Share::new(random)).as_secs() / 60
        };
        let table = [(1, 5), (2, 10), (3, 20), (7, 320), (8, 320), (u32::MAX, 320)];
        for (failures, expected) in table {
            assert_eq!(minutes(failures, None, 0), expected, "{failures}");
        }
        assert_eq!(minutes(1, Some(60), 0), 60);
        assert_eq!(minutes(1, Some(1), 0), 5);
        assert_eq!(minutes(1, Some(u64::MAX / 60), 0), 24 * 60);
        assert_eq!(minutes(3, None, 128), 22);
    }
}
