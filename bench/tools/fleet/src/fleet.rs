//! Everything that runs: database, proxies, nodes, upstream; and how to reach it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use keyward_testkit::{Fault, FaultProxy};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::{Mutex, Semaphore};

use crate::chance::Chance;
use crate::ledger::Ledger;
use crate::lowering::PROBED_AT_ONCE;
use crate::node::{self, Node};
use crate::options::Place;
use crate::postgres::{self, Postgres};
use crate::upstream;

/// A running deployment.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) postgres: Mutex<Postgres>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) chance: Chance,
    /// An operator's admin token.
    pub(crate) token: String,
    /// Bounds how many lowered keys are being tried.
    pub(crate) probes: Arc<Semaphore>,
    folder: parking_lot::Mutex<Option<TempDir>>,
}

impl Fleet {
    /// Starts everything and waits until every node is ready.
    pub(crate) async fn begin(
        place: &Place,
        nodes: u32,
        seed: u64,
        gateway_settings: &str,
    ) -> anyhow::Result<Arc<Self>> {
        let binary = std::fs::canonicalize(&place.binary)
            .with_context(|| format!("no binary at {}", place.binary.display()))?;
        let profile = std::fs::canonicalize(&place.profile)
            .with_context(|| format!("no profile at {}", place.profile.display()))?;
        let folder = tempfile::Builder::new().prefix("keyward-fleet-").tempdir()?;
        // PostgreSQL runs as another user
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711))?;
        let chance = Chance::new(seed);
        let ledger = Arc::new(Ledger::new());
        let api = upstream::begin(Arc::clone(&ledger)).await?;
        let postgres = Postgres::begin(folder.path(), node::free_port(&chance)?).await?;

        let deployment = Deployment { binary, profile, folder: folder.path(), api };
        let token = deployment.prepare(&postgres).await?;
        let mut all = Vec::new();
        for number in 0..usize::try_from(nodes)? {
            let proxy =
                FaultProxy::before(SocketAddr::from((Ipv4Addr::LOCALHOST, postgres.port))).await;
            let home = folder.path().join(format!("node-{number}"));
            std::fs::create_dir(&home)?;
            let node = Node::new(number, &deployment.binary, home, proxy, &chance)?;
            let url = postgres::url("keyward_app", "keyward", node.proxy.address().port());
            let settings = deployment.settings(&node.listeners(), gateway_settings);
            let settings = format!("{settings}{}\n", place.settings.replace("\\n", "\n"));
            private(&node.settings_file(), &settings)?;
            private(&node.settings_file().with_file_name("store-url"), &url)?;
            all.push(Arc::new(node));
        }
        for node in &all {
            node.start().await?;
        }
        let postgres = Mutex::new(postgres);
        let folder = parking_lot::Mutex::new(Some(folder));
        let probes = Arc::new(Semaphore::new(usize::try_from(PROBED_AT_ONCE)?));
        Ok(Arc::new(Self { nodes: all, postgres, ledger, chance, token, probes, folder }))
    }

    pub(crate) fn node(&self, number: usize) -> anyhow::Result<&Arc<Node>> {
        self.nodes.get(number).with_context(|| format!("there is no node {number}"))
    }

    /// Ends every fault: processes go on, proxies pass, what was killed runs again.
    pub(crate) async fn heal(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.proxy.set(Fault::Pass);
            node.freeze(false).await?;
        }
        let mut postgres = self.postgres.lock().await;
        postgres.freeze(false);
        if !postgres.runs() {
            postgres.start().await?;
        }
        drop(postgres);
        for node in &self.nodes {
            if !node.runs().await {
                node.start().await?;
            }
        }
        self.ledger.fault("healed".to_owned());
        Ok(())
    }

    /// Ends all processes; with `keep` the folder stays.
    pub(crate) async fn end(&self, keep: bool) -> Option<PathBuf> {
        for node in &self.nodes {
            // what does not end by this is killed when it is dropped
            let _ = node.kill().await;
        }
        let _ = self.postgres.lock().await.end().await;
        let folder = self.folder.lock().take()?;
        // it is removed when it is dropped
        keep.then(|| folder.keep())
    }
}

/// What all nodes have in common.
struct Deployment<'a> {
    binary: PathBuf,
    profile: PathBuf,
    folder: &'a Path,
    api: SocketAddr,
}

impl Deployment<'_> {
    fn settings(&self, listeners: &str, gateway: &str) -> String {
        let Self { profile, folder, api, .. } = self;
        let (profile, folder) = (profile.display(), folder.display());
        format!(
            "profile = \"{profile}\"\nsecrets-file = \"{folder}/secrets.toml\"\n\
             [store]\nurl-file = \"store-url\"\n\
             {listeners}\
             {gateway}\
             [[upstream]]\nenvironments = [\"live\"]\nurl = \"http://{api}\"\n\
             audience = \"fleet\"\n\
             assertion-secret-file = \"{folder}/assertion\"\n\
             [log]\nformat = \"json\"\nrequests = false\n\
             [shutdown]\ndrain-delay = \"500ms\"\n"
        )
    }

    /// Makes secrets, migrates, and makes an administrator; answers with an operator's token.
    async fn prepare(&self, postgres: &Postgres) -> anyhow::Result<String> {
        let secrets = self.folder.join("secrets.toml");
        let secrets = secrets.to_string_lossy().into_owned();
        self.run(&["config", "init", "--secrets-file", &secrets], "").await?;
        private(&self.folder.join("assertion"), &"5".repeat(64))?;
        let home = self.folder.join("prepare");
        std::fs::create_dir(&home)?;
        let url = postgres::url("keyward_app", "keyward", postgres.port);
        let owner = postgres::url("keyward_owner", "keyward", postgres.port);
        private(&home.join("store-url"), &url)?;
        private(&home.join("migrate-url"), &owner)?;
        let settings = self.settings("", "");
        let settings =
            settings.replace("[store]\n", "[store]\nmigrate-url-file = \"migrate-url\"\n");
        let file = home.join("keyward.toml");
        private(&file, &settings)?;
        let config = file.to_string_lossy().into_owned();
        self.run(&["migrate", "up", "--config", &config], "").await?;
        let administrator = ["admin", "create", "--email", "fleet@example.com", "--name", "Fleet"];
        let more = ["--password-stdin", "--with-token", "--config", &config];
        let arguments: Vec<&str> = administrator.into_iter().chain(more).collect();
        let token = self.run(&arguments, "a password for a fleet").await?;
        Ok(token.trim().to_owned())
    }

    async fn run(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(self.folder).env_clear().kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "keyward {arguments:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Writes a file that only its owner may read.
fn private(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(())
}
