//! Memory that requests take and give back, kept by each thread: what the last one used is still in
//! the processor's caches, and what waits holds none.

pub(crate) mod maps;
pub(crate) mod room;
