//! The layer as applications put it on their routes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tokio::sync::watch;
use tower_layer::Layer;

use keyward_core::environment::EnvironmentSet;
use keyward_layer::Gated;

use crate::builtin::MAX_BUILTIN_BODY_BYTES;
use crate::lent::Peer;
use crate::plane::DataPlane;
use crate::server::{ClearText, Listener, ListenerEnvironments, Stage, WHOLE_BODY_TIMEOUT};

/// Tells which address a request came from; `None` refuses the request.
pub type PeerOf = Arc<dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync>;

/// How an [`EmbeddedLayer`] sees the requests of its application.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// The environments that are served, by host or for all hosts.
    pub environments: ListenerEnvironments,
    /// Where a request came from: the peer of its connection, never a header. Proxies that the
    /// plane trusts are looked through afterwards, and believed when they say that a request
    /// reached them without TLS.
    pub peer: PeerOf,
    /// For how long the body of a built-in operation may take to arrive whole.
    pub whole_body_timeout: Duration,
}

impl EmbeddedOptions {
    /// For these environments; the peer is the extension [`Peer`] of a request.
    pub fn new(environments: EnvironmentSet) -> Self {
        Self {
            environments: ListenerEnvironments::all_hosts(environments),
            peer: Arc::new(|parts| parts.extensions.get::<Peer>().map(|peer| peer.0)),
            whole_body_timeout: WHOLE_BODY_TIMEOUT,
        }
    }

    /// With another way to tell the peer, as from the extension in which a framework keeps it.
    #[must_use]
    pub fn peer(mut self, peer: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.peer = Arc::new(peer);
        self
    }
}

/// What all services of a layer share.
pub struct Embedded {
    pub(super) plane: Arc<DataPlane>,
    pub(super) listener: Arc<Listener>,
    pub(super) peer: PeerOf,
}

/// Lets only permitted requests through to an application's service.
///
/// A request is decided exactly as the gateway would: its route must be on the product's allowlist
/// and its key must be good for it. The service then gets the request without credential and
/// without any header in which a client could claim to be somebody, and finds the
/// [`Caller`](keyward_core::Caller) among its extensions, beside the client's address as a
/// [`Peer`]. Whatever is refused never reaches the service and is answered with the error envelope.
///
/// The paths of requests are compared with those of the product's document, so the layer belongs
/// around the outermost router, before anything takes a prefix off.
#[derive(Clone)]
pub struct EmbeddedLayer(Arc<Embedded>);

impl EmbeddedLayer {
    /// A layer that decides with this plane.
    pub fn new(plane: Arc<DataPlane>, options: EmbeddedOptions) -> Self {
        // the application ends connections itself, so this never leaves its first stage
        let (_, stage) = watch::channel(Stage::Open);
        let listener = Listener {
            environments: options.environments,
            // both are for requests that are forwarded
            public_scheme: "http",
            // of this listener nothing is known; what trusted proxies say is asked beside
            clear_text: ClearText::Never,
            max_body_bytes: MAX_BUILTIN_BODY_BYTES as u64,
            whole_body_timeout: options.whole_body_timeout,
            stage,
        };
        Self(Arc::new(Embedded { plane, listener: Arc::new(listener), peer: options.peer }))
    }
}

impl<S> Layer<S> for EmbeddedLayer {
    type Service = EmbeddedService<S>;

    fn layer(&self, inner: S) -> EmbeddedService<S> {
        Gated::new(Arc::clone(&self.0), inner)
    }
}

/// An application's service behind an [`EmbeddedLayer`].
pub type EmbeddedService<S> = Gated<Embedded, S>;
