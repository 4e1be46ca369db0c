//! An application that asks a node about every request:
//! `asking http://127.0.0.1:8789 TOKEN-FILE 127.0.0.1:9000`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::ConnectInfo;
use keyward::dev::SystemClock;
use keyward_core::environment::Environment;
use keyward_core::key::TokenFormat;
use keyward_core::profile::Carrier;
use keyward_examples::{product, serve};
use keyward_gateway::Networks;
use keyward_gateway::embed::{
    MAX_QUESTIONS, VERIFY_TIMEOUT, VerifyConfig, VerifyLayer, VerifyToken,
};

/// The word for an environment in keys, as the product's profile has it.
fn word(environment: Environment) -> String {
    let word = match environment {
        Environment::Live => "live",
        Environment::Staging => "stg",
        Environment::Development => "dev",
        Environment::Test => "test",
    };
    word.to_owned()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let node = arguments.next().context("name the internal listener of a node")?;
    let token = arguments.next().context("name the file with an admin token")?;
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:9000".to_owned());

    let token = std::fs::read_to_string(&token).with_context(|| token.clone())?;
    let layer = VerifyLayer::new(VerifyConfig {
        node: node.parse()?,
        token: Some(VerifyToken::new(&token)?),
        format: TokenFormat::new("asiri", word),
        carriers: vec![Carrier::Bearer],
        tenant_header: None,
        environment: None,
        peer: Arc::new(|parts| {
            let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
            connection.map(|connection| connection.0.ip())
        }),
        trusted_proxies: Networks::default(),
        timeout: VERIFY_TIMEOUT,
        max_questions: MAX_QUESTIONS,
        docs_base: "/docs".to_owned(),
        clock: Arc::new(SystemClock),
    })?;
    serve(&listen, product().layer(layer)).await
}
