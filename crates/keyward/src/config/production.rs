//! What a deployment may not do: anywhere, and in production.

use std::net::{IpAddr, SocketAddr};

use super::private_file::{self, Readers};
use super::problem::Problem;
use super::secrets;
use super::settings::Settings;

/// What cannot be read from the settings themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Whether tenants of the profile's demo are in the store.
    pub(crate) demo_tenants: bool,
}

/// The addresses that would serve strangers in clear text. Refused in every environment.
pub(crate) fn listening_problems(settings: &Settings) -> Vec<Problem> {
    let control = &settings.control;
    let is_safe = control.behind_proxy || control.tls.is_on();
    let control = (control.listen, "control", is_safe);
    let gateway = settings.gateway.listener.iter();
    let behind_proxy = settings.gateway.behind_proxy;
    let gateway = gateway.map(|it| (it.listen, "gateway", behind_proxy || it.tls.is_on()));
    let unnamed = unnamed_proxies_problem(settings);
    std::iter::once(control)
        .chain(gateway)
        .filter(|(address, _, is_safe)| !address.ip().is_loopback() && !is_safe)
        .map(|(address, section, _)| {
            let text = format!(
                "{section} listens on {address}, which other machines reach, without TLS: keys \
                 would cross the network in clear text"
            );
            let certificate = match section {
                "control" => "control.tls.certificate",
                _ => "tls.certificate of its gateway.listener",
            };
            let fix = format!(
                "give it a certificate ({certificate}), listen on 127.0.0.1:{0}, or put a proxy \
                 that ends TLS in front and set {section}.behind-proxy = true \
                 (--{section}-behind-proxy)",
                address.port()
            );
            Problem::new(text, fix)
        })
        .chain(unnamed)
        .collect()
}

/// A gateway that knows no proxy cannot tell who has come through one, and refuses every key.
fn unnamed_proxies_problem(settings: &Settings) -> Option<Problem> {
    let gateway = &settings.gateway;
    if !gateway.behind_proxy || !gateway.trusted_proxies.is_empty() {
        return None;
    }
    let is_reached = |listen: &SocketAddr| !listen.ip().is_loopback();
    let mut plain = gateway.listener.iter().filter(|it| !it.tls.is_on()).map(|it| it.listen);
    let address = plain.find(is_reached)?;
    let text = format!(
        "gateway listens on {address} behind a proxy, and no proxy is named: keys that other \
         machines send there would cross the network in clear text"
    );
    Some(Problem::new(text, "name the networks of your proxies in gateway.trusted-proxies"))
}

/// What must be mended before real customers are served. The rights of the database role are
/// checked by the store when it is opened.
pub(crate) fn production_problems(settings: &Settings, facts: Facts) -> Vec<Problem> {
    let mut problems = listening_problems(settings);
    problems.extend(secrets_problem(settings));
    problems.extend(public_url_problem(settings));
    problems.extend(internal_problem(settings.internal.listen));
    problems.extend(trust_problems(settings));
    if facts.demo_tenants {
        problems.push(Problem::new(
            "the store holds demo tenants, whose data and members are public knowledge",
            "start production on a new data directory or database",
        ));
    }
    problems
}

fn secrets_problem(settings: &Settings) -> Option<Problem> {
    let path = secrets::path(settings);
    let shown = path.display();
    match private_file::is_open(&path, Readers::Owner) {
        Ok(false) => None,
        Ok(true) => {
            let text = format!("the secrets file {shown} may be read by other users");
            Some(Problem::new(text, format!("chmod 600 {shown}")))
        }
        Err(error) => {
            let text = format!("the secrets file {shown}: {error}");
            let fix = format!("keyward config init --secrets-file {shown}");
            Some(Problem::new(text, fix))
        }
    }
}

fn public_url_problem(settings: &Settings) -> Option<Problem> {
    let fix = "set control.public-url to the https:// address that people use";
    match settings.control.public_url.as_deref() {
        Some(url) if url.starts_with("https://") => None,
        Some(url) => Some(Problem::new(format!("control.public-url is not https: {url}"), fix)),
        None => Some(Problem::new("control.public-url is not set", fix)),
    }
}

fn internal_problem(address: SocketAddr) -> Option<Problem> {
    if is_private(address.ip()) {
        return None;
    }
    let text = format!(
        "internal listens on {address}, beyond the operator's own network: it verifies keys and \
         serves metrics"
    );
    Some(Problem::new(text, "set internal.listen to a loopback or private address"))
}

/// Loopback and the ranges of RFC 1918, 4193, 3927, 4291 (link-local) and 6598. Not the
/// unspecified address, which is every address.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_private(IpAddr::V4(mapped)),
            None => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        },
    }
}

fn trust_problems(settings: &Settings) -> Vec<Problem> {
    let everybody = |networks: &[ipnet::IpNet]| networks.iter().any(|it| it.prefix_len() == 0);
    let mut problems = Vec::new();
    if everybody(&settings.gateway.trusted_proxies) {
        problems.push(Problem::new(
            "gateway.trusted-proxies holds every address: any caller could claim any other address",
            "name the networks of your proxies",
        ));
    }
    if everybody(&settings.internal.verify_from) {
        problems.push(Problem::new(
            "internal.verify-from holds every address: anybody could try keys without a token",
            "name the networks of your own services",
        ));
    }
    problems
}

#[cfg(test)]
#[path = "production_tests.rs"]
mod tests;
