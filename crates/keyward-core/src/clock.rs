//! The one source of time and randomness.

use crate::time::Timestamp;

/// Time and randomness, injected so that every rule can be tested at any instant.
///
/// One implementation reads the machine; the other is moved by tests.
pub trait Clock: Send + Sync + 'static {
    /// The wall-clock instant.
    fn now(&self) -> Timestamp;

    /// Nanoseconds of a clock that never steps back and counts suspended time
    /// (`CLOCK_BOOTTIME`); only differences between two readings mean anything.
    fn monotonic_ns(&self) -> u64;

    /// Fills the buffer with bytes from a cryptographically secure source.
    fn fill_random(&self, buffer: &mut [u8]);
}
