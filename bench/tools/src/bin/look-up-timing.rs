//! Whether the time that a refusal takes tells why: `look-up-timing [SAMPLES]`.
//!
//! One token is looked up again and again in a key set that, drawn anew before each time, has its
//! key with a hash that differs in the first byte or in the last, or does not have the key at all;
//! a fourth token has an id of another deployment. Everything but the look-up is the same for all.
//! Welch's t-test compares each with the first, after the slowest twentieth of all samples was
//! left out, which is the machine's. It ends with an error when the first two differ.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::hint::black_box;
use std::time::Instant;

use anyhow::Context as _;

use keyward_bench::plane::{MachineClock, empty_set, key_of};
use keyward_core::Clock as _;
use keyward_core::authority::KeyAuthority;
use keyward_core::environment::Environment;
use keyward_core::key::{KeyHash, Keyring, Minted, Pepper, SecretKind, TagKey};
use keyward_gateway::{KeySet, Recognized};

/// Samples of each kind.
const SAMPLES: usize = 1_000_000;
/// Looked up before the first that counts.
const WARM_UP: usize = 50_000;
/// Of a hundred samples, those that are kept: interruptions are long, and nobody's.
const KEPT_PERCENT: usize = 95;
/// Keys that stand in the set beside the one that is looked up.
const OTHERS: usize = 10_000;
/// From here on means differ; as in Reparaz, Balasch and Verbauwhede, "Dude, is my code constant
/// time?" (2017).
const THRESHOLD: f64 = 4.5;
const KIND: SecretKind = SecretKind::Api(Environment::Live);

/// Why a token is refused.
#[derive(Clone, Copy, PartialEq)]
enum Cause {
    WrongFirstByte,
    WrongLastByte,
    Unknown,
    Forged,
}

impl Cause {
    const ALL: [Self; 4] = [Self::WrongFirstByte, Self::WrongLastByte, Self::Unknown, Self::Forged];

    const fn name(self) -> &'static str {
        match self {
            Self::WrongFirstByte => "wrong in the first byte",
            Self::WrongLastByte => "wrong in the last byte",
            Self::Unknown => "an id of nobody",
            Self::Forged => "an id of another deployment",
        }
    }
}

struct Subject {
    keyring: std::sync::Arc<Keyring>,
    set: std::sync::Arc<KeySet>,
    ours: Minted,
    forged: Minted,
}

impl Subject {
    fn new(clock: &MachineClock) -> anyhow::Result<Self> {
        let (keyring, set) = empty_set()?;
        for number in 0..OTHERS {
            set.replace_key(key_of(&keyring.mint(KIND, clock), format!("bench-{number}")));
        }
        let elsewhere = TagKey::new(&[9; 32]);
        let forged = keyring.format().mint(KIND, &elsewhere, &Pepper::new(1, &[9; 32]), clock);
        let ours = keyring.mint(KIND, clock);
        Ok(Self { keyring, set, ours, forged })
    }

    /// The key as stored, with one byte of its hash flipped.
    fn with_wrong(&self, byte: usize) -> anyhow::Result<KeyAuthority> {
        let mut hash = *self.ours.hash.as_bytes();
        *hash.get_mut(byte).context("a byte of a hash")? ^= 0x55;
        let key = key_of(&self.ours, "bench".to_owned());
        Ok(KeyAuthority { hash: KeyHash::from_bytes(hash), ..key })
    }

    /// Nanoseconds of one look-up that is refused for this cause.
    fn sample(&self, cause: Cause) -> anyhow::Result<u64> {
        // written first in any case, so that the set is left alike
        let byte = if cause == Cause::WrongFirstByte { 0 } else { 31 };
        let key = self.with_wrong(byte)?;
        let id = key.id;
        self.set.replace_key(key);
        if cause == Cause::Unknown {
            self.set.remove_key(id);
        }
        let minted = if cause == Cause::Forged { &self.forged } else { &self.ours };
        let text = black_box(minted.secret.expose());
        let begun = now();
        let presented = self.keyring.format().parse(text)?;
        let recognized = self.set.recognize(&presented);
        let nanos = u64::try_from(begun.elapsed().as_nanos())?;
        let expected = match cause {
            Cause::WrongFirstByte | Cause::WrongLastByte => matches!(recognized, Recognized::Wrong),
            Cause::Unknown => matches!(recognized, Recognized::Unknown(_)),
            Cause::Forged => matches!(recognized, Recognized::Forged),
        };
        anyhow::ensure!(expected, "refused for another cause than: {}", cause.name());
        Ok(nanos)
    }
}

fn main() -> anyhow::Result<()> {
    let samples = std::env::args().nth(1).map_or(Ok(SAMPLES), |it| it.parse());
    let samples = samples.context("usage: look-up-timing [SAMPLES]")?;
    let clock = MachineClock::start();
    let subject = Subject::new(&clock)?;
    let mut times: [Vec<u64>; 4] = Default::default();
    for turn in 0..WARM_UP + samples * Cause::ALL.len() {
        let mut random = [0];
        clock.fill_random(&mut random);
        let at = usize::from(random[0]) % Cause::ALL.len();
        let cause = *Cause::ALL.get(at).context("a cause")?;
        let nanos = subject.sample(cause)?;
        if turn >= WARM_UP {
            times.get_mut(at).context("a cause")?.push(nanos);
        }
    }
    let t = report(&times);
    anyhow::ensure!(t.abs() < THRESHOLD, "the time of a comparison tells where hashes differ");
    Ok(())
}

/// Prints the table; answers with t of the two that differ in one byte each.
fn report(times: &[Vec<u64>; 4]) -> f64 {
    let mut all: Vec<u64> = times.iter().flatten().copied().collect();
    all.sort_unstable();
    let limit = all.get(all.len() * KEPT_PERCENT / 100).copied().unwrap_or(u64::MAX);
    let kept = times.each_ref().map(|times| Kept::of(times, limit));
    println!("| refused | samples | ns | t |\n| --- | --- | --- | --- |");
    for (cause, it) in Cause::ALL.iter().zip(&kept) {
        let t = it.welch(&kept[0]);
        println!("| {} | {} | {:.1} | {t:.1} |", cause.name(), it.count, it.mean);
    }
    kept[1].welch(&kept[0])
}

/// Samples below the limit.
struct Kept {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Kept {
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one look-up, and some million")]
    fn of(times: &[u64], limit: u64) -> Self {
        let kept = || times.iter().filter(|nanos| **nanos < limit).map(|nanos| *nanos as f64);
        let count = kept().count() as f64;
        let mean = kept().sum::<f64>() / count;
        let variance = kept().map(|it| (it - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { count, mean, variance }
    }

    fn welch(&self, other: &Self) -> f64 {
        let error = (self.variance / self.count + other.variance / other.count).sqrt();
        (self.mean - other.mean) / error
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures the real machine")]
fn now() -> Instant {
    Instant::now()
}
