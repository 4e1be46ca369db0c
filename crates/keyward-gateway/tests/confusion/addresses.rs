//! Client addresses over real connections from several addresses of this machine.

use std::net::{IpAddr, SocketAddr};

use keyward_core::ip::IpAllowlist;
use keyward_gateway::{GatewayServer, Networks, PlanePolicy};
use tokio::net::{TcpSocket, TcpStream};

use crate::conversation::{converse_on, statuses, unescape};
use crate::support::*;
use crate::witness::{Maker, Witness, values};

/// A proxy of this machine that is trusted.
const PROXY: &str = "127.0.0.2";

/// One gateway for each version of the address.
struct Doors {
    world: World,
    witness: Witness,
    four: GatewayServer,
    six: GatewayServer,
}

impl Doors {
    async fn open() -> Self {
        let world = World::new();
        let witness = Witness::start(Maker::Hyper).await.unwrap();
        let trusted = [PROXY, "10.0.0.0/8", "::1", "fd00::/8"];
        let network = |text: &str| match text.parse::<IpAddr>() {
            Ok(address) => ipnet::IpNet::from(address),
            Err(_) => text.parse().unwrap(),
        };
        let policy = PlanePolicy {
            trusted_proxies: Networks::new(trusted.iter().map(|text| network(text)).collect()),
            ..PlanePolicy::default()
        };
        let plane = world.plane_with(witness.upstreams(), policy, None);
        let listen = |address: &str| {
            let address: SocketAddr = address.parse().unwrap();
            GatewayServer::bind(&[address], plane.clone(), options()).unwrap()
        };
        let (four, six) = (listen("127.0.0.1:0"), listen("[::1]:0"));
        Self { world, witness, four, six }
    }

    /// A connection from this address of the machine.
    async fn from(&self, peer: &str) -> TcpStream {
        let peer: IpAddr = peer.parse().unwrap();
        let (socket, door) = match peer {
            IpAddr::V4(_) => (TcpSocket::new_v4().unwrap(), &self.four),
            IpAddr::V6(_) => (TcpSocket::new_v6().unwrap(), &self.six),
        };
        socket.bind(SocketAddr::new(peer, 0)).unwrap();
        socket.connect(door.local_addr()).await.unwrap()
    }

    /// The status of a request from this address with these header lines.
    async fn ask(&self, peer: &str, number: usize, lines: &[u8]) -> u16 {
        let head = format!(
            "GET /v1/reports HTTP/1.1\r\nhost: api.test\r\nauthorization: Bearer {}\r\n\
             x-case: {number}\r\nconnection: close\r\n",
            self.world.token
        );
        let bytes = [head.as_bytes(), lines, b"\r\n"].concat();
        let received = converse_on(self.from(peer).await, &bytes).await;
        statuses(&received)[0]
    }
}

/// The lines of a corpus, each with three columns.
fn rows(corpus: &str) -> Vec<[&str; 3]> {
    let lines = corpus.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('\t').collect::<Vec<_>>().try_into().unwrap()).collect()
}

#[tokio::test]
async fn the_client_is_found_from_the_right_through_trusted_proxies() {
    let doors = Doors::open().await;
    let rows = rows(include_str!("addresses.tsv"));
    for (number, [peer, lines, _]) in rows.iter().enumerate() {
        let mut bytes = Vec::new();
        for line in lines.split('|').filter(|line| !line.is_empty()) {
            bytes.extend(unescape(line));
            bytes.extend_from_slice(b"\r\n");
        }
        assert_eq!(doors.ask(peer, number, &bytes).await, 200, "{lines}");
    }
    let executed = doors.witness.executed().await;
    for (number, [peer, lines, client]) in rows.iter().enumerate() {
        let told = values(&executed[&number.to_string()][0], "x-forwarded-for");
        assert_eq!(told, [*client], "{peer} with {lines:?}");
    }
}

#[tokio::test]
async fn address_lists_of_keys_hold_for_every_spelling() {
    let doors = Doors::open().await;
    for (number, [list, client, passes]) in
        rows(include_str!("allowlists.tsv")).into_iter().enumerate()
    {
        let networks: Vec<&str> = list.split(',').collect();
        let list = IpAllowlist::parse(&networks).unwrap();
        doors.world.change_key(|key| key.ip_allowlist = list);
        let lines = format!("x-forwarded-for: {client}\r\n");
        let wanted = if passes == "yes" { 200 } else { 403 };
        let got = doors.ask(PROXY, number, lines.as_bytes()).await;
        assert_eq!(got, wanted, "{client} with {networks:?}");
        // the same without a proxy: only the connection's own address counts
        let own = networks == ["127.0.0.0/8"];
        let got = doors.ask("127.0.0.1", number, lines.as_bytes()).await;
        assert_eq!(got, if own { 200 } else { 403 }, "127.0.0.1 with {networks:?}");
    }
}

#[tokio::test]
async fn a_connection_of_the_sixth_version_is_on_lists_of_the_sixth_alone() {
    let doors = Doors::open().await;
    for (list, status) in [("::1", 200), ("::/127", 200), ("127.0.0.1", 403), ("::2", 403)] {
        let list = IpAllowlist::parse(&[list]).unwrap();
        doors.world.change_key(|key| key.ip_allowlist = list);
        assert_eq!(doors.ask("::1", 0, b"").await, status);
    }
}
