//! What the tests stand on: nodes, actors, requests and processes.

mod actor;
mod node;
mod process;
pub(crate) mod request;
mod site;

pub(crate) use actor::{Actor, Got, check_envelope};
pub(crate) use node::{
    Beside, DAY_MS, PROFILE, Setup, TestNode, migrate_url_file, node_on_every_engine,
    node_on_every_engine_with, write_private,
};
pub(crate) use process::{Finished, Process, keyward};
pub(crate) use site::{KURAMO_HEALTH, LAGOS_PAY, Minted, SCOPES, Site, minted};
