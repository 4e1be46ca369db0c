//! What both sides of HTTP/1.1 read alike: callers' requests and upstreams' answers.

pub(crate) mod chunked;
pub(crate) mod reading;
