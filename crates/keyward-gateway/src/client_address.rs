//! What trusted proxies say of a request's way: whose address counts, and who could read it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use keyward_core::ip::canonical;

use crate::lookup::find;

/// The header in which proxies write the addresses that a request came through.
pub(crate) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The header in which proxies write how a request reached them.
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Networks of an operator: of the proxies that are believed, of the callers that need no token.
#[derive(Clone, Debug, Default)]
pub struct Networks(Box<[IpNet]>);

impl Networks {
    /// A list; an empty one contains nobody.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into_boxed_slice())
    }

    /// Whether the address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address, when these are trusted proxies: from the right of `X-Forwarded-For`,
    /// the first that is not a trusted proxy's. What stands left of it was written by the client.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.contains(peer) { self.client_behind(peer, headers) } else { canonical(peer) }
    }

    /// The same behind a peer that is believed whatever its address is.
    pub(crate) fn client_behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = canonical(peer);
        for entry in from_the_right(headers, &X_FORWARDED_FOR) {
            let Some(address) = address(entry) else {
                break;
            };
            nearest = address;
            if !self.contains(nearest) {
                break;
            }
        }
        nearest
    }

    /// Whether trusted proxies say that the client reached the first of them without TLS, over a
    /// network.
    ///
    /// `X-Forwarded-Proto` is read from the right in step with `X-Forwarded-For`: a word counts for
    /// the way of the address beside it. Between trusted proxies it is the operator's own affair,
    /// and what nobody says is not held against a key.
    pub(crate) fn came_in_clear_text(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        if find(headers, &X_FORWARDED_PROTO).is_none() || !self.contains(peer) {
            return false;
        }
        let mut senders = from_the_right(headers, &X_FORWARDED_FOR);
        for scheme in from_the_right(headers, &X_FORWARDED_PROTO) {
            let sender = senders.next().and_then(address);
            if sender.is_some_and(|sender| sender.is_loopback()) {
                return false;
            }
            if sender.is_none_or(|sender| !self.contains(sender)) {
                return scheme.eq_ignore_ascii_case(b"http");
            }
        }
        false
    }
}

/// What proxies have appended to a header, the last first.
fn from_the_right<'h>(
    headers: &'h HeaderMap,
    name: &'static HeaderName,
) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).iter().rev();
    lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

fn address(entry: &[u8]) -> Option<IpAddr> {
    parse(str::from_utf8(entry).ok()?).map(canonical)
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = || IpAddr::from_str(text).ok();
    let with_port = || SocketAddr::from_str(text).ok().map(|it| it.ip());
    let in_brackets = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        Ipv6Addr::from_str(inner).ok().map(IpAddr::V6)
    };
    bare().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies = Networks::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn from_the_right_through_trusted_proxies_only() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1:4711, 10.0.0.2:80"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1], [::ffff:10.0.0.2]:80"]), "2001:db8::1");
        for nonsense in ["198.51.100.1:", "198.51.100.1:99999", "[198.51.100.1]:80", "[::1"] {
            assert_eq!(client("10.0.0.1", &[nonsense]), "10.0.0.1", "{nonsense}");
        }
        assert_eq!(client("::ffff:10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn clear_text_is_what_is_said_of_the_clients_own_way() {
        let proxies = Networks::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let clear = |peer: &str, from: &[&str], schemes: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in from {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            for line in schemes {
                headers.append("x-forwarded-proto", line.parse().unwrap());
            }
            proxies.came_in_clear_text(peer.parse().unwrap(), &headers)
        };
        let (proxy, client) = ("10.0.0.1", "198.51.100.1");
        for schemes in [&["http"][..], &["HTTP"], &["https, http"], &["https", " http "]] {
            assert!(clear(proxy, &[client], schemes), "{schemes:?}");
            assert!(clear(proxy, &[], schemes), "{schemes:?}");
            assert!(clear(proxy, &["nonsense"], schemes), "{schemes:?}");
        }
        for schemes in [&[][..], &["https"], &["http, https"], &["http", "https"], &["ws"], &[""]] {
            assert!(!clear(proxy, &[client], schemes), "{schemes:?}");
            assert!(!clear(proxy, &[], schemes), "{schemes:?}");
        }
        // whoever is no proxy of ours says nothing
        assert!(!clear("203.0.113.9", &[client], &["http"]));
        // nobody else reads what stays on one machine
        assert!(!clear(proxy, &["127.0.0.1"], &["http"]));
        assert!(!clear(proxy, &["::1"], &["http"]));
        // through two proxies: the first one's word counts, if it is there
        assert!(clear(proxy, &["198.51.100.1, 10.0.0.2"], &["http, https"]));
        assert!(clear(proxy, &["198.51.100.1, 10.0.0.2"], &["http, http"]));
        assert!(!clear(proxy, &["198.51.100.1, 10.0.0.2"], &["https, http"]));
        assert!(!clear(proxy, &["198.51.100.1", "10.0.0.2"], &["http"]));
        assert!(!clear(proxy, &["10.0.0.2"], &["http"]));
    }
}
