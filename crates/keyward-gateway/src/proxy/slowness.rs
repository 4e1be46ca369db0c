//! For how long the body of a request may keep the gateway waiting.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The slowest that the body of a request may come.
///
/// Only time in which the caller is waited for counts: what the upstream does not take is not held
/// against anybody. A body begins with `grace`, each second's worth of bytes earns it another
/// second, and it may save up three times `grace`. Once the answer has begun the two talk with each
/// other, and only standing still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRate {
    /// Bytes for each second of waiting; 0 is without a bound.
    pub bytes_per_second: u64,
    /// For how long a body is waited for, however slow it is.
    pub grace: Duration,
}

impl BodyRate {
    /// However slow.
    pub const ANY: Self = Self { bytes_per_second: 0, grace: Duration::ZERO };
}

impl Default for BodyRate {
    /// 1 KiB a second, after 10 seconds.
    fn default() -> Self {
        Self { bytes_per_second: 1024, grace: Duration::from_secs(10) }
    }
}

/// How many times its grace a body may save up.
const MOST_GRACES: u32 = 3;
const NANOS: u64 = 1_000_000_000;

/// Follows one body. It reads the clock and sets a timer only when the body has to be waited for.
pub(super) struct Slowness {
    idle: Duration,
    rate: BodyRate,
    /// For how much longer its rate allows to wait.
    left: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Slowness {
    /// `idle` bounds each wait, whatever came before.
    pub(super) const fn new(idle: Duration, rate: BodyRate) -> Self {
        Self { idle, rate, left: rate.grace, waiting_since: None, timer: None }
    }

    /// So many bytes came.
    pub(super) fn earn(&mut self, bytes: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let earned = bytes.saturating_mul(NANOS).checked_div(self.rate.bytes_per_second);
        let earned = Duration::from_nanos(earned.unwrap_or_default());
        self.left = (self.left + earned).min(self.rate.grace * MOST_GRACES);
    }

    /// Nothing comes: ready when that lasts for too long. `answered`: the answer has begun.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, answered: bool) -> Poll<()> {
        let by_rate = self.rate.bytes_per_second > 0 && !answered;
        let within = if by_rate { self.idle.min(self.left) } else { self.idle };
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let due = since + within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        // a new wait, or an answer that has begun meanwhile
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use tokio::time::{advance, pause};

    use super::*;

    const IDLE: Duration = Duration::from_mins(1);
    const RATE: BodyRate = BodyRate { bytes_per_second: 1_000, grace: Duration::from_secs(10) };

    /// Whether so much more waiting is too much.
    async fn is_over_after(slowness: &mut Slowness, ms: u64, answered: bool) -> bool {
        let over = |slowness: &mut Slowness| {
            poll_fn(|cx| Poll::Ready(slowness.poll_over(cx, answered).is_ready())).now_or_never()
        };
        assert_eq!(over(slowness), Some(false), "before any of it");
        advance(Duration::from_millis(ms)).await;
        over(slowness).unwrap()
    }

    #[tokio::test]
    async fn slow_bytes_use_the_grace_up_and_fast_ones_do_not() {
        pause();
        let mut slow = Slowness::new(IDLE, RATE);
        for _ in 0..10 {
            assert!(!is_over_after(&mut slow, 1_000, false).await);
            slow.earn(10);
        }
        assert!(!is_over_after(&mut slow, 90, false).await);
        slow.earn(0);
        assert!(is_over_after(&mut slow, 20, false).await);
        let mut fast = Slowness::new(IDLE, RATE);
        for _ in 0..100 {
            assert!(!is_over_after(&mut fast, 1_000, false).await);
            fast.earn(1_000);
        }
    }

    #[tokio::test]
    async fn what_came_at_once_saves_up_so_much_and_no_more() {
        pause();
        let mut slowness = Slowness::new(IDLE, RATE);
        slowness.earn(1_000_000);
        assert!(!is_over_after(&mut slowness, 29_900, false).await);
        assert!(is_over_after(&mut slowness, 200, false).await);
        let mut idle = Slowness::new(Duration::from_secs(5), RATE);
        idle.earn(1_000_000);
        assert!(is_over_after(&mut idle, 5_100, false).await, "standing still counts too");
    }

    #[tokio::test]
    async fn an_answer_that_has_begun_and_no_rate_leave_only_standing_still() {
        pause();
        let mut answered = Slowness::new(IDLE, RATE);
        assert!(!is_over_after(&mut answered, 9_000, false).await);
        // in the midst of a wait
        assert!(!is_over_after(&mut answered, 45_000, true).await);
        assert!(is_over_after(&mut answered, 7_000, true).await);
        let mut any = Slowness::new(IDLE, BodyRate::ANY);
        for _ in 0..10 {
            assert!(!is_over_after(&mut any, 59_000, false).await);
            any.earn(1);
        }
        assert!(is_over_after(&mut any, 61_000, false).await);
    }

    #[tokio::test]
    async fn time_that_is_not_spent_waiting_is_free() {
        pause();
        let mut slowness = Slowness::new(IDLE, RATE);
        for _ in 0..10 {
            assert!(!is_over_after(&mut slowness, 500, false).await);
            slowness.earn(1);
            // nobody asks for more meanwhile
            advance(Duration::from_mins(1)).await;
        }
    }
}
