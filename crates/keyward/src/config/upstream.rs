//! Where permitted requests go: one `[[upstream]]` each.

use std::fmt;
use std::path::PathBuf;

use keyward_core::Environment;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::Millis;

/// Where permitted requests of some environments go.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct UpstreamSettings {
    /// The environments whose keys go there.
    pub(crate) environments: Vec<Environment>,
    /// The name that routes ask for it by.
    pub(crate) name: Option<String>,
    /// The paths below which it takes every route.
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    /// `http://host:port`, `https://host:port` or `unix:/path`, one or several; the path of a
    /// request is forwarded as it is.
    pub(crate) url: Urls,
    /// The `Host` it is sent; the host of `url` when absent.
    pub(crate) host: Option<String>,
    /// What is spoken with it.
    #[serde(default)]
    pub(crate) protocol: UpstreamProtocol,
    /// A file with the certificates (PEM) of the authorities that are believed instead of the
    /// system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// The name its certificate must be for; the host of `url` when absent.
    pub(crate) server_name: Option<String>,
    /// How requests are spread over several addresses.
    #[serde(default)]
    pub(crate) balance: Balance,
    /// How its addresses are looked after.
    #[serde(default)]
    pub(crate) health: HealthSettings,
    /// Requests under way at a time; without a bound when absent.
    pub(crate) max_requests: Option<usize>,
    /// How long a request over that number waits.
    #[serde(default = "default_queue_timeout")]
    pub(crate) queue_timeout: Millis,
    /// The audience of assertions; the host of `url` when absent.
    pub(crate) audience: Option<String>,
    /// How assertions are signed.
    #[serde(default)]
    pub(crate) assertion: AssertionAlgorithm,
    /// A file with the secret shared with this upstream (HS256), at least 32 bytes.
    pub(crate) assertion_secret_file: Option<PathBuf>,
    /// How long connecting may take.
    #[serde(default = "default_connect_timeout")]
    pub(crate) connect_timeout: Millis,
    /// How long the first byte of an answer may take.
    #[serde(default = "default_first_byte_timeout")]
    pub(crate) first_byte_timeout: Millis,
    /// How long an exchange may take in all, unless its route says otherwise; without a bound when
    /// absent.
    pub(crate) total_timeout: Option<Millis>,
    /// How long nothing may move on a WebSocket.
    #[serde(default = "default_websocket_idle_timeout")]
    pub(crate) websocket_idle_timeout: Millis,
}

impl UpstreamSettings {
    /// An upstream at this address with the defaults, for no environment yet.
    pub(crate) fn new(url: &str) -> Self {
        Self {
            environments: Vec::new(),
            name: None,
            paths: Vec::new(),
            url: Urls(vec![url.to_owned()]),
            host: None,
            protocol: UpstreamProtocol::default(),
            ca_file: None,
            server_name: None,
            balance: Balance::default(),
            health: HealthSettings::default(),
            max_requests: None,
            queue_timeout: default_queue_timeout(),
            audience: None,
            assertion: AssertionAlgorithm::default(),
            assertion_secret_file: None,
            connect_timeout: default_connect_timeout(),
            first_byte_timeout: default_first_byte_timeout(),
            total_timeout: None,
            websocket_idle_timeout: default_websocket_idle_timeout(),
        }
    }
}

const fn default_queue_timeout() -> Millis {
    Millis(1_000)
}
const fn default_connect_timeout() -> Millis {
    Millis(3_000)
}
const fn default_first_byte_timeout() -> Millis {
    Millis(30_000)
}
const fn default_websocket_idle_timeout() -> Millis {
    Millis(300_000)
}

/// One address, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Urls(pub(crate) Vec<String>);

impl fmt::Display for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl Serialize for Urls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => serializer.serialize_str(only),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Urls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a list of addresses")
            }

            fn visit_str<E>(self, text: &str) -> Result<Urls, E> {
                Ok(Urls(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Urls, A::Error> {
                let mut urls = Vec::new();
                while let Some(url) = seq.next_element()? {
                    urls.push(url);
                }
                Ok(Urls(urls))
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UpstreamProtocol {
    /// HTTP/1.1; over TLS what the upstream prefers of HTTP/2 and HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, also without TLS.
    #[serde(alias = "h2c")]
    Http2,
}

/// How requests are spread over the addresses of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastRequests,
}

/// How the addresses of an upstream are looked after.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct HealthSettings {
    /// What is asked for; without it only addresses that failed are looked at, by connecting.
    pub(crate) path: Option<String>,
    /// How often.
    pub(crate) interval: Millis,
    /// How long an answer may take.
    pub(crate) timeout: Millis,
    /// So many failures in a row take an address out.
    pub(crate) down_after: u32,
    /// So many successes in a row take it in again.
    pub(crate) up_after: u32,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            path: None,
            interval: Millis(5_000),
            timeout: Millis(2_000),
            down_after: 3,
            up_after: 2,
        }
    }
}

/// How assertions are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AssertionAlgorithm {
    /// A secret shared with the upstream.
    #[default]
    Hs256,
    /// A key pair whose public half is served as a JWKS.
    EdDsa,
}
