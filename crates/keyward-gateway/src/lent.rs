//! A listener that is lent: guarded like the others, answered by the binary.

use std::net::IpAddr;

use http::{Request, Response};

use crate::answer::mark;
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::request_id;
use crate::server::{Arrival, ArrivingBody, Fallback};

/// Where a request of a lent listener came from; among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Answers what cannot be read, and hands everything else on.
pub(crate) async fn serve(
    plane: &DataPlane,
    arrival: &Arrival,
    fallback: &Fallback,
    mut request: Request<ArrivingBody>,
) -> Response<PlaneBody> {
    if let Err(refusal) = arrival.admit() {
        let id = request_id::next(plane.clock.as_ref(), plane.clock.now());
        let mut response = refusal.into_response(id, &plane.product.docs_base);
        mark(response.headers_mut(), &request_id::header(id), None);
        return response;
    }
    request.extensions_mut().insert(Peer(arrival.peer));
    fallback(request).await.map(PlaneBody::Boxed)
}
