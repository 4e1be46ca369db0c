//! Public operations of the product that Keyward answers itself.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use keyward_core::environment::Environment;
use keyward_core::error::{Error, ErrorCode, Result};
use keyward_core::id::{KeyId, RequestId, TenantId, UserId};
use keyward_core::scope::ScopeSet;

use crate::proxy::too_large;

/// The most bytes in the body of a built-in operation's request.
pub const MAX_BUILTIN_BODY_BYTES: usize = 64 * 1024;

/// A permitted call of a built-in operation.
pub struct BuiltinCall {
    /// The name of the operation, as the route declares it.
    pub name: String,
    /// Who may be answered about what.
    pub caller: BuiltinCaller,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query as it was sent, without the question mark.
    pub query: String,
    /// The id of the request.
    pub request_id: RequestId,
    /// The whole body, at most [`MAX_BUILTIN_BODY_BYTES`].
    pub body: Bytes,
}

/// The permitted caller of a built-in operation.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinCaller {
    /// The tenant, the only one whose records may be shown.
    pub tenant: TenantId,
    /// The key.
    pub key: KeyId,
    /// The key's owner.
    pub owner: UserId,
    /// The scopes of the key.
    pub scopes: ScopeSet,
    /// The environment of the key.
    pub environment: Environment,
}

/// Answers calls of one built-in operation.
pub type BuiltinHandler =
    Box<dyn Fn(BuiltinCall) -> BoxFuture<'static, Result<Response<Bytes>>> + Send + Sync>;

/// The built-in operations of a node, by name.
#[derive(Default)]
pub struct Builtins(HashMap<String, BuiltinHandler>);

impl Builtins {
    /// Puts the handler of an operation.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, handler: BuiltinHandler) -> Self {
        self.0.insert(name.into(), handler);
        self
    }

    pub(crate) async fn answer(&self, call: BuiltinCall) -> Result<Response<Bytes>> {
        match self.0.get(&call.name) {
            Some(handler) => handler(call).await,
            None => Err(Error::new(
                ErrorCode::NotFound,
                "This operation is declared but not served here",
            )),
        }
    }
}

/// The whole body of a small request.
pub(crate) async fn read_whole(body: Incoming, max_bytes: usize) -> Result<Bytes> {
    match Limited::new(body, max_bytes).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(max_bytes as u64)),
        Err(error) => {
            let text = "The body broke off or is framed wrongly";
            Err(Error::new(ErrorCode::InvalidRequest, text).because(error.to_string()))
        }
    }
}
