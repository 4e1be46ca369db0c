//! What a caller's frames are, counted as they pass.
//!
//! `h2` bounds what frames cost in memory. What it does not bound is how many of them a caller
//! sends that ask for nothing: pings, settings, windows, resets, empty pieces. A caller has so many
//! of these, gets more with time, and earns some with what it asks for and is sent.

use tokio::time::Instant;

/// Bytes before the payload of a frame (RFC 9113 §4.1).
pub(super) const HEAD_BYTES: usize = 9;
/// Bytes of a caller's preface.
const PREFACE_BYTES: usize = 24;

/// Frames that ask for nothing which a caller may send at once, and how many more each second.
const CONTROL: Allowance = Allowance { at_once: 1_000, per_second: 20 };
/// Streams that a caller may take back at once, and how many more each second.
const RESETS: Allowance = Allowance { at_once: 300, per_second: 30 };
/// Frames that ask for nothing which a caller earns with a request: its windows, its priority.
const EARNED_BY_REQUEST: u32 = 4;
/// Bytes sent to a caller for which it may send one more such frame.
const EARNING_BYTES: usize = 32;
/// Frames that may continue one head. One would do for the largest head that is accepted.
const MAX_CONTINUATIONS: u8 = 5;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// How many of something a caller may send.
#[derive(Clone, Copy)]
struct Allowance {
    at_once: u32,
    per_second: u32,
}

/// What is left of an allowance.
struct Purse {
    allowance: Allowance,
    left: u32,
    filled: Instant,
}

impl Purse {
    fn full(allowance: Allowance, now: Instant) -> Self {
        Self { allowance, left: allowance.at_once, filled: now }
    }

    /// Takes one out; the clock is only read when there is none left.
    fn take(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left == 0 {
            let now = now();
            let waited = now.saturating_duration_since(self.filled).as_secs();
            let more = waited.saturating_mul(self.allowance.per_second.into());
            if more == 0 {
                return false;
            }
            self.filled = now;
            self.earn(u32::try_from(more).unwrap_or(u32::MAX));
        }
        self.left -= 1;
        true
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.allowance.at_once);
    }
}

/// Follows the frames of one caller.
pub(super) struct Frames {
    /// Bytes of the preface or of a payload that are still to come.
    passing: usize,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Whether what passes is a part of a head.
    is_field_block: bool,
    /// Frames that continued the head that has not ended.
    open: Option<u8>,
    has_begun: bool,
    control: Purse,
    resets: Purse,
    earned_bytes: usize,
}

/// A frame that is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flood {
    /// How many of the bytes that were looked at are before it, unless it began before them.
    pub(super) before: Option<usize>,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            passing: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            is_field_block: false,
            open: None,
            has_begun: false,
            control: Purse::full(CONTROL, now),
            resets: Purse::full(RESETS, now),
            earned_bytes: 0,
        }
    }

    /// Whether a head has begun and has not ended, or none has begun yet.
    pub(super) fn awaits_head(&self) -> bool {
        !self.has_begun || self.open.is_some() || (self.is_field_block && self.passing > 0)
    }

    /// So many bytes were sent to the caller.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.earned_bytes += bytes;
        let earned = u32::try_from(self.earned_bytes / EARNING_BYTES).unwrap_or(u32::MAX);
        self.earned_bytes %= EARNING_BYTES;
        self.control.earn(earned);
    }

    /// Looks at what the caller sent next.
    pub(super) fn look(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.passing > 0 {
                let count = self.passing.min(rest.len());
                self.passing -= count;
                at += count;
                continue;
            }
            let count = (HEAD_BYTES - self.head_bytes).min(rest.len());
            for (slot, byte) in self.head.iter_mut().skip(self.head_bytes).zip(rest) {
                *slot = *byte;
            }
            let begun = at.checked_sub(self.head_bytes);
            self.head_bytes += count;
            at += count;
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                if !self.count(&now) {
                    return Err(Flood { before: begun });
                }
            }
        }
        Ok(())
    }

    /// Counts the frame whose head is complete. False: it is one too many.
    fn count(&mut self, now: impl Fn() -> Instant) -> bool {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.passing = usize::try_from(length).unwrap_or(usize::MAX);
        self.is_field_block = matches!(kind, HEADERS | CONTINUATION);
        let ends = flags & END_HEADERS != 0;
        match kind {
            HEADERS => {
                self.open = (!ends).then_some(0);
                self.has_begun = true;
                self.control.earn(EARNED_BY_REQUEST);
                true
            }
            CONTINUATION => {
                let so_far = self.open.unwrap_or_default();
                self.open = (!ends).then_some(so_far + 1);
                so_far < MAX_CONTINUATIONS
            }
            DATA if length > 0 || flags & END_STREAM != 0 => true,
            RST_STREAM => self.resets.take(&now) && self.control.take(&now),
            _ => self.control.take(&now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    /// How many of these frames pass, and the clock they are counted by.
    fn passed(frames: &mut Frames, sent: &[u8], most: usize, now: Instant) -> usize {
        (0..most).take_while(|_| frames.look(sent, || now).is_ok()).count()
    }

    fn begun(now: Instant) -> Frames {
        let mut frames = Frames::new(now);
        frames.look(&[b'P'; PREFACE_BYTES], || now).unwrap();
        frames
    }

    #[test]
    fn what_asks_for_nothing_runs_out_and_comes_back_with_time() {
        let now = Instant::now();
        for (kind, payload, most) in [
            (PING, &[0_u8; 8][..], 1_000),
            (SETTINGS, &[], 1_000),
            (8, &[0, 0, 0, 1], 1_000),
            (2, &[0; 5], 1_000),
            (0xfa, b"unknown", 1_000),
            (DATA, &[], 1_000),
            (RST_STREAM, &[0, 0, 0, 8], 300),
        ] {
            let mut frames = begun(now);
            let sent = frame(kind, 0, payload);
            assert_eq!(passed(&mut frames, &sent, 10_000, now), most, "{kind}");
            let later = now + Duration::from_secs(2);
            let more = if kind == RST_STREAM { 60 } else { 40 };
            let mut frames = begun(now);
            passed(&mut frames, &sent, most, now);
            assert_eq!(passed(&mut frames, &sent, 10_000, later), more, "{kind}");
        }
    }

    #[test]
    fn what_is_asked_for_and_sent_earns_more() {
        let now = Instant::now();
        let ping = frame(PING, 0, &[0; 8]);
        let after = |earn: fn(&mut Frames)| {
            let mut frames = begun(now);
            passed(&mut frames, &ping, 1_000, now);
            earn(&mut frames);
            passed(&mut frames, &ping, 100, now)
        };
        let request = |frames: &mut Frames| {
            frames.look(&frame(HEADERS, END_HEADERS, b"x"), Instant::now).unwrap();
        };
        assert_eq!(after(request), 4);
        let answer = |frames: &mut Frames| {
            frames.sent(31);
            frames.sent(33);
        };
        assert_eq!(after(answer), 2);
        // the answer to a ping is no reason for two more
        let mut frames = begun(now);
        let answered = (0..10_000).take_while(|_| {
            frames.sent(17);
            frames.look(&ping, || now).is_ok()
        });
        assert!(answered.count() < 2_500);
    }

    #[test]
    fn a_head_may_be_continued_a_few_times() {
        let now = Instant::now();
        let mut frames = begun(now);
        assert!(frames.awaits_head());
        frames.look(&frame(HEADERS, 0, b"x"), || now).unwrap();
        assert!(frames.awaits_head());
        assert_eq!(passed(&mut frames, &frame(CONTINUATION, 0, b"x"), 100, now), 5);
        let mut frames = begun(now);
        frames.look(&frame(HEADERS, 0, b"x"), || now).unwrap();
        frames.look(&frame(CONTINUATION, END_HEADERS, b"x"), || now).unwrap();
        assert!(!frames.awaits_head());
        let mut frames = begun(now);
        frames.look(&frame(HEADERS, END_HEADERS, b"xyz")[..10], || now).unwrap();
        assert!(frames.awaits_head());
    }

    #[test]
    fn a_flood_is_found_at_the_frame_however_the_bytes_are_cut() {
        let now = Instant::now();
        let ping = frame(PING, 0, &[0; 8]);
        let mut frames = begun(now);
        passed(&mut frames, &ping, 999, now);
        let flood = frames.look(&ping.repeat(3), || now);
        assert_eq!(flood, Err(Flood { before: Some(17) }));
        let mut frames = begun(now);
        passed(&mut frames, &ping, 1_000, now);
        frames.look(&ping[..4], || now).unwrap();
        assert_eq!(frames.look(&ping[4..], || now), Err(Flood { before: None }));
        let whole = [&[b'P'; PREFACE_BYTES][..], &ping.repeat(1_001)].concat();
        for piece in [1, 7, 9, 17, 4_096] {
            let mut frames = Frames::new(now);
            let mut pieces = whole.chunks(piece);
            assert!(pieces.any(|piece| frames.look(piece, || now).is_err()), "{piece}");
            let left = HEAD_BYTES.div_ceil(piece);
            assert!(pieces.len() <= left, "{piece}: it was not the last frame");
        }
    }
}
