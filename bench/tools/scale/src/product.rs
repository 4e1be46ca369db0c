//! The product whose keys are made, and the secrets they are made with.

use std::path::PathBuf;
use std::sync::Arc;

use keyward::dev::SystemClock;
use keyward_core::authority::{KeyAuthority, MemberAuthority, TenantAuthority};
use keyward_core::catalog::Catalog;
use keyward_core::id::{KeyId, TenantId, UserId};
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{KeySecret, Keyring, Pepper, SecretKind, TagKey, TokenFormat};
use keyward_core::{Environment, Timestamp};
use serde_json::{from_value, json};

/// Keys of one tenant.
pub(crate) const KEYS_PER_TENANT: usize = 100;
/// The scope and the role of all of them.
pub(crate) const SCOPE: &str = "reports:read";
pub(crate) const ROLE: &str = "owner";
/// The only operation.
pub(crate) const PATH: &str = "/v1/reports";

/// The secrets of the deployment, as its file has them.
pub(crate) const SECRETS: &str = "\
key-id-tag = \"0101010101010101010101010101010101010101010101010101010101010101\"
store-context = \"0707070707070707070707070707070707070707070707070707070707070707\"
assertion = \"0303030303030303030303030303030303030303030303030303030303030303\"
assertion-seed = \"0404040404040404040404040404040404040404040404040404040404040404\"

[pepper]
current = 1
1 = \"0202020202020202020202020202020202020202020202020202020202020202\"
";

const PROFILE: &str = "\
name = \"scale\"
title = \"Scale\"
base_path = \"/v1\"
openapi = \"openapi.json\"
[keys]
prefix = \"scale\"
environments = { live = \"live\" }
carriers = [\"bearer\"]
[scopes.\"reports:read\"]
description = \"Read reports.\"
[roles.owner]
title = \"Owner\"
areas = [\"*\"]
";

fn document() -> serde_json::Value {
    json!({
        "openapi": "3.1.0", "info": { "title": "Scale", "version": "1" },
        "components": { "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } } },
        "paths": { PATH: { "get": {
            "operationId": "listReports", "summary": ".", "security": [{ "key": [SCOPE] }],
        } } },
    })
}

/// Writes the profile into a folder; its path.
pub(crate) fn write_profile(folder: &std::path::Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("profile");
    std::fs::create_dir_all(&path)?;
    std::fs::write(path.join("profile.toml"), PROFILE)?;
    std::fs::write(path.join("openapi.json"), document().to_string())?;
    Ok(path)
}

/// The catalogue of the profile.
pub(crate) fn catalog() -> anyhow::Result<Arc<Catalog>> {
    let profile = from_value(json!({
        "name": "scale", "title": "Scale", "base_path": "/v1", "openapi": "openapi.json",
        "keys": {
            "prefix": "scale", "environments": { "live": "live" }, "carriers": ["bearer"],
        },
        "scopes": { SCOPE: { "description": "Read reports." } },
        "roles": { ROLE: { "title": "Owner", "areas": ["*"] } },
    }))?;
    let catalog = Catalog::new(&profile, &document());
    Ok(Arc::new(catalog.map_err(|error| anyhow::anyhow!("{}", error.public()))?))
}

/// The keyring behind [`SECRETS`].
pub(crate) fn keyring() -> Keyring {
    let format = TokenFormat::new("scale", |environment| environment.as_str().to_owned());
    Keyring::new(format, TagKey::new(&[1; 32]), Pepper::new(1, &[2; 32]), Vec::new())
}

/// The tenant of the key at this position.
pub(crate) fn tenant(position: usize) -> TenantId {
    TenantId::from_bits((position / KEYS_PER_TENANT) as u128 + 1)
}

/// Who owns the keys of that tenant.
pub(crate) fn owner(position: usize) -> UserId {
    UserId::from_bits((position / KEYS_PER_TENANT) as u128 + 1)
}

/// A key and its secret.
pub(crate) fn key(keyring: &Keyring, position: usize) -> (KeyAuthority, KeySecret) {
    let minted = keyring.mint(SecretKind::Api(Environment::Live), &SystemClock);
    let key = KeyAuthority {
        tenant: tenant(position),
        id: KeyId::from_bits(minted.id_bits),
        environment: Environment::Live,
        hash: minted.hash,
        pepper_version: minted.pepper_version,
        scopes: vec![SCOPE.to_owned()],
        owner: owner(position),
        name: format!("worker-{position}"),
        expires_at: None,
        revoked_at: None,
        suspect_since: None,
        ip_allowlist: IpAllowlist::default(),
    };
    (key, minted.secret)
}

/// The tenant and the member of the key at this position.
pub(crate) fn home(position: usize) -> (TenantAuthority, MemberAuthority) {
    let (id, user) = (tenant(position), owner(position));
    let slug = format!("tenant-{}", position / KEYS_PER_TENANT);
    let tenant = TenantAuthority { id, slug, suspended: false };
    (tenant, MemberAuthority { tenant: id, user, role: ROLE.to_owned() })
}

/// An instant for records.
pub(crate) const MADE_AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);
