//! A listener that is lent: guarded like the others, answered by the binary.

use std::net::IpAddr;

use http::Response;

use crate::answer::mark;
use crate::plane::DataPlane;
use crate::proxy::body::PlaneBody;
use crate::request_id;
use crate::server::{Arrival, ArrivingRequest, Fallback};

/// Where a request of a lent listener came from; among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Answers what cannot be read, and hands everything else on.
pub(crate) async fn serve(
    plane: &DataPlane,
    arrival: &Arrival,
    fallback: &Fallback,
    request: &mut ArrivingRequest,
) -> Response<PlaneBody> {
    if let Err(refusal) = arrival.admit() {
        let id = request_id::next(plane.clock.as_ref(), plane.clock.now());
        let mut response = refusal.into_response(id, &plane.product.docs_base);
        mark(response.headers_mut(), request_id::header(id), None);
        return response;
    }
    request.head.extensions.insert(Peer(arrival.peer));
    fallback(request.take()).await.map(PlaneBody::Boxed)
}
