//! The internal listener: verify, forward-auth, and what the binary serves beside them.

use http::{Request, Response};
use hyper::body::Incoming;

use crate::forward_auth::{self, Contract};
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::server::{Arrival, Fallback};
use crate::verify::{self, VERIFY_PATH};

/// Answers one request of the internal listener.
pub(crate) async fn serve(
    plane: &DataPlane,
    arrival: &Arrival,
    fallback: &Fallback,
    request: Request<Incoming>,
) -> Response<PlaneBody> {
    let path = request.uri().path();
    if arrival.bad_head.is_some() || path == VERIFY_PATH {
        return verify::serve(plane, arrival, request).await;
    }
    match (Contract::at(path), &plane.policy.forward_auth) {
        (Some(contract), Some(how)) => {
            forward_auth::serve(plane, how, arrival, contract, request).await
        }
        _ => fallback(request).await.map(PlaneBody::Boxed),
    }
}
