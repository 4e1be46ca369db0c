//! What the callers know, and the promises that are held against it.

use keyward_core::lease::Epoch;

use crate::database::{Database, Write};

/// What is known of a key or a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Nobody was told yet that it exists.
    Making,
    /// Its making was answered.
    Valid,
    /// Somebody began to lower its authority.
    Lowering,
    /// A change was answered `propagating`, until this millisecond.
    Promised(u64),
    /// A change was answered `effective`.
    Refused,
    /// A standby was promoted that had not heard of it; nothing is promised then.
    Lost,
}

/// A key or an admin token, and the one change that lowers its authority.
pub(crate) struct Subject {
    pub(crate) secret: String,
    pub(crate) is_token: bool,
    pub(crate) make: Write,
    pub(crate) lower: Write,
    pub(crate) life: Life,
}

/// What must come of a request, as known when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    Accept,
    Refuse,
    Either,
}

/// What a node said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
    Unavailable,
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) violations: Vec<String>,
    pub(crate) requests: u64,
    pub(crate) accepted: u64,
    pub(crate) lowered: u64,
    pub(crate) promised: u64,
    /// Whether everything was looked at to the end.
    pub(crate) is_complete: bool,
}

impl Ledger {
    pub(crate) fn set(&mut self, subject: usize, life: Life) {
        let known = &mut self.subjects[subject].life;
        if *known != Life::Lost {
            *known = life;
        }
    }

    pub(crate) fn life(&self, subject: usize) -> Life {
        self.subjects[subject].life
    }

    /// What must come of a request that is sent now.
    pub(crate) fn must(&self, subject: usize, now_ms: u64) -> Must {
        match self.life(subject) {
            Life::Valid => Must::Accept,
            Life::Refused => Must::Refuse,
            Life::Promised(by_ms) if by_ms <= now_ms => Must::Refuse,
            _ => Must::Either,
        }
    }

    /// Why a verdict breaks a promise, if it does. What was to be accepted when the request was
    /// sent may be refused by now for a good reason.
    pub(crate) fn broken(
        &self,
        subject: usize,
        must: Must,
        verdict: Verdict,
    ) -> Option<&'static str> {
        let life = self.life(subject);
        match (must, verdict) {
            _ if life == Life::Lost => None,
            (Must::Refuse, Verdict::Accepted) if matches!(life, Life::Promised(_)) => {
                Some("R7: accepted after effectiveBy")
            }
            (Must::Refuse, Verdict::Accepted) => Some("R1: accepted after the change took effect"),
            (Must::Accept, Verdict::Refused) if life == Life::Valid => {
                Some("R2: refused although it was made")
            }
            _ => None,
        }
    }

    /// The standby has been promoted: whatever it lacks is lost. Answers how much that is.
    pub(crate) fn lose(&mut self, now: &Database) -> usize {
        let mut lost = 0;
        for subject in &mut self.subjects {
            let is_kept = match subject.life {
                Life::Making | Life::Lost => true,
                Life::Valid => now.has(&subject.make),
                Life::Lowering | Life::Promised(_) | Life::Refused => {
                    now.has(&subject.make) && now.has(&subject.lower)
                }
            };
            let made = subject.life != Life::Making || now.has(&subject.make);
            if !is_kept || !made {
                subject.life = Life::Lost;
                lost += 1;
            }
        }
        lost
    }
}

/// A change that was asked for, as its caller hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Effective(Epoch),
    Promised(Epoch, u64),
    Unknown,
}
