//! The internal listener: verify, forward-auth, and what the binary serves beside them.

use http::Response;

use crate::forward_auth::{self, CHECK_PATH, Contract};
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::server::{Arrival, ArrivingRequest, Fallback};
use crate::verify::{self, VERIFY_PATH};

/// Answers one request of the internal listener.
pub(crate) async fn serve(
    plane: &DataPlane,
    arrival: &Arrival,
    fallback: &Fallback,
    request: &mut ArrivingRequest,
) -> Response<PlaneBody> {
    let path = request.head.uri.path();
    if arrival.bad_head.is_some() || path == VERIFY_PATH {
        return verify::serve(plane, arrival, request).await;
    }
    match (&plane.policy.forward_auth, Contract::at(path)) {
        (Some(how), Some(contract)) => {
            forward_auth::serve(plane, how, arrival, contract, request).await
        }
        // large, and not a part of every request's state
        (Some(how), None) if path == CHECK_PATH => {
            Box::pin(forward_auth::check(plane, how, arrival, request)).await
        }
        _ => fallback(request.take()).await.map(PlaneBody::Boxed),
    }
}
