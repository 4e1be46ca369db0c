//! Backups looked at and restored: the log of lowered authority, what a restore takes away again
//! by it, and the audit chains walked to their ends.

mod apply;
mod chains;
mod export;
mod log;
#[cfg(test)]
mod tests;

pub(crate) use apply::{Knowledge, Report, restored};
pub(crate) use chains::{Chains, walk};
pub(crate) use export::part;
pub(crate) use log::{LogHeader, LogReader, LogWriter};
