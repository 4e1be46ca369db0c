//! AN3: certificates that an authority issues, by a real one that really connects.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyward_testkit::{Program, ServerProcess};
use reqwest::Client;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};

use crate::harness::{PROFILE, keyward, write_private};
use crate::supervised::Supervised;

/// Nothing takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_mins(1);
const ISSUED: &str = "a certificate was issued";
const NOT_ISSUED: &str = "no certificate was issued";
/// An external account, as the authority's settings have it.
const EXTERNAL: (&str, &str) =
    ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

/// An address that leads elsewhere, or for the time being nowhere.
struct Way {
    address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    carrying: JoinHandle<()>,
}

impl Way {
    async fn nowhere() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to, leads) = watch::channel(None);
        let carrying = tokio::spawn(async move {
            let mut carried = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let to: Option<SocketAddr> = *leads.borrow();
                let Some(to) = to else { continue };
                carried.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(to).await else { return };
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, to, carrying }
    }

    fn lead(&self, to: impl Into<Option<SocketAddr>>) {
        self.to.send_replace(to.into());
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// An authority, how it is reached, and how it reaches whom it issues to.
struct Authority {
    server: ServerProcess,
    asked_at: Way,
    looks_at: Way,
    folder: TempDir,
    bound: bool,
}

impl Authority {
    /// Nothing when there is none on this machine. `bound`: it wants an external account.
    async fn start(bound: bool) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        std::fs::write(folder.path().join("ca-key.pem"), key.serialize_pem()).unwrap();
        let looks_at = Way::nowhere().await;
        let server = Self::server(folder.path(), &looks_at, bound).await?;
        let asked_at = Way::nowhere().await;
        asked_at.lead(server.address());
        Some(Self { server, asked_at, looks_at, folder, bound })
    }

    async fn server(folder: &Path, looks_at: &Way, bound: bool) -> Option<ServerProcess> {
        let (id, key) = EXTERNAL;
        let template = json!({ "pebble": {
            "listenAddress": "{{listen}}",
            "certificate": folder.join("ca.pem"),
            "privateKey": folder.join("ca-key.pem"),
            "tlsPort": looks_at.address.port(),
            "certificateValidityPeriod": 90 * 24 * 60 * 60,
            "externalAccountBindingRequired": bound,
            "externalAccountMACKeys": { id: key },
        }});
        ServerProcess::start(Program::Pebble, &template.to_string(), &[]).await
    }

    /// Begins anew: it knows no account and no order any more.
    async fn forget(&mut self) {
        self.server = Self::server(self.folder.path(), &self.looks_at, self.bound).await.unwrap();
        self.asked_at.lead(self.server.address());
    }

    /// Where its directory is.
    fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.asked_at.address.port())
    }
}

/// What nodes of one deployment share.
struct State(TempDir);

impl State {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, authority: &Authority, name: &str) -> PathBuf {
        let port = authority.asked_at.address.port();
        self.0.path().join(format!("localhost-{port}-dir")).join(name)
    }

    fn text(&self, authority: &Authority, name: &str) -> String {
        std::fs::read_to_string(self.file(authority, name)).unwrap()
    }

    /// Keeps a certificate that has less than a third of its life left, as if it was issued.
    fn keep_an_old_one(&self, authority: &Authority) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1990, 1, 1);
        params.not_after = rcgen::date_time_ymd(2035, 1, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        let file = self.file(authority, "certificate.pem");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        write_private(&file, &format!("{pem}{}", key.serialize_pem()));
    }

    /// A caller that believes whoever vouches for the kept certificate, or that one alone.
    fn caller(&self, authority: &Authority) -> Client {
        let pem = self.text(authority, "certificate.pem");
        let mut chain = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).unwrap();
        let client = Client::builder().no_proxy().tls_certs_only(chain.pop());
        client.pool_max_idle_per_host(0).timeout(PATIENCE).build().unwrap()
    }
}

/// A node whose gateway is reached by the name `localhost`.
struct Node {
    server: Supervised,
    gateway: SocketAddr,
    internal: String,
}

impl Node {
    async fn start(authority: &Authority, state: &State, more: &[&str]) -> Self {
        let directory = authority.directory();
        let ca = authority.folder.path().join("ca.pem").display().to_string();
        let state = state.0.path().display().to_string();
        let mut arguments = vec![
            "--gateway-listener",
            "{ listen = '127.0.0.1:0', environments = ['live'], tls = { acme = true } }",
            "--acme-domains",
            "LocalHost",
            "--acme-terms-agreed=true",
            "--acme-directory-url",
            &directory,
            "--acme-ca-file",
            &ca,
            "--acme-state-dir",
            &state,
            "--certificates-check-every",
            "20ms",
            "--shutdown-drain-delay",
            "0s",
        ];
        arguments.extend_from_slice(more);
        if !more.contains(&"--acme-retry-after") {
            arguments.extend(["--acme-retry-after", "20ms"]);
        }
        let server = Supervised::start(false, &arguments, &[]);
        server.told("READY=1").await;
        let ready = server.ready();
        let gateways = ready["gateways"].as_str().unwrap().trim_matches(['[', ']']);
        let gateway = gateways.rsplit(", ").next().unwrap().parse().unwrap();
        let internal = format!("http://{}", ready["internal"].as_str().unwrap());
        Self { server, gateway, internal }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/x", self.gateway.port())
    }

    /// Waits until this caller believes the certificate that is shown.
    async fn is_believed(&self, caller: &Client) {
        let believed = async {
            let mut look = interval(Duration::from_millis(10));
            while caller.get(self.url()).send().await.map(|it| it.status().as_u16()).ok()
                != Some(401)
            {
                look.tick().await;
            }
        };
        let found = timeout(PATIENCE, believed).await;
        found.unwrap_or_else(|_| panic!("it is not believed: {}", self.server.log()));
    }

    async fn metrics(&self) -> String {
        let client = Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("{}/metrics", self.internal)).send().await.unwrap();
        answer.text().await.unwrap()
    }

    async fn stop(self) {
        self.server.signal(Signal::TERM);
        assert_eq!(self.server.code().await, 0);
    }
}

#[tokio::test]
async fn an3_a_certificate_is_ordered_kept_and_used_again_after_a_restart() {
    let Some(authority) = Authority::start(false).await else { return };
    let state = State::new();
    // the authority is away: the node serves, but has nothing to show yet
    authority.asked_at.lead(None);
    let node = Node::start(&authority, &state, &[]).await;
    node.server.logged(NOT_ISSUED).await;
    let anybody = Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
    let anybody = anybody.build().unwrap();
    assert!(anybody.get(node.url()).send().await.is_err());
    assert!(!node.metrics().await.contains("keyward_certificate_expires_seconds{"));

    authority.looks_at.lead(node.gateway);
    authority.asked_at.lead(authority.server.address());
    node.server.logged(ISSUED).await;
    let caller = state.caller(&authority);
    node.is_believed(&caller).await;
    let metrics = node.metrics().await;
    assert!(metrics.contains("keyward_acme_orders_total{result=\"issued\"} 1"), "{metrics}");
    assert!(metrics.contains("keyward_certificate_expires_seconds{listener=\"gateway 127"));
    node.stop().await;
    for name in ["account.json", "certificate.pem"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(state.file(&authority, name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(!state.file(&authority, "challenge-localhost.pem").exists());

    // what is kept does for the next start, without anybody else
    authority.asked_at.lead(None);
    let before = state.text(&authority, "certificate.pem");
    let node = Node::start(&authority, &state, &[]).await;
    node.is_believed(&caller).await;
    assert!(!node.server.log().contains(NOT_ISSUED), "{}", node.server.log());
    assert_eq!(state.text(&authority, "certificate.pem"), before);
    let metrics = node.metrics().await;
    assert!(metrics.contains("keyward_acme_orders_total{result=\"issued\"} 0"), "{metrics}");
    node.stop().await;
}

#[tokio::test]
async fn an3_a_renewal_that_fails_changes_nothing_and_is_tried_again() {
    let Some(authority) = Authority::start(false).await else { return };
    let state = State::new();
    state.keep_an_old_one(&authority);
    authority.asked_at.lead(None);
    let node = Node::start(&authority, &state, &[]).await;
    node.server.logged("an earlier one stays").await;
    // one that never connected has no session that could be resumed
    let (before, late) = (state.caller(&authority), state.caller(&authority));
    node.is_believed(&before).await;

    authority.looks_at.lead(node.gateway);
    authority.asked_at.lead(authority.server.address());
    node.server.logged(ISSUED).await;
    let after = state.caller(&authority);
    node.is_believed(&after).await;
    assert!(late.get(node.url()).send().await.is_err());
    // it lasts, so that no other is ordered; a hang-up reads it again and orders nothing
    node.server.signal(Signal::HUP);
    node.server.logged("other settings are read at the start").await;
    node.is_believed(&after).await;
    let metrics = node.metrics().await;
    assert!(metrics.contains("keyward_acme_orders_total{result=\"issued\"} 1"), "{metrics}");
    node.stop().await;
}

#[tokio::test]
async fn an3_an_authority_that_finds_somebody_else_issues_nothing() {
    let Some(authority) = Authority::start(false).await else { return };
    let state = State::new();
    state.keep_an_old_one(&authority);
    // the name leads to the authority's own server, which answers no challenge
    authority.looks_at.lead(authority.server.address());
    let node = Node::start(&authority, &state, &["--acme-retry-after", "1d"]).await;
    node.server.logged(NOT_ISSUED).await;
    let log = node.server.log();
    let line = log.lines().find(|line| line.contains(NOT_ISSUED)).unwrap();
    for said in ["localhost: ", "urn:ietf:params:acme:error:", "an earlier one stays"] {
        assert!(line.contains(said), "{said} is not in {line}");
    }
    node.is_believed(&state.caller(&authority)).await;
    assert!(!state.file(&authority, "challenge-localhost.pem").exists());
    let metrics = node.metrics().await;
    assert!(metrics.contains("keyward_acme_orders_total{result=\"failed\"} 1"), "{metrics}");
    node.stop().await;
}

#[tokio::test]
async fn an3_nodes_that_share_the_folder_answer_for_each_other() {
    let Some(authority) = Authority::start(false).await else { return };
    let state = State::new();
    // one that will not order, because it could not and now waits for a day
    authority.asked_at.lead(None);
    let asked = Node::start(&authority, &state, &["--acme-retry-after", "1d"]).await;
    asked.server.logged(NOT_ISSUED).await;
    authority.asked_at.lead(authority.server.address());
    authority.looks_at.lead(asked.gateway);
    let ordering = Node::start(&authority, &state, &[]).await;
    ordering.server.logged(ISSUED).await;
    let caller = state.caller(&authority);
    ordering.is_believed(&caller).await;
    asked.is_believed(&caller).await;
    assert!(!asked.server.log().contains(ISSUED));
    asked.stop().await;
    ordering.stop().await;
}

#[tokio::test]
async fn an3_an_account_that_the_authority_forgot_is_made_again() {
    let Some(mut authority) = Authority::start(false).await else { return };
    let state = State::new();
    let node = Node::start(&authority, &state, &["--acme-contact", "ops@example.com"]).await;
    authority.looks_at.lead(node.gateway);
    node.server.logged(ISSUED).await;
    node.stop().await;
    let account = state.text(&authority, "account.json");
    assert!(account.contains("mailto:ops@example.com"), "it names whom to write to");
    std::fs::remove_file(state.file(&authority, "certificate.pem")).unwrap();

    // another contact is told to the authority; the account stays
    let id = |text: &str| {
        let kept: serde_json::Value = serde_json::from_str(text).unwrap();
        kept["credentials"]["id"].as_str().unwrap().to_owned()
    };
    let node = Node::start(&authority, &state, &["--acme-contact", "sre@example.com"]).await;
    authority.looks_at.lead(node.gateway);
    node.server.logged(ISSUED).await;
    node.stop().await;
    let changed = state.text(&authority, "account.json");
    assert!(changed.contains("mailto:sre@example.com"));
    assert_eq!(id(&changed), id(&account));
    assert!(!changed.contains("ops@example.com"));
    std::fs::remove_file(state.file(&authority, "certificate.pem")).unwrap();

    authority.forget().await;
    let node = Node::start(&authority, &state, &["--acme-contact", "sre@example.com"]).await;
    authority.looks_at.lead(node.gateway);
    node.server.logged("making another").await;
    node.server.logged(ISSUED).await;
    node.is_believed(&state.caller(&authority)).await;
    node.stop().await;
    assert_ne!(state.text(&authority, "account.json"), changed);
}

#[tokio::test]
async fn an3_an_account_is_bound_to_one_that_the_authority_knows() {
    let Some(authority) = Authority::start(true).await else { return };
    let state = State::new();
    let node = Node::start(&authority, &state, &[]).await;
    node.server.logged("no account could be made").await;
    assert!(node.server.log().contains("externalAccountRequired"), "{}", node.server.log());
    node.stop().await;

    let (id, key) = EXTERNAL;
    let file = state.0.path().join("external");
    write_private(&file, &format!("{key}\n"));
    let file = file.display().to_string();
    let bound = ["--acme-external-account-id", id, "--acme-external-account-key-file", &file];
    let node = Node::start(&authority, &state, &bound).await;
    authority.looks_at.lead(node.gateway);
    node.server.logged(ISSUED).await;
    assert!(!node.server.log().contains(key));
    node.stop().await;
}

#[tokio::test]
async fn an3_the_doctor_says_for_how_long_certificates_last() {
    let Some(authority) = Authority::start(false).await else { return };
    let state = State::new();
    let (directory, folder) = (authority.directory(), state.0.path().display().to_string());
    let doctor = async || {
        let arguments = [
            &["doctor", "--output", "json", "--profile", PROFILE, "--control-tls-acme=true"][..],
            &["--acme-domains", "localhost", "--acme-terms-agreed=true"],
            &["--acme-directory-url", &directory, "--acme-state-dir", &folder],
        ];
        let said = keyward(&arguments.concat(), &[]).await.stdout;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let findings = said["data"].as_array().unwrap();
        findings.iter().find(|it| it["check"] == "certificates").expect("a line").clone()
    };
    let none = doctor().await;
    assert_eq!(none["found"], "control: none yet");
    state.keep_an_old_one(&authority);
    let kept = doctor().await;
    assert!(kept["ok"].as_bool().unwrap() && kept["fix"].is_null(), "{kept}");
    let found = kept["found"].as_str().unwrap();
    assert!(found.ends_with("days left, until 2035-01-01T00:00:00.000Z"), "{found}");
    write_private(&state.file(&authority, "certificate.pem"), "nothing");
    assert!(!doctor().await["ok"].as_bool().unwrap());
}

#[tokio::test]
async fn an3_settings_that_nobody_can_issue_for_prevent_the_start() {
    let start = async |more: &[&str]| {
        let data = TempDir::new().unwrap();
        let data = data.path().join("data").display().to_string();
        let arguments = [&["serve", "--profile", PROFILE, "--data-dir", &data][..], more].concat();
        keyward(&arguments, &[]).await
    };
    let used = "--control-tls-acme=true";
    for (more, expected) in [
        (&[used][..], "names nothing"),
        (&[used, "--acme-domains", "a.example"], "not agreed to"),
        (&[used, "--acme-terms-agreed=true", "--acme-domains", "*.a.example"], "no host"),
        (&["--acme-terms-agreed=true", "--acme-domains", "a.example"], "no listener"),
        (
            &[
                used,
                "--acme-terms-agreed=true",
                "--acme-domains",
                "a.example",
                "--acme-ca-file",
                "/dev/null",
                "--control-listen",
                "127.0.0.1:0",
                "--internal-listen",
                "127.0.0.1:0",
                "--gateway-listener",
                "{ listen = '127.0.0.1:0', environments = ['live'] }",
            ],
            "acme.ca-file",
        ),
    ] {
        let ended = start(more).await;
        assert_eq!(ended.code, 78, "{expected}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{expected}: {}", ended.stderr);
    }
}
