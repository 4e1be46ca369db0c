//! Stage 4 for operations of the product that are answered here.

use http::Response;
use http::request::Parts;
use http_body::Body;

use keyward_core::error::Error;
use keyward_core::path::Target;

use crate::answer::Refusal;
use crate::builtin::{BuiltinCall, BuiltinCaller, MAX_BUILTIN_BODY_BYTES, read_whole};
use crate::pipeline::{Exchange, Staged};
use crate::proxy::body::PlaneBody;

impl Exchange<'_> {
    /// Stage 4 for an operation that Keyward answers itself.
    pub(crate) async fn answer_builtin<B>(
        &self,
        name: &str,
        parts: &Parts,
        target: Target<'_>,
        body: B,
    ) -> Staged<Response<PlaneBody>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(key) = &self.record.key else {
            return Err(Error::internal("a permit without a key").into());
        };
        let within = self.arrival.listener.whole_body_timeout;
        let body = read_whole(body, MAX_BUILTIN_BODY_BYTES, within).await;
        let body = body.map_err(Refusal::closing)?;
        let call = BuiltinCall {
            name: name.to_owned(),
            caller: BuiltinCaller {
                tenant: key.tenant.id,
                key: key.id,
                owner: key.owner,
                scopes: key.scopes,
                environment: key.environment,
            },
            method: parts.method.clone(),
            path: target.path.to_owned(),
            query: target.query.unwrap_or_default().to_owned(),
            request_id: self.record.request_id,
            body,
        };
        let response = self.plane.product.builtins.answer(call).await?;
        Ok(response.map(|bytes| PlaneBody::Whole(Some(bytes).filter(|it| !it.is_empty()))))
    }
}
