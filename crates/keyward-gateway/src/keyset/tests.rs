use serde_json::{from_value, json};

use keyward_core::key::{Minted, Pepper, TagKey, TokenFormat};
use keyward_core::profile::Profile;

use super::*;

pub(crate) struct Fixed;

impl keyward_core::clock::Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        distinct(buffer);
    }
}

/// Distinct bytes for each call; nothing here needs them to be secret.
fn distinct(buffer: &mut [u8]) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    for chunk in buffer.chunks_mut(8) {
        let word = NEXT.fetch_add(1, Ordering::Relaxed);
        let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

pub(crate) fn catalog() -> Arc<Catalog> {
    let profile: Profile = from_value(json!({
        "name": "acme", "title": "Acme", "base_path": "/v1", "openapi": "openapi.json",
        "keys": {"prefix": "acme", "environments": {"live": "live"}, "carriers": ["bearer"]},
        "scopes": {"reports:read": {"description": "."}},
        "roles": {"analyst": {"title": "Analyst", "areas": ["reports"]}},
    }))
    .unwrap();
    let document = json!({
        "openapi": "3.1.0",
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {"/v1/reports": {"get": {
            "operationId": "listReports", "summary": ".", "security": [{"key": ["reports:read"]}],
        }}},
    });
    Arc::new(Catalog::new(&profile, &document).unwrap())
}

pub(crate) fn keyring() -> Keyring {
    let format = TokenFormat::new("acme", |environment| environment.as_str().to_owned());
    Keyring::new(format, TagKey::new(&[1; 32]), Pepper::new(3, &[2; 32]), Vec::new())
}

fn authority(minted: &Minted, tenant: u128, owner: u128) -> KeyAuthority {
    KeyAuthority {
        tenant: TenantId::from_bits(tenant),
        id: KeyId::from_bits(minted.id_bits),
        environment: Environment::Live,
        hash: minted.hash,
        pepper_version: minted.pepper_version,
        scopes: vec!["reports:read".to_owned()],
        owner: UserId::from_bits(owner),
        name: "nightly".to_owned(),
        expires_at: None,
        revoked_at: None,
        suspect_since: None,
        ip_allowlist: IpAllowlist::default(),
    }
}

fn tenant(id: u128, suspended: bool) -> TenantAuthority {
    TenantAuthority { id: TenantId::from_bits(id), slug: format!("tenant-{id}"), suspended }
}

fn member(tenant: u128, user: u128) -> MemberAuthority {
    MemberAuthority {
        tenant: TenantId::from_bits(tenant),
        user: UserId::from_bits(user),
        role: "analyst".to_owned(),
    }
}

struct World {
    set: KeySet,
    minted: Minted,
}

impl World {
    fn new() -> Self {
        let set = KeySet::new(catalog(), Arc::new(keyring()));
        let minted = keyring().mint(SecretKind::Api(Environment::Live), &Fixed);
        Self { set, minted }
    }

    fn find(&self) -> Option<KnownKey<'_>> {
        let presented = self.set.keyring.format().parse(self.minted.secret.expose()).unwrap();
        self.set.recognize(&presented).known()
    }
}

#[test]
fn a_key_is_found_whatever_comes_first() {
    let world = World::new();
    assert!(world.find().is_none());
    world.set.replace_key(authority(&world.minted, 1, 7));
    let early = world.find().unwrap();
    assert!(early.tenant_suspended, "an unknown tenant counts as suspended");
    assert_eq!(early.role, None, "an unknown member has no role");
    world.set.replace_tenant(tenant(1, false));
    world.set.replace_member(&member(1, 7));
    let known = world.find().unwrap();
    assert!(!known.tenant_suspended);
    assert!(known.tenant.is_named(b"tenant-1"));
    assert!(known.tenant.is_named(TenantId::from_bits(1).to_string().as_bytes()));
    assert!(!known.tenant.is_named(b""));
    assert_eq!((known.role, &*known.name), (Some(0), "nightly"));
    world.set.remove_member(TenantId::from_bits(1), UserId::from_bits(7));
    assert_eq!(world.find().unwrap().role, None);
    world.set.remove_tenant(TenantId::from_bits(1));
    assert!(world.find().unwrap().tenant_suspended);
}

#[test]
fn replaced_and_removed() {
    let world = World::new();
    let mut key = authority(&world.minted, 1, 7);
    world.set.replace_key(key.clone());
    key.revoked_at = Some(Timestamp::from_millis(5));
    key.ip_allowlist = IpAllowlist::parse(&["203.0.113.0/24"]).unwrap();
    world.set.replace_key(key);
    let known = world.find().unwrap();
    assert_eq!(known.revoked_at, Some(Timestamp::from_millis(5)));
    assert!(known.ip_allowlist.is_some());
    assert_eq!(world.set.len(), 1);
    world.set.remove_key(known.id);
    world.set.remove_key(known.id);
    assert!(world.find().is_none() && world.set.is_empty());
    world.set.replace_key(authority(&world.minted, 1, 7));
    assert!(world.find().is_some());
    world.set.clear();
    assert!(world.find().is_none());
}

#[test]
fn a_wrong_secret_or_environment_is_nobodys() {
    let world = World::new();
    let mut key = authority(&world.minted, 1, 7);
    key.environment = Environment::Test;
    world.set.replace_key(key.clone());
    assert!(world.find().is_none());
    key.environment = Environment::Live;
    key.pepper_version = 9;
    world.set.replace_key(key.clone());
    assert!(world.find().is_none());
    key.pepper_version = 3;
    key.hash = KeyHash::from_bytes([0; 32]);
    world.set.replace_key(key);
    assert!(world.find().is_none());
}

#[test]
fn many_keys_stay_apart() {
    let world = World::new();
    let ring = keyring();
    let minted: Vec<Minted> =
        (0..2_000).map(|_| ring.mint(SecretKind::Api(Environment::Live), &Fixed)).collect();
    world.set.load(minted.iter().zip(0..).map(|(it, n)| authority(it, n % 10, n)));
    assert_eq!(world.set.len(), 2_000);
    for minted in minted.iter().step_by(2) {
        world.set.remove_key(KeyId::from_bits(minted.id_bits));
    }
    for (n, minted) in minted.iter().enumerate() {
        let presented = ring.format().parse(minted.secret.expose()).unwrap();
        let found = world.set.recognize(&presented).known();
        assert_eq!(found.map(|key| key.id.bits()), (n % 2 == 1).then_some(minted.id_bits));
    }
}

#[test]
fn a_full_set_lets_keys_go_that_nobody_uses_and_none_that_is_revoked() {
    const MOST: usize = 64 * 20;
    let ring = keyring();
    let set = KeySet::keeping(MOST, catalog(), Arc::new(keyring()));
    let mint = || ring.mint(SecretKind::Api(Environment::Live), &Fixed);
    let recognize = |minted: &Minted| {
        let presented = ring.format().parse(minted.secret.expose()).unwrap();
        set.recognize(&presented)
    };
    let revoked: Vec<Minted> = (0..200).map(|_| mint()).collect();
    set.load(revoked.iter().map(|minted| KeyAuthority {
        revoked_at: Some(Timestamp::from_millis(5)),
        ..authority(minted, 1, 1)
    }));
    let used: Vec<Minted> = (0..100).map(|_| mint()).collect();
    set.load(used.iter().map(|minted| authority(minted, 1, 1)));
    for round in 0..4 * MOST {
        set.replace_key(authority(&mint(), 1, 1));
        // each of them again and again, before the hand has come round
        let minted = &used[round % used.len()];
        assert!(recognize(minted).known().is_some(), "a key in use had to go in round {round}");
    }
    assert!(set.len() <= MOST + revoked.len(), "{}", set.len());
    assert!(set.evicted() > 2 * MOST as u64, "{}", set.evicted());
    for minted in &revoked {
        assert!(recognize(minted).known().unwrap().revoked_at.is_some());
    }
    assert_eq!(set.revocations().len(), revoked.len());
    // a key that had to go is unknown, not wrong: the store has the last word
    let gone = mint();
    set.replace_key(authority(&gone, 1, 1));
    for _ in 0..8 * MOST {
        set.replace_key(authority(&mint(), 1, 1));
    }
    let unknown = |it| matches!(it, Recognized::Unknown(id) if id.bits() == gone.id_bits);
    assert!(unknown(recognize(&gone)));
    set.replace_key(authority(&gone, 1, 1));
    assert!(recognize(&gone).known().is_some());
    // a key that is revoked stays from then on
    let mut ended = authority(&gone, 1, 1);
    ended.revoked_at = Some(Timestamp::from_millis(5));
    set.replace_key(ended);
    for _ in 0..8 * MOST {
        set.replace_key(authority(&mint(), 1, 1));
    }
    assert!(recognize(&gone).known().unwrap().revoked_at.is_some());
    set.clear();
    assert!(set.is_empty() && set.revocations().is_empty());
}
