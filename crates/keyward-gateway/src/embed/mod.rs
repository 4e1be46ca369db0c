//! The gateway inside an application: a layer that decides, in place of a proxy in front.
//!
//! [`EmbeddedLayer`] decides with a [`DataPlane`](crate::DataPlane) of this process, by the stages
//! of the gateway itself; only the last one differs: the application's own service is called, with
//! the [`Caller`](keyward_core::Caller) among the extensions of the request.

mod body;
mod layer;
mod remote;
mod serve;
mod strip;
mod watch;

pub use body::EmbeddedBody;
pub use layer::{EmbeddedLayer, EmbeddedOptions, EmbeddedService, PeerOf};
pub use remote::{
    InvalidVerify, MAX_QUESTIONS, VERIFY_TIMEOUT, VerifyConfig, VerifyLayer, VerifyService,
    VerifyToken,
};
