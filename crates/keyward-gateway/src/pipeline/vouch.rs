//! A request that another proxy forwards: decided about here, and vouched for.

use http::Response;
use http::request::Parts;

use keyward_core::assertion::SigningKey;
use keyward_core::error::Error;

use crate::identity::Identity;
use crate::pipeline::{Entrance, Exchange, Staged};
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::server::Arrival;

/// The upstream that assertions are made for.
#[derive(Clone, Copy)]
pub(crate) struct Addressee<'a> {
    pub(crate) audience: &'a str,
    pub(crate) assertion_key: &'a SigningKey,
}

/// Answers a proxy that asks about a request it would forward itself: who makes it, in the identity
/// headers, or the refusal that the gateway would give. Recorded like any other request.
pub(crate) async fn vouch(
    plane: &DataPlane,
    arrival: &Arrival,
    entrance: Entrance<'_>,
    addressee: Addressee<'_>,
    parts: &Parts,
) -> Response<PlaneBody> {
    let mut exchange = Exchange::begin(plane, arrival, entrance, parts);
    let outcome = exchange.vouch(addressee, parts).await;
    exchange.finish(outcome)
}

impl Exchange<'_> {
    /// Stages 1 to 3, and what the upstream of a permitted request is to be told.
    async fn vouch(
        &mut self,
        addressee: Addressee<'_>,
        parts: &Parts,
    ) -> Staged<Response<PlaneBody>> {
        let target = self.read(parts)?;
        let permit = self.permit(parts, target).await?;
        let Some(key) = &self.record.key else {
            return Err(Error::internal("a permit without a key").into());
        };
        let identity = Identity {
            catalog: &self.plane.product.catalog,
            key,
            method: &parts.method,
            path: target.path,
            request_id: &self.id,
            audience: addressee.audience,
            assertion_key: addressee.assertion_key,
            now: self.record.at,
        };
        Ok(identity.vouched(permit))
    }
}
