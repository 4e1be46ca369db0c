//! Address lists in CIDR notation.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// The most networks in one list.
pub const MAX_NETWORKS: usize = 32;

/// The networks a key may be used from; an empty list allows every address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpAllowlist(Box<[IpNet]>);

/// Why a list is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAllowlist {
    /// An entry is neither an address nor a network.
    #[error("{0:?} is neither an address nor a network such as 203.0.113.0/24 or 2001:db8::/32")]
    Malformed(String),
    /// An entry that allows every address restricts nothing.
    #[error("{0} allows every address; leave the list empty instead")]
    Everything(IpNet),
    /// More than [`MAX_NETWORKS`].
    #[error("at most {MAX_NETWORKS} networks")]
    TooMany,
}

impl IpAllowlist {
    /// A list from addresses and networks; a bare address is a network of one.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, InvalidAllowlist> {
        if entries.len() > MAX_NETWORKS {
            return Err(InvalidAllowlist::TooMany);
        }
        entries
            .iter()
            .map(|entry| parse_network(entry.as_ref()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether the address may call. IPv4-mapped IPv6 addresses count as IPv4.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether every address is allowed.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every address this list allows was allowed by `other` too.
    pub fn within(&self, other: &Self) -> bool {
        other.is_open()
            || (!self.is_open()
                && self.0.iter().all(|mine| other.0.iter().any(|theirs| theirs.contains(mine))))
    }

    /// An address the list allows; `None` when it allows every address.
    pub fn first_address(&self) -> Option<IpAddr> {
        self.0.first().map(IpNet::addr)
    }

    /// The networks as text.
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

/// The address with an IPv4-mapped IPv6 address written as IPv4.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// What one subscriber can hold: an IPv4 address, or an IPv6 network of 64 bits (RFC 6177). What
/// is counted by address is counted by this.
pub fn subscriber(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn parse_network(text: &str) -> Result<IpNet, InvalidAllowlist> {
    let malformed = || InvalidAllowlist::Malformed(text.to_owned());
    let network = match IpAddr::from_str(text) {
        Ok(address) => IpNet::from(canonical(address)),
        Err(_) => {
            unmapped(IpNet::from_str(text).map_err(|_| malformed())?).ok_or_else(malformed)?
        }
    };
    if network.prefix_len() == 0 {
        return Err(InvalidAllowlist::Everything(network));
    }
    Ok(network.trunc())
}

/// `::ffff:a.b.c.d/n` as the IPv4 network it means.
fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else {
        return Some(network);
    };
    let mapped: Ipv6Addr = v6.addr();
    match mapped.to_ipv4_mapped() {
        Some(v4) => IpNet::new(IpAddr::V4(v4), v6.prefix_len().checked_sub(96)?).ok(),
        None => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(entries: &[&str]) -> IpAllowlist {
        IpAllowlist::parse(entries).unwrap()
    }

    #[test]
    fn families_and_mapped_addresses() {
        let check =
            |entries: &[&str], address: &str| list(entries).allows(address.parse().unwrap());
        assert!(check(&[], "198.51.100.1"));
        assert!(check(&["203.0.113.0/24"], "203.0.113.9"));
        assert!(check(&["203.0.113.0/24"], "::ffff:203.0.113.9"));
        assert!(check(&["::ffff:203.0.113.0/120"], "203.0.113.9"));
        assert!(!check(&["203.0.113.0/24"], "203.0.114.9"));
        assert!(check(&["2001:db8::/32"], "2001:db8:1::2"));
        assert!(!check(&["2001:db8::/32"], "203.0.113.9"));
        assert!(check(&["203.0.113.9"], "203.0.113.9"));
    }

    #[test]
    fn subscribers_hold_an_address_or_a_network_of_64_bits() {
        let of = |address: &str| subscriber(address.parse().unwrap()).to_string();
        assert_eq!(of("203.0.113.9"), "203.0.113.9");
        assert_eq!(of("::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }

    #[test]
    fn refusals_name_the_entry() {
        let check = |entry: &str| IpAllowlist::parse(&[entry]).unwrap_err().to_string();
        assert!(check("0.0.0.0/0").contains("every address"));
        assert!(check("::/0").contains("every address"));
        assert!(check("office").contains("office"));
        let many: Vec<String> = (0..33).map(|n| format!("10.0.0.{n}")).collect();
        assert_eq!(IpAllowlist::parse(&many), Err(InvalidAllowlist::TooMany));
    }

    #[test]
    fn narrowing() {
        assert!(list(&["10.1.0.0/16"]).within(&list(&["10.0.0.0/8"])));
        assert!(list(&["10.1.0.0/16"]).within(&list(&[])));
        assert!(!list(&[]).within(&list(&["10.0.0.0/8"])));
        assert!(!list(&["11.0.0.0/8"]).within(&list(&["10.0.0.0/8"])));
    }

    #[test]
    fn the_last_network_counts_and_one_more_is_refused() {
        let many: Vec<String> = (1..=MAX_NETWORKS).map(|n| format!("10.0.{n}.0/24")).collect();
        let list = IpAllowlist::parse(&many).unwrap();
        assert!(list.allows("10.0.32.1".parse().unwrap()));
        assert!(!list.allows("10.0.33.1".parse().unwrap()));
        assert_eq!(list.to_strings(), many);
    }

    #[test]
    fn mapped_networks_wider_than_ipv4_are_refused() {
        let check = |entry: &str| IpAllowlist::parse(&[entry]).unwrap_err().to_string();
        assert!(check("::ffff:0.0.0.0/96").contains("every address"));
        assert!(check("::ffff:10.0.0.0/95").contains("neither"));
        assert!(check("10.0.0.0/33").contains("neither"));
        assert!(check("fe80::1%eth0").contains("neither"));
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes()));
        let v6 = any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes()));
        prop_oneof![v4, v6]
    }

    fn network() -> impl Strategy<Value = String> {
        (address(), 1_u8..=128).prop_map(|(address, prefix)| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            format!("{address}/{}", prefix.min(most))
        })
    }

    proptest! {
        #[test]
        fn parsing_any_text_never_panics(entries in proptest::collection::vec(".{0,48}", 0..40)) {
            if let Ok(list) = IpAllowlist::parse(&entries) {
                prop_assert_eq!(list.is_open(), entries.is_empty());
            }
        }

        #[test]
        fn a_network_allows_its_own_address_however_it_is_written(address in address()) {
            let own = list(&[&address.to_string()]);
            prop_assert!(own.allows(address));
            if let IpAddr::V4(v4) = address {
                prop_assert!(own.allows(v4.to_ipv6_mapped().into()));
            }
        }

        #[test]
        fn what_is_written_reads_the_same(entries in proptest::collection::vec(network(), 1..8)) {
            let list = IpAllowlist::parse(&entries).unwrap();
            prop_assert_eq!(IpAllowlist::parse(&list.to_strings()), Ok(list.clone()));
            prop_assert!(list.within(&list));
        }

        #[test]
        fn a_narrower_list_allows_nothing_more(
            mine in proptest::collection::vec(network(), 1..3),
            theirs in proptest::collection::vec(network(), 0..3),
            address in address(),
        ) {
            let mine = IpAllowlist::parse(&mine).unwrap();
            let theirs = IpAllowlist::parse(&theirs).unwrap();
            if mine.within(&theirs) && mine.allows(address) {
                prop_assert!(theirs.allows(address));
            }
        }
    }
}
