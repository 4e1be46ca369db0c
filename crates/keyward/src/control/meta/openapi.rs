//! The OpenAPI document of this API.

use std::sync::LazyLock;

use keyward_core::Result;
use serde_json::Value;

use crate::control::answer::Answer;
use crate::control::context::Ctx;
use crate::control::input::Nothing;

static DOCUMENT: LazyLock<Value> = LazyLock::new(keyward_api::openapi::document);

pub(super) async fn handle(_: Ctx, _: Nothing) -> Result<Answer> {
    Answer::json(&*DOCUMENT)
}
