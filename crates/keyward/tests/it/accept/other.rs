//! Products beside the demo product, each with its own names and carriers.

use std::path::Path;

use keyward_core::environment::Environment;

use crate::harness::{Setup, TestNode, node_on_every_engine_with};

pub(super) const AIIA: &str = "aiia";
pub(super) const ASTERI: &str = "asteri";

/// Runs a test against a fresh node of another product, once on each engine at hand; its gateway
/// takes live keys.
pub(super) async fn other_product(name: &str, test: impl AsyncFn(&TestNode)) {
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../profiles");
    let setup = Setup { profile: profiles.join(name), gateways: vec![vec![Environment::Live]] };
    node_on_every_engine_with(&setup, test).await;
}
