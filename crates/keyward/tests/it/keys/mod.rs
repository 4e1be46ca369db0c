//! The operations on keys: what they do, and every way in which they refuse.

mod asking;
mod changing;
mod making;
mod owners;
mod racing;
mod using;
