//! AN3: TLS on every listener, from files that are replaced while the server runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Client;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use crate::harness::{PROFILE, keyward, write_private};
use crate::supervised::Supervised;

/// Nothing takes this long; it only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_mins(1);
/// The code of a start that the settings prevent.
const CONFIG: i32 = 78;

/// A certificate of this machine in a folder of its own.
struct Files {
    folder: TempDir,
    pem: String,
}

impl Files {
    fn new() -> Self {
        let mut files = Self { folder: TempDir::new().unwrap(), pem: String::new() };
        files.renew();
        files
    }

    fn renew(&mut self) {
        self.pem = self.write(|_| {});
    }

    /// Writes another certificate over the one before, and gives it as PEM.
    fn write(&self, tune: impl FnOnce(&mut rcgen::CertificateParams)) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        tune(&mut params);
        let pem = params.self_signed(&key).unwrap().pem();
        write_private(&self.path("key.pem"), &key.serialize_pem());
        std::fs::write(self.path("chain.pem"), &pem).unwrap();
        pem
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The setting of one certificate.
    fn entry(&self) -> String {
        let (chain, key) = (self.path("chain.pem"), self.path("key.pem"));
        format!("{{ chain-file = '{}', key-file = '{}' }}", chain.display(), key.display())
    }

    /// A caller that trusts this certificate and no other, on a connection of its own each time.
    fn caller(&self) -> Client {
        let trusted = reqwest::Certificate::from_pem(self.pem.as_bytes()).unwrap();
        let client = Client::builder().no_proxy().tls_certs_only([trusted]);
        client.pool_max_idle_per_host(0).timeout(PATIENCE).build().unwrap()
    }
}

/// A server with TLS on its control, its internal and one of its gateway listeners.
async fn start(files: &Files, check_every: &str) -> (Supervised, [String; 3]) {
    let gateway = format!(
        "{{ listen = '127.0.0.1:0', environments = ['live'], tls = {{ certificate = [{}] }} }}",
        files.entry()
    );
    let arguments = [
        "--control-tls-certificate",
        &files.entry(),
        "--internal-tls-certificate",
        &files.entry(),
        "--gateway-listener",
        &gateway,
        "--certificates-check-every",
        check_every,
        "--shutdown-drain-delay",
        "0s",
    ];
    let server = Supervised::start(false, &arguments, &[]);
    server.told("READY=1").await;
    let ready = server.ready();
    let text = |name: &str| ready[name].as_str().unwrap().to_owned();
    let gateways = text("gateways");
    let gateway = gateways.trim_matches(['[', ']']).rsplit(", ").next().unwrap().to_owned();
    let urls = [gateway, text("control"), text("internal")].map(|at| format!("https://{at}"));
    (server, urls)
}

async fn metrics(files: &Files, internal: &str) -> String {
    let answer = files.caller().get(format!("{internal}/metrics")).send().await.unwrap();
    answer.text().await.unwrap()
}

#[tokio::test]
async fn an3_every_listener_speaks_tls_and_takes_new_certificates_under_load() {
    let mut files = Files::new();
    let (server, [gateway, control, internal]) = start(&files, "1h").await;
    let before = files.caller();
    for (url, status) in [
        (format!("{gateway}/api/public/v1/reports"), 401),
        (format!("{control}/v1/tenants"), 401),
        (format!("{internal}/readyz"), 200),
    ] {
        assert_eq!(before.get(&url).send().await.unwrap().status(), status, "{url}");
        // what is not TLS is not answered
        assert!(before.get(url.replace("https", "http")).send().await.is_err(), "{url}");
    }
    assert!(metrics(&files, &internal).await.contains("listener=\"control\""));

    // callers that trust both, while the files change below them
    let earlier = reqwest::Certificate::from_pem(files.pem.as_bytes()).unwrap();
    files.renew();
    let later = reqwest::Certificate::from_pem(files.pem.as_bytes()).unwrap();
    let both = Client::builder().no_proxy().tls_certs_only([earlier, later]);
    let both = both.pool_max_idle_per_host(0).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let load = (0..4).map(|_| {
        let (client, stop, url) = (both.clone(), Arc::clone(&stop), format!("{gateway}/x"));
        tokio::spawn(async move {
            let mut answered = 0;
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
                answered += 1;
            }
            answered
        })
    });
    let load: Vec<_> = load.collect();
    server.signal(Signal::HUP);
    server.logged("certificates were read anew").await;
    let after = files.caller();
    assert_eq!(after.get(format!("{gateway}/x")).send().await.unwrap().status(), 401);
    assert!(before.get(format!("{gateway}/x")).send().await.is_err());
    stop.store(true, Ordering::SeqCst);
    for caller in load {
        assert!(caller.await.unwrap() > 0);
    }
    assert!(metrics(&files, &internal).await.contains("{result=\"replaced\"} 3"));
    server.signal(Signal::TERM);
    assert_eq!(server.code().await, 0);
}

#[tokio::test]
async fn an3_a_changed_file_is_noticed_and_a_bad_one_changes_nothing() {
    let mut files = Files::new();
    let (server, [gateway, _, internal]) = start(&files, "20ms").await;
    let url = format!("{gateway}/x");
    let caller = files.caller();
    std::fs::write(files.path("chain.pem"), "nothing").unwrap();
    server.logged("the earlier ones stay").await;
    assert_eq!(caller.get(&url).send().await.unwrap().status(), 401);
    assert!(metrics(&files, &internal).await.contains("{result=\"refused\"} "));

    files.renew();
    let renewed = files.caller();
    let noticed = async {
        let mut look = interval(Duration::from_millis(10));
        while renewed.get(&url).send().await.is_err() {
            look.tick().await;
        }
    };
    timeout(PATIENCE, noticed).await.unwrap();
    // one that nobody could use is not put in its place, even if it can be read
    files.write(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    server.logged("it expired at 2020-01-01").await;
    assert_eq!(renewed.get(&url).send().await.unwrap().status(), 401);
    server.signal(Signal::TERM);
    assert_eq!(server.code().await, 0);
}

#[tokio::test]
async fn an3_a_certificate_that_cannot_be_served_prevents_the_start() {
    type Spoil = fn(&Files);
    let table: [(Spoil, &str); 5] = [
        (|files| std::fs::remove_file(files.path("key.pem")).unwrap(), "cannot be read"),
        (|files| write_private(&files.path("key.pem"), &other_key()), "does not fit"),
        (|files| std::fs::write(files.path("chain.pem"), "").unwrap(), "no certificate"),
        (
            |files| drop(files.write(|it| it.not_after = rcgen::date_time_ymd(2020, 1, 1))),
            "it expired at 2020-01-01T00:00:00.000Z",
        ),
        (|files| open_to_all(&files.path("key.pem")), "may be read by other users"),
    ];
    for (spoil, expected) in table {
        let files = Files::new();
        spoil(&files);
        let data = TempDir::new().unwrap();
        let data = data.path().join("data").display().to_string();
        let arguments = [
            "serve",
            "--profile",
            PROFILE,
            "--data-dir",
            &data,
            "--control-listen",
            "127.0.0.1:0",
            "--internal-listen",
            "127.0.0.1:0",
            "--gateway-listener",
            "{ listen = '127.0.0.1:0', environments = ['live'] }",
            "--control-tls-certificate",
            &files.entry(),
        ];
        let ended = keyward(&arguments, &[]).await;
        assert_eq!(ended.code, CONFIG, "{expected}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{expected}: {}", ended.stderr);
        assert!(!ended.stderr.contains("PRIVATE KEY"), "{}", ended.stderr);
    }
}

fn other_key() -> String {
    rcgen::KeyPair::generate().unwrap().serialize_pem()
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}
