//! The data plane of Keyward: pipeline, proxy and verify.
