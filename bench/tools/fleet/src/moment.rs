//! The one clock that decides: monotonic nanoseconds since this process began.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keyward_core::Timestamp;

static BEGUN: LazyLock<Instant> = LazyLock::new(instant);

/// Nanoseconds since this process first asked.
pub(crate) fn now_ns() -> u64 {
    let begun = *BEGUN;
    ns(instant().saturating_duration_since(begun))
}

/// A span in nanoseconds.
pub(crate) fn ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds as milliseconds, to show.
pub(crate) fn ms(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e3
}

/// When on our clock the wall clock of this machine, which is also that of the nodes, reaches an
/// instant; a millisecond later, since instants on the wire are cut to milliseconds.
pub(crate) fn of_wall(at: Timestamp) -> u64 {
    let (now, wall) = (now_ns(), wall_ms());
    let ahead = (at.as_millis() + 1 - wall) * 1_000_000;
    now.saturating_add_signed(ahead)
}

/// Milliseconds of the wall clock since 1970.
#[expect(clippy::disallowed_methods, reason = "nodes answer with instants of this wall clock")]
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Lets time pass.
#[expect(clippy::disallowed_methods, reason = "faults last, and load is bounded, in real time")]
pub(crate) async fn pause(span: Duration) {
    tokio::time::sleep(span).await;
}

/// Lets time pass until an instant of our clock.
pub(crate) async fn pause_until(at_ns: u64) {
    pause(Duration::from_nanos(at_ns.saturating_sub(now_ns()))).await;
}

#[expect(clippy::disallowed_methods, reason = "what is measured happens in real time")]
fn instant() -> Instant {
    Instant::now()
}
