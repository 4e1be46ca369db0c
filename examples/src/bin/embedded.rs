//! An application with a node of its own: `embedded keyward.toml 127.0.0.1:9000`.
//!
//! With `store.url = "sqlite:…"` this one process is the whole deployment, Keyward's own API
//! included. With PostgreSQL and `role = ["gateway"]` it is one node of many.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use axum::extract::ConnectInfo;
use keyward::embedded::{EmbeddedConfig, EmbeddedNode, EmbeddedOptions, EnvironmentSet};
use keyward_examples::{product, serve};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let settings = arguments.next().context("name the settings file")?;
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:9000".to_owned());

    let config = EmbeddedConfig::new(Some(PathBuf::from(settings)));
    let node = Box::pin(EmbeddedNode::start(config)).await?;
    let options = EmbeddedOptions::new(EnvironmentSet::ALL).peer(|parts| {
        let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        connection.map(|connection| connection.0.ip())
    });

    serve(&listen, product().layer(node.layer(options))).await?;
    // off the register, so that no revocation waits for this process
    node.stop().await;
    Ok(())
}
