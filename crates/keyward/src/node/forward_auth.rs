//! How proxies that ask before they forward are answered, made from the settings.

use std::sync::Arc;

use keyward_core::assertion::SigningKey;
use keyward_core::environment::{Environment, EnvironmentSet};
use keyward_gateway::{ForwardAuth, ListenerEnvironments, ProxyToken};

use crate::config::forward_auth::ForwardAuthSettings;
use crate::config::{ConfigError, Problem, private_file};

/// How forward-auth is set up, with the key of its assertions.
pub(super) fn forward_auth(
    settings: &ForwardAuthSettings,
    assertion_key: SigningKey,
) -> anyhow::Result<ForwardAuth> {
    let set =
        |environments: &[Environment]| -> EnvironmentSet { environments.iter().copied().collect() };
    let hosts = settings.host.iter().map(|host| (host.name.clone(), set(&host.environments)));
    let otherwise = set(&settings.environments);
    Ok(ForwardAuth {
        environments: ListenerEnvironments::by_host(hosts.collect(), otherwise),
        audience: settings.audience.clone(),
        assertion_key: Arc::new(assertion_key),
        proxy_token: proxy_token(settings)?,
    })
}

fn proxy_token(settings: &ForwardAuthSettings) -> anyhow::Result<Option<ProxyToken>> {
    let Some(path) = &settings.token_file else { return Ok(None) };
    let text = private_file::read_line(path, "the proxy token").map_err(ConfigError::from)?;
    let token = ProxyToken::new(&text).map_err(|error| {
        let text = format!("forward-auth.token-file {}: {error}", path.display());
        ConfigError::from(Problem::new(text, "make one with `openssl rand -hex 32`"))
    });
    Ok(Some(token?))
}
