//! Requests that two readers could understand differently, sent through the gateway to servers of
//! other makers, and through proxies of other makers to the gateway. What the gateway decided is
//! what the upstream says it has executed, or nothing is executed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails, and says where"
)]

mod addresses;
mod conversation;
#[expect(dead_code, reason = "shared with the tests of the gateway, which use the rest")]
#[path = "../gateway/frames.rs"]
mod frames;
mod framing;
mod framing_cases;
mod fronts;
mod headers;
mod paths;
#[expect(dead_code, reason = "shared with the tests of the gateway, which use the rest")]
#[path = "../gateway/support.rs"]
mod support;
mod witness;
