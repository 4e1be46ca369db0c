//! The data plane alone, with keys of its own: what a profiler looks at.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use serde_json::{from_value, json};

use keyward_core::assertion::SigningKey;
use keyward_core::authority::{KeyAuthority, MemberAuthority, TenantAuthority};
use keyward_core::catalog::Catalog;
use keyward_core::environment::{Environment, EnvironmentSet};
use keyward_core::id::{KeyId, TenantId, UserId};
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{Keyring, Minted, Pepper, SecretKind, TagKey};
use keyward_core::lease::Lease;
use keyward_core::profile::Profile;
use keyward_core::{Clock, Timestamp};
use keyward_gateway::{
    AdminTokens, Builtins, ConnectionLimits, DataPlane, DataPlaneConfig, GatewayOptions,
    GatewayServer, InternalServer, KeySet, Networks, PlanePolicy, ProductConfig, Protocols,
    RuntimeShape, UpstreamConfig,
};

const TENANT: TenantId = TenantId::from_bits(11);
const OWNER: UserId = UserId::from_bits(21);

static WORDS: AtomicU64 = AtomicU64::new(1);

/// The machine's time, and numbers that look random and are the same in every run.
pub struct MachineClock(Instant);

impl MachineClock {
    /// A clock whose monotonic time begins now.
    #[expect(clippy::disallowed_methods, reason = "what is measured runs in real time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MachineClock {
    #[expect(clippy::disallowed_methods, reason = "what is measured runs in real time")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or_default())
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        // keys of a benchmark guard nothing
        for chunk in buffer.chunks_mut(8) {
            let next = WORDS.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            for (slot, byte) in chunk.iter_mut().zip((mixed ^ (mixed >> 27)).to_be_bytes()) {
                *slot = byte;
            }
        }
    }
}

/// `UPSTREAM KEYS KEY-FILE SHAPE THREADS` writes that many keys to the file and serves
/// `GET /v1/reports/overview`, and verify to anyone on this machine, on so many threads each:
/// `per-core`, a runtime for each of them, or `shared`, one runtime over all.
///
/// # Errors
///
/// Wrong arguments, or an address that cannot be had.
pub fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [upstream, keys, key_file, shape, threads] = arguments.as_slice() else {
        anyhow::bail!("usage: plane UPSTREAM KEYS KEY-FILE per-core|shared THREADS");
    };
    let threads: usize = threads.parse()?;
    let shape = match shape.as_str() {
        "per-core" => RuntimeShape::PerCore(threads),
        "shared" => RuntimeShape::Shared,
        other => anyhow::bail!("{other} is neither per-core nor shared"),
    };
    let profile: Profile = from_value(profile())?;
    let (catalog, keyring, set) = key_set(&profile)?;
    let clock = Arc::new(MachineClock::start());
    std::fs::write(key_file, fill(&set, &keyring, clock.as_ref(), keys.parse()?))?;
    let assertion_key = Arc::new(SigningKey::hs256(&[3; 32])?);
    let loopback = "127.0.0.0/8".parse().context("a network")?;
    let plane = DataPlane::new(DataPlaneConfig {
        clock,
        admin_tokens: Arc::new(AdminTokens::new(keyring)),
        keys: set,
        product: ProductConfig {
            catalog,
            carriers: profile.keys.carriers,
            tenant_header: None,
            builtins: Builtins::default(),
            docs_base: "/docs".to_owned(),
        },
        upstreams: vec![UpstreamConfig::new(
            EnvironmentSet::ALL,
            upstream.clone(),
            "bench",
            assertion_key,
        )],
        policy: PlanePolicy {
            verify_callers: Networks::new(vec![loopback]),
            ..PlanePolicy::default()
        },
    })?;
    // nobody else changes what this plane knows
    plane.lease().grant(Lease { until_ns: u64::MAX, stale_until_ns: u64::MAX });
    serve(&Arc::new(plane), shape, threads)
}

/// A key set that knows one tenant and one owner and no key, and the secrets behind it.
///
/// # Errors
///
/// A profile of the benchmarks that is wrong.
pub fn empty_set() -> anyhow::Result<(Arc<Keyring>, Arc<KeySet>)> {
    let (_, keyring, set) = key_set(&from_value(profile())?)?;
    Ok((keyring, set))
}

fn key_set(profile: &Profile) -> anyhow::Result<(Arc<Catalog>, Arc<Keyring>, Arc<KeySet>)> {
    let catalog = Catalog::new(profile, &document()).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let catalog = Arc::new(catalog);
    let tags = TagKey::new(&[1; 32]);
    let pepper = Pepper::new(1, &[2; 32]);
    let keyring = Arc::new(Keyring::new(profile.token_format(), tags, pepper, Vec::new()));
    let set = Arc::new(KeySet::new(Arc::clone(&catalog), Arc::clone(&keyring)));
    set.replace_tenant(TenantAuthority { id: TENANT, slug: "bench".to_owned(), suspended: false });
    let role = "owner".to_owned();
    set.replace_member(&MemberAuthority { tenant: TENANT, user: OWNER, role });
    Ok((catalog, keyring, set))
}

/// An active key that is good for every route here.
pub fn key_of(minted: &Minted, name: String) -> KeyAuthority {
    let scopes = ["reports:read", "audit:read", "controls:read"];
    KeyAuthority {
        tenant: TENANT,
        id: KeyId::from_bits(minted.id_bits),
        environment: Environment::Live,
        hash: minted.hash,
        pepper_version: minted.pepper_version,
        scopes: scopes.map(str::to_owned).to_vec(),
        owner: OWNER,
        name,
        expires_at: None,
        revoked_at: None,
        suspect_since: None,
        ip_allowlist: IpAllowlist::default(),
    }
}

fn serve(plane: &Arc<DataPlane>, shape: RuntimeShape, threads: usize) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let any: SocketAddr = "127.0.0.1:0".parse()?;
        let mut options = GatewayOptions::new(EnvironmentSet::ALL);
        options.runtime = shape;
        let limits = ConnectionLimits::default();
        let gateway = GatewayServer::bind(&[any], Arc::clone(plane), options)?;
        let nothing = || Full::new(Bytes::new()).map_err(Into::into).boxed_unsync();
        let internal = InternalServer::bind(
            &[any],
            Arc::clone(plane),
            Arc::new(move |_| Box::pin(async move { Response::new(nothing()) })),
            limits,
            Protocols::default(),
            shape,
        )?;
        println!("http://{} http://{}", gateway.local_addr(), internal.local_addr());
        std::future::pending().await
    })
}

fn fill(set: &KeySet, keyring: &Keyring, clock: &MachineClock, keys: usize) -> String {
    let mut tokens = String::new();
    for number in 0..keys {
        let minted = keyring.mint(SecretKind::Api(Environment::Live), clock);
        tokens.push_str(minted.secret.expose());
        tokens.push('\n');
        set.replace_key(key_of(&minted, format!("bench-{number}")));
    }
    tokens
}

fn profile() -> serde_json::Value {
    json!({
        "name": "acme", "title": "Acme", "base_path": "/v1", "openapi": "openapi.json",
        "keys": {"prefix": "acme", "environments": {"live": "live"}, "carriers": ["bearer"]},
        "scopes": {
            "audit:read": {"description": "."},
            "controls:read": {"description": "."},
            "reports:read": {"description": "."},
        },
        "roles": {"owner": {"title": "Owner", "areas": ["*"], "operations": ["*"]}},
    })
}

fn document() -> serde_json::Value {
    let read = |id: &str, scope: &str| {
        let security = json!([{"key": [scope]}]);
        json!({"get": {"operationId": id, "summary": ".", "security": security}})
    };
    json!({
        "openapi": "3.1.0",
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/v1/reports/overview": read("overview", "reports:read"),
            "/v1/reports/{id}": read("report", "reports:read"),
            "/v1/audit": read("audit", "audit:read"),
            "/v1/controls": read("controls", "controls:read"),
        },
    })
}
