//! Listeners of the data plane: accept loops, connections, drain.

mod accept;
mod admission;
mod arriving;
mod connection;
mod entrance;
mod http1;
mod http2;
mod linger;
mod lookout;
mod options;
mod tls;
mod transport;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;

use crate::answer::Refusal;
use crate::client_address::Networks;
use crate::proxy::Standing;

pub use accept::{GatewayServer, InternalServer, LentServer};
pub(crate) use admission::Overload;
pub use arriving::ArrivingBody;
pub(crate) use arriving::ArrivingRequest;
pub use connection::Fallback;
pub(crate) use http1::BadHead;
pub use http1::head_length;
pub(crate) use http1::is_host;
pub use options::{
    ConnectionLimits, GatewayOptions, ListenerEnvironments, Protocols, RuntimeShape,
    WHOLE_BODY_TIMEOUT,
};
pub use tls::{Certificate, ChallengeAnswer, InvalidCertificate, MAX_CERTIFICATES, Tls};

/// How far a listener is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It takes connections.
    Open,
    /// It takes connections still, and ends each with its next answer.
    Leaving,
    /// It takes no more, and lets requests under way end.
    Draining,
    /// What has not ended is cut.
    Stopped,
}

/// Which requests of a listener crossed a network in clear text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClearText {
    /// None: it speaks TLS.
    Never,
    /// Those of other machines.
    FromElsewhere,
    /// Those of which a trusted proxy in front says so, and those of other machines that are no
    /// such proxy: nobody has ended TLS for them.
    AsProxiesSay,
}

/// What all connections of one listener share.
pub(crate) struct Listener {
    pub(crate) environments: ListenerEnvironments,
    pub(crate) public_scheme: &'static str,
    pub(crate) clear_text: ClearText,
    pub(crate) max_body_bytes: u64,
    pub(crate) whole_body_timeout: Duration,
    pub(crate) stage: watch::Receiver<Stage>,
}

impl Listener {
    /// Whether callers should go elsewhere with their next request.
    fn is_leaving(&self) -> bool {
        *self.stage.borrow() > Stage::Open
    }
}

/// How a request came in.
pub(crate) struct Arrival {
    pub(crate) peer: IpAddr,
    pub(crate) listener: Arc<Listener>,
    /// Why its head could not be read; nothing else of the request is real then.
    pub(crate) bad_head: Option<BadHead>,
    /// What is asked about again when the answer lasts. It stays here instead of in the body, which
    /// is moved about; what is not forwarded leaves none.
    pub(crate) standing: OnceLock<Standing>,
}

impl Arrival {
    /// Whether others may have read the request on its way.
    pub(crate) fn is_in_clear_text(&self, proxies: &Networks, headers: &HeaderMap) -> bool {
        match self.listener.clear_text {
            ClearText::Never => false,
            ClearText::AsProxiesSay if proxies.contains(self.peer) => {
                proxies.came_in_clear_text(self.peer, headers)
            }
            ClearText::FromElsewhere | ClearText::AsProxiesSay => !self.peer.is_loopback(),
        }
    }

    /// Refuses a request whose head could not be read.
    pub(crate) fn admit(&self) -> Result<(), Refusal> {
        self.bad_head.map_or(Ok(()), |bad| Err(Refusal::closing(bad.into())))
    }
}
