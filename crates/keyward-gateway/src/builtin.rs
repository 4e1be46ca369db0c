//! Public operations of the product that Keyward answers itself.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

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

/// The whole body of a small request, which must have arrived `within` that time.
pub(crate) async fn read_whole<B>(body: B, max_bytes: usize, within: Duration) -> Result<Bytes>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut reading = pin!(Limited::new(body, max_bytes).collect());
    // a body that came with its head is there at the second look; only a later one needs a timer
    let mut looked = false;
    let at_once = poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Ready(read) => Poll::Ready(Some(read)),
        Poll::Pending if looked => Poll::Ready(None),
        Poll::Pending => {
            looked = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    });
    let read = match at_once.await {
        Some(read) => read,
        None => timeout(within, reading).await.map_err(|_| {
            let text = format!("The body did not arrive whole within {} ms", within.as_millis());
            Error::new(ErrorCode::InvalidRequest, text)
        })?,
    };
    match read {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(max_bytes as u64)),
        Err(error) => {
            let text = "The body broke off or is framed wrongly";
            Err(Error::new(ErrorCode::InvalidRequest, text).because(error.to_string()))
        }
    }
}
