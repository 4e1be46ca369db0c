//! What the machine says: memory of this process, time, and numbers that look random.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Resident bytes of this process.
pub(crate) fn resident_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kibibytes.parse::<u64>()? * 1024)
}

/// The time since the process first asked.
pub(crate) fn elapsed() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures the machine's time")]
    let now = Instant::now();
    now.duration_since(*START.get_or_init(|| now))
}

/// The time since an earlier answer of [`elapsed`].
pub(crate) fn since(begun: Duration) -> Duration {
    elapsed().saturating_sub(begun)
}

/// The time that this thread was on a processor: what a look-up costs however busy the machine is.
pub(crate) fn on_processor() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

/// Numbers below a bound in an order without a pattern, the same in every run.
pub(crate) struct Order(u64);

impl Order {
    /// Another order for each worker or round.
    pub(crate) const fn of(worker: usize) -> Self {
        Self(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * worker as u64 + 1))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.after(0, bound)
    }

    /// The next number once another is known, on which it depends.
    pub(crate) fn after(&mut self, known: u64, bound: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0.wrapping_add(known) % bound.max(1) as u64).unwrap_or(0)
    }
}

/// The middle and the end of many measured times, in microseconds.
pub(crate) fn percentiles(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let at = |share: usize| {
        let position = times.len().saturating_sub(1) * share / 100;
        times.get(position).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    (at(50), at(99))
}
