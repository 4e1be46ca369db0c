//! The data plane's configuration, made from the settings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt as _;
use keyward_api::error::DEFAULT_DOCS_BASE;
use keyward_core::Clock;
use keyward_core::assertion::SigningKey;
use keyward_core::environment::EnvironmentSet;
use keyward_gateway::{
    AdminTokens, Balance, BodyRate, ConnectionLimits, DataPlaneConfig, Fallback, GatewayOptions,
    HealthPolicy, KeySet, ListenerEnvironments, Networks, PlanePolicy, ProductConfig, Protocols,
    RuntimeShape, UpstreamConfig, UpstreamProtocol, UpstreamTls,
};
use keyward_store::Store;
use serde_json::Value;
use tower::ServiceExt as _;

use super::builtins::builtins;
use super::forward_auth::forward_auth;
use crate::bootstrap;
use crate::config::settings::{
    ControlSettings, GatewaySettings, ListenerSettings, RuntimeShape as Shape,
};
use crate::config::upstream::{
    AssertionAlgorithm, Balance as Balancing, UpstreamProtocol as Protocol, UpstreamSettings,
};
use crate::config::{ConfigError, DeploymentSecrets, Millis, Settings, private_file};
use crate::product::Product;

/// Connections open at once on the control listener.
const MAX_CONTROL_CONNECTIONS: usize = 1_024;
/// Of these, open at once from one address that is not a trusted proxy's.
const MAX_CONTROL_CONNECTIONS_PER_ADDRESS: usize = 256;
/// Connections open at once on the sandbox, whose only caller is the gateway.
const MAX_SANDBOX_CONNECTIONS: usize = 1_024;

/// The data plane of a node and the public keys of its assertions.
pub(super) fn data_plane(
    settings: &Settings,
    secrets: &DeploymentSecrets,
    product: &Arc<Product>,
    store: &Store,
    keys: Arc<KeySet>,
    admin_tokens: Arc<AdminTokens>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(DataPlaneConfig, Value)> {
    let mut upstreams = Vec::new();
    let mut jwks = Vec::new();
    let mut publish = |key: &SigningKey| {
        if let Some(jwk) = key.jwk().filter(|jwk| !jwks.contains(jwk)) {
            jwks.push(jwk);
        }
    };
    for upstream in &settings.upstream {
        let secret_file = upstream.assertion_secret_file.as_deref();
        let key = assertion_key(upstream.assertion, secret_file, secrets);
        let key = key.with_context(|| format!("the assertion key for {}", upstream.url))?;
        publish(&key);
        upstreams.push(upstream_config(upstream, key, &settings.gateway)?);
    }
    let asked = &settings.forward_auth;
    let key = assertion_key(asked.assertion, asked.assertion_secret_file.as_deref(), secrets);
    let key = key.context("the assertion key of forward-auth")?;
    publish(&key);
    let profile = &product.profile;
    let config = DataPlaneConfig {
        clock: Arc::clone(clock),
        keys,
        admin_tokens,
        product: ProductConfig {
            catalog: Arc::clone(&product.catalog),
            carriers: profile.keys.carriers.clone(),
            tenant_header: profile.tenant.header.clone(),
            builtins: builtins(store.clone(), &product.document),
            docs_base: docs_base(settings),
        },
        upstreams,
        policy: PlanePolicy {
            trusted_proxies: Networks::new(settings.gateway.trusted_proxies.clone()),
            forward_auth: Some(Arc::new(forward_auth(asked, key)?)),
            verify_callers: Networks::new(settings.internal.verify_from.clone()),
            request_log: settings.log.requests,
        },
    };
    Ok((config, Value::Array(jwks)))
}

/// Where the error reference is reached by callers of the product's API. A port that the system
/// chooses is not known yet; the path alone has to do then.
fn docs_base(settings: &Settings) -> String {
    if settings.control.public_url.is_none() && settings.control.listen.port() == 0 {
        return DEFAULT_DOCS_BASE.to_owned();
    }
    format!("{}{DEFAULT_DOCS_BASE}", bootstrap::control_url(settings))
}

/// How one gateway listener is set up.
pub(super) fn gateway_options(
    settings: &GatewaySettings,
    listener: &ListenerSettings,
    protocols: Protocols,
) -> GatewayOptions {
    let environments: EnvironmentSet = listener.environments.iter().copied().collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if settings.threads == 0 { cores } else { settings.threads };
    GatewayOptions {
        environments: ListenerEnvironments::all_hosts(environments),
        behind_tls: settings.behind_proxy,
        protocols,
        limits: ConnectionLimits {
            max_connections: settings.max_connections,
            max_connections_per_address: settings.max_connections_per_address,
            max_header_bytes: settings.max_headers.bytes(),
            header_timeout: settings.header_timeout.duration(),
            max_connection_age: Some(settings.max_connection_age.duration())
                .filter(|age| !age.is_zero()),
            max_body_bytes: settings.max_body.bytes() as u64,
            ..ConnectionLimits::default()
        },
        runtime: match settings.runtime {
            Shape::PerThread => RuntimeShape::PerCore(threads),
            Shape::Shared => RuntimeShape::Shared,
        },
    }
}

/// The bounds of the control listener's connections: one address cannot lock everybody out.
pub(super) fn control_limits(settings: &ControlSettings) -> ConnectionLimits {
    ConnectionLimits {
        max_connections: MAX_CONTROL_CONNECTIONS,
        max_connections_per_address: MAX_CONTROL_CONNECTIONS_PER_ADDRESS,
        max_body_bytes: settings.max_body.bytes() as u64,
        ..ConnectionLimits::default()
    }
}

/// The bounds of the sandbox's connections.
pub(super) fn sandbox_limits() -> ConnectionLimits {
    ConnectionLimits {
        max_connections: MAX_SANDBOX_CONNECTIONS,
        max_connections_per_address: MAX_SANDBOX_CONNECTIONS,
        ..ConnectionLimits::default()
    }
}

/// The axum routes of the internal listener as the data plane calls them.
pub(super) fn fallback(router: Router) -> Fallback {
    Arc::new(move |request| {
        let router = router.clone();
        Box::pin(async move {
            // a router answers everything, also what it has no route for
            let Ok(response) = router.oneshot(request.map(Body::new)).await;
            response.map(|body| body.map_err(Into::into).boxed_unsync())
        })
    })
}

fn upstream_config(
    upstream: &UpstreamSettings,
    key: SigningKey,
    gateway: &GatewaySettings,
) -> anyhow::Result<UpstreamConfig> {
    let environments: EnvironmentSet = upstream.environments.iter().copied().collect();
    let authorities = upstream
        .ca_file
        .as_ref()
        .map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display())));
    Ok(UpstreamConfig {
        name: upstream.name.clone(),
        paths: upstream.paths.clone(),
        addresses: upstream.url.0.clone(),
        host: upstream.host.clone(),
        protocol: match upstream.protocol {
            Protocol::Auto => UpstreamProtocol::Auto,
            Protocol::Http1 => UpstreamProtocol::Http1,
            Protocol::Http2 => UpstreamProtocol::Http2,
        },
        tls: UpstreamTls {
            authorities: authorities.transpose()?,
            server_name: upstream.server_name.clone(),
        },
        balance: match upstream.balance {
            Balancing::RoundRobin => Balance::RoundRobin,
            Balancing::LeastRequests => Balance::LeastRequests,
        },
        health: HealthPolicy {
            path: upstream.health.path.clone(),
            interval: upstream.health.interval.duration(),
            timeout: upstream.health.timeout.duration(),
            down_after: upstream.health.down_after,
            up_after: upstream.health.up_after,
        },
        max_requests: upstream.max_requests,
        queue_timeout: upstream.queue_timeout.duration(),
        connect_timeout: upstream.connect_timeout.duration(),
        first_byte_timeout: upstream.first_byte_timeout.duration(),
        total_timeout: upstream.total_timeout.map(Millis::duration),
        websocket_idle_timeout: upstream.websocket_idle_timeout.duration(),
        body_idle_timeout: gateway.body_idle_timeout.duration(),
        min_body_rate: BodyRate {
            bytes_per_second: gateway.min_body_rate.bytes() as u64,
            ..BodyRate::default()
        },
        pool_idle_timeout: Duration::from_secs(55),
        ..UpstreamConfig::new(environments, "", audience(upstream)?, Arc::new(key))
    })
}

/// Whom assertions are for: as the settings say, else the host of the first address.
fn audience(upstream: &UpstreamSettings) -> anyhow::Result<String> {
    let host = || {
        let url: http::Uri = upstream.url.0.first()?.parse().ok()?;
        url.host().map(str::to_owned)
    };
    let named = upstream.audience.clone().or_else(host);
    named.with_context(|| {
        format!("upstream {}: set audience; its address names no host", upstream.url)
    })
}

/// The key that assertions are signed with.
fn assertion_key(
    algorithm: AssertionAlgorithm,
    secret_file: Option<&Path>,
    secrets: &DeploymentSecrets,
) -> anyhow::Result<SigningKey> {
    let key = match (algorithm, secret_file) {
        (AssertionAlgorithm::EdDsa, _) => secrets.public_assertion_key(),
        (AssertionAlgorithm::Hs256, None) => secrets.shared_assertion_key(),
        (AssertionAlgorithm::Hs256, Some(path)) => {
            let what = "the assertion secret";
            let text = private_file::read(path, private_file::Readers::Owner, what)
                .map_err(ConfigError::from)?;
            SigningKey::hs256(text.trim().as_bytes())
        }
    };
    key.context("it is too short")
}
