//! `keyward serve` and `keyward dev`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use keyward_core::catalog::Method;
use keyward_core::profile::Carrier;
use serde_json::Value;

use super::settings;
use crate::cli::exit::{Done, Exit, Failure};
use crate::cli::log;
use crate::cli::output::{Output, print};
use crate::config::settings::DeploymentEnvironment;
use crate::config::{
    ConfigArgs, ConfigError, Facts, Loaded, Millis, Origin, Settings, production_problems,
};
use crate::node::dev::{Dev, profile_directory};
use crate::node::signals::{Hangup, Stops};
use crate::node::{self, SystemClock};
use crate::product::Product;

/// Where profiles are when one is named by its name alone.
const PROFILES: &str = "profiles";
/// Where the sandbox of `dev` listens unless told otherwise.
const SANDBOX: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8790);

/// Run a node until SIGTERM or SIGINT
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  keyward serve --profile profiles/acme
  keyward serve --config /etc/keyward/keyward.toml
  keyward serve --environment production --gateway-behind-proxy --control-behind-proxy")]
pub(crate) struct ServeCommand {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Run a node with a sandbox behind it, demo tenants and demo keys; Ctrl-C removes it all
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  keyward dev --profile asiri
  keyward dev --profile ./my-profile --json --gateway-listen 127.0.0.1:0")]
pub(crate) struct DevCommand {
    /// Print one line of JSON when ready
    #[arg(long)]
    json: bool,
    /// Where the gateway listens; port 0 chooses a free one
    #[arg(long, value_name = "ADDRESS")]
    gateway_listen: Option<SocketAddr>,
    /// Where the sandbox listens [default: 127.0.0.1:8790]
    #[arg(long, value_name = "ADDRESS")]
    sandbox_listen: Option<SocketAddr>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl ServeCommand {
    pub(crate) async fn run(self) -> Done {
        let Loaded { settings, .. } = settings(&self.config)?;
        if settings.environment == DeploymentEnvironment::Production {
            let problems = production_problems(&settings, Facts { demo_tenants: false });
            if !problems.is_empty() {
                return Err(ConfigError(problems).into());
            }
        }
        log::start(&settings.log, Arc::new(SystemClock))?;
        Ok(Box::pin(node::serve::serve(settings)).await?)
    }
}

impl DevCommand {
    pub(crate) async fn run(self) -> Done {
        let mut loaded = settings(&self.config)?;
        loaded.settings.profile = profile(&loaded.settings.profile)?;
        if is_default(&loaded, "shutdown.drain-delay") {
            loaded.settings.shutdown.drain_delay = Millis(0);
        }
        let gateway = loaded.settings.gateway.listener.first_mut();
        if let (Some(listener), Some(address)) = (gateway, self.gateway_listen) {
            listener.listen = address;
        }
        let scratch = if is_default(&loaded, "data-dir") { Some(Scratch::new()?) } else { None };
        if let Some(scratch) = &scratch {
            loaded.settings.data_dir.0.clone_from(&scratch.0);
        }
        log::start(&loaded.settings.log, Arc::new(SystemClock))?;
        let stops = Stops::listen(Hangup::Stops)?;
        stops.unless_repeated(Box::pin(self.serve(loaded.settings, &stops))).await
    }

    async fn serve(&self, settings: Settings, stops: &Stops) -> Done {
        let product = Product::load(&settings.profile)?;
        let sandbox = self.sandbox_listen.unwrap_or_else(|| SANDBOX.into());
        let starting = Dev::with_settings(settings, sandbox, Arc::new(SystemClock));
        let dev = Box::pin(starting).await?;
        let facts = dev.to_json();
        let text = if self.json {
            format!("{facts}\n")
        } else {
            format!("{}{}\n", guide(&facts), calls(&facts, &product).unwrap_or_default())
        };
        print(&text)?;
        stops.first().await;
        node::serve::leave(dev.node()).await;
        dev.stop().await;
        Ok(())
    }
}

fn is_default(loaded: &Loaded, name: &str) -> bool {
    loaded.origins.get(name) == Some(&Origin::Default)
}

/// The profile that is meant: the one named, or the only one there is.
fn profile(named: &Path) -> Done<PathBuf> {
    if let Some(name) = named.to_str().filter(|name| !name.is_empty()) {
        return Ok(profile_directory(name));
    }
    let entries = std::fs::read_dir(PROFILES).into_iter().flatten().flatten();
    let folders =
        entries.map(|entry| entry.path()).filter(|path| path.join("profile.toml").exists());
    let mut folders: Vec<PathBuf> = folders.collect();
    folders.sort();
    match (folders.pop(), folders.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            let text = "there are several profiles: name the one that is meant";
            Err(Failure::usage(text, format!("--profile {}", last.display())))
        }
        (None, _) => {
            let text = "name the product to serve: a folder with profile.toml";
            Err(Failure::usage(text, "--profile FOLDER"))
        }
    }
}

/// A data directory that goes away with the process.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Done<Self> {
        let path = std::env::temp_dir().join(format!("keyward-dev-{}", std::process::id()));
        // not recursive: a folder that somebody else has made there is refused
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| {
            Failure::new(Exit::CannotCreate, format!("{}: {error}", path.display()))
                .advising("name a data directory with --data-dir")
        })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            Output::new(None, false).say(&format!("{} stays: {error}", self.0.display()));
        }
    }
}

/// Where everything is, and the credentials to try it with.
fn guide(facts: &Value) -> String {
    let text = |pointer: &str| facts.pointer(pointer).and_then(Value::as_str).unwrap_or("-");
    let (control, gateway, internal) = (text("/control"), text("/gateway"), text("/internal"));
    let mut guide = String::new();
    let _ = writeln!(guide, "Keyward is ready. Ctrl-C stops it.\n");
    for (what, address) in [
        ("gateway (the product's API)", gateway),
        ("control (Keyward's own API)", control),
        ("internal (verify, health, metrics)", internal),
        ("sandbox (behind the gateway)", text("/sandbox")),
    ] {
        let _ = writeln!(guide, "  {what:36} {address}");
    }
    let _ = writeln!(guide, "\nAdmin token, for Keyward's own API:\n  {}", text("/adminToken"));
    let _ = writeln!(guide, "\nDemo tenants and their keys:");
    for tenant in facts.pointer("/tenants").and_then(Value::as_array).into_iter().flatten() {
        let slug = tenant.pointer("/slug").and_then(Value::as_str).unwrap_or("-");
        for (environment, key) in
            tenant.get("keys").and_then(Value::as_object).into_iter().flatten()
        {
            let _ = writeln!(guide, "  {slug} {environment:12} {}", key.as_str().unwrap_or("-"));
        }
    }
    guide
}

/// Lines that work when pasted: a call of the product through the gateway, and one of Keyward.
fn calls(facts: &Value, product: &Product) -> Option<String> {
    let text = |pointer: &str| facts.pointer(pointer).and_then(Value::as_str);
    let keys = facts.pointer("/tenants/0/keys")?;
    let key = keys.get("live").or_else(|| keys.as_object()?.values().next())?.as_str()?;
    let carrier = match product.profile.keys.carriers.first()? {
        Carrier::Bearer => format!("Authorization: Bearer {key}"),
        Carrier::ApiKeyScheme => format!("Authorization: ApiKey {key}"),
        Carrier::XApiKey => format!("x-api-key: {key}"),
    };
    let tenant = match &product.profile.tenant.header {
        Some(header) => format!(" -H '{header}: {}'", text("/tenants/0/id")?),
        None => String::new(),
    };
    let routes = product.catalog.routes().iter();
    let mut plain = routes.filter(|route| route.method == Method::Get && route.builtin.is_none());
    let route = plain.find(|route| !route.template.contains('{'))?;
    Some(format!(
        "\nTry:\n  curl -s -H '{carrier}'{tenant} {}{}\n  \
         curl -s -H 'Authorization: Bearer {}' {}/v1/whoami\n  curl -s {}/readyz\n",
        text("/gateway")?,
        route.template,
        text("/adminToken")?,
        text("/control")?,
        text("/internal")?,
    ))
}
