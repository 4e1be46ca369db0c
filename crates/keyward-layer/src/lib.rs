//! A gate around an application's service: it sees every request before the service does, and every
//! answer after it. What a gate is made of is shared by all copies of the service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

/// What stands before a service `S` of requests `Q`.
pub trait Gate<S, Q>
where
    S: Service<Q>,
{
    /// What callers get.
    type Response;

    /// Answers a request, with the help of a service that is ready for one or without.
    fn pass(
        self: Arc<Self>,
        ready: S,
        request: Q,
    ) -> impl Future<Output = Result<Self::Response, S::Error>> + Send + 'static;
}

/// A service behind a gate.
pub struct Gated<G, S> {
    gate: Arc<G>,
    service: S,
}

impl<G, S> Gated<G, S> {
    /// Puts a service behind a gate.
    pub const fn new(gate: Arc<G>, service: S) -> Self {
        Self { gate, service }
    }
}

impl<G, S: Clone> Clone for Gated<G, S> {
    fn clone(&self) -> Self {
        Self { gate: Arc::clone(&self.gate), service: self.service.clone() }
    }
}

impl<G, S, Q> Service<Q> for Gated<G, S>
where
    G: Gate<S, Q>,
    S: Service<Q> + Clone,
{
    type Response = G::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<G::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Q) -> Self::Future {
        // the service that is ready is the one to call; its copy takes its place
        let copy = self.service.clone();
        let ready = std::mem::replace(&mut self.service, copy);
        Box::pin(Arc::clone(&self.gate).pass(ready, request))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, poll_fn, ready};

    use super::*;

    /// Doubles a number, once for each time that it was asked whether it is ready.
    #[derive(Default)]
    struct Double {
        is_ready: bool,
    }

    impl Clone for Double {
        fn clone(&self) -> Self {
            Self::default()
        }
    }

    impl Service<u32> for Double {
        type Response = u32;
        type Error = Infallible;
        type Future = Ready<Result<u32, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.is_ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, number: u32) -> Self::Future {
            assert!(self.is_ready, "called without being ready");
            self.is_ready = false;
            ready(Ok(2 * number))
        }
    }

    /// Lets only numbers pass that are large enough.
    struct AtLeast(u32);

    impl Gate<Double, u32> for AtLeast {
        type Response = Option<u32>;

        async fn pass(
            self: Arc<Self>,
            mut ready: Double,
            number: u32,
        ) -> Result<Option<u32>, Infallible> {
            if number < self.0 {
                return Ok(None);
            }
            ready.call(number).await.map(Some)
        }
    }

    #[tokio::test]
    async fn the_service_that_is_ready_is_called_and_only_behind_the_gate() {
        let mut gated = Gated::new(Arc::new(AtLeast(3)), Double::default());
        for (number, answer) in [(2, None), (3, Some(6)), (4, Some(8))] {
            poll_fn(|cx| gated.poll_ready(cx)).await.unwrap();
            let mut copy = gated.clone();
            assert_eq!(gated.call(number).await, Ok(answer));
            poll_fn(|cx| copy.poll_ready(cx)).await.unwrap();
            assert_eq!(copy.call(number).await, Ok(answer));
        }
    }
}
