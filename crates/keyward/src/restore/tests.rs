//! The log as a file, and what a restored store loses by it, on every engine at hand.

use std::path::PathBuf;
use std::sync::Arc;

use keyward_api::revocations::{LoweredTenant, Revocation};
use keyward_core::audit::{AuditEntry, AuditOutcome};
use keyward_core::authority::Invalidation;
use keyward_core::id::{AdminTokenId, KeyId, TenantId, UserId};
use keyward_core::ip::IpAllowlist;
use keyward_core::key::{ApiKey, KeyHash, KeyHint, RevokeReason};
use keyward_core::{Clock as _, Environment, Timestamp};
use keyward_store::{
    AdminToken, AuditFilter, Chain, Change, Store, Tenant, TenantTx, User, UserKind, WriteTx,
};
use keyward_testkit::{ManualClock, TestDatabase};
use serde_json::json;

use super::*;
use crate::bootstrap::system;
use crate::config::ConfigError;

const TENANT: TenantId = TenantId::from_bits(1);
const OTHER: TenantId = TenantId::from_bits(2);
const OWNER: UserId = UserId::from_bits(3);
const LEAVER: UserId = UserId::from_bits(4);
const TOKEN: AdminTokenId = AdminTokenId::from_bits(5);
const SPARE_TOKEN: AdminTokenId = AdminTokenId::from_bits(6);

/// Keys, each for one thing that can be taken from it.
const REVOKED: u128 = 10;
const NARROWED: u128 = 11;
const SHORTENED: u128 = 12;
const CONFINED: u128 = 13;
const REISSUED: u128 = 14;
const UNTOUCHED: u128 = 15;
const KEYS: std::ops::RangeInclusive<u128> = REVOKED..=UNTOUCHED;

fn entry(target: &dyn std::fmt::Display) -> AuditEntry {
    AuditEntry {
        action: "test.made",
        target_kind: "test",
        target_id: target.to_string(),
        outcome: AuditOutcome::Succeeded,
        details: json!({}),
    }
}

fn key(id: u128, at: Timestamp) -> ApiKey {
    let id = KeyId::from_bits(id);
    ApiKey {
        tenant: TENANT,
        id,
        environment: Environment::Live,
        name: "worker".to_owned(),
        description: String::new(),
        hint: KeyHint::new(*b"abcd").unwrap(),
        scopes: ["audit:read", "reports:read"].map(str::to_owned).to_vec(),
        owner: OWNER,
        created_by: "test".to_owned(),
        created_at: at,
        expires_at: None,
        revoked_at: None,
        revoke_reason: None,
        suspect_since: None,
        exposed: None,
        ip_allowlist: IpAllowlist::default(),
        rate_limit: None,
        lineage: id,
        rotated_from: None,
        replaced_by: None,
        deleted_at: None,
        last_used_at: None,
        last_used_ip: None,
        last_used_agent: None,
    }
}

/// A deployment, as it was when the backup was made.
struct World {
    store: Store,
    clock: Arc<ManualClock>,
    folder: tempfile::TempDir,
    /// What the store is on.
    database: TestDatabase,
}

impl World {
    async fn every() -> Vec<Self> {
        let mut worlds = Vec::new();
        for database in TestDatabase::every().await {
            eprintln!("on {}", database.engine_name());
            let clock = Arc::new(ManualClock::new());
            let store = Store::open(&database.config(), clock.clone()).await.unwrap();
            let folder = tempfile::TempDir::new().unwrap();
            let world = Self { store, clock, folder, database };
            world.furnish().await;
            worlds.push(world);
        }
        worlds
    }

    async fn furnish(&self) {
        for (tenant, slug) in [(TENANT, "one"), (OTHER, "two")] {
            let chain = Chain::Tenant(tenant);
            let mut tx = self.store.write_system("test", chain, system("test")).await.unwrap();
            let at = tx.at();
            let row = Tenant {
                id: tenant,
                slug: slug.to_owned(),
                name: slug.to_owned(),
                created_at: at,
                suspended_at: None,
                suspend_reason: None,
            };
            tx.insert_tenant(&row).await.unwrap();
            let change = Change::new((), entry(&tenant));
            tx.finish(change.invalidating([Invalidation::Tenant(tenant)])).await.unwrap();
        }
        let chain = Chain::Tenant(TENANT);
        let mut tx = self.store.write_system("test", chain, system("test")).await.unwrap();
        let at = tx.at();
        for (id, name) in [(OWNER, "owner"), (LEAVER, "leaver")] {
            let user = User {
                id,
                kind: UserKind::Service,
                email: None,
                name: name.to_owned(),
                administrator: false,
                created_at: at,
            };
            tx.insert_user(&user, None).await.unwrap();
            tx.insert_member(TENANT, id, "owner", at).await.unwrap();
        }
        for id in [TOKEN, SPARE_TOKEN] {
            let token = AdminToken {
                id,
                name: "ops".to_owned(),
                hint: KeyHint::new(*b"abcd").unwrap(),
                tenant: None,
                role: None,
                scopes: ["keys:read", "keys:write"].map(str::to_owned).to_vec(),
                created_by: "test".to_owned(),
                created_at: at,
                expires_at: None,
                revoked_at: None,
            };
            tx.insert_admin_token(&token, &KeyHash::from_bytes([9; 32]), 1).await.unwrap();
        }
        tx.finish(Change::new((), entry(&OWNER))).await.unwrap();
        for id in KEYS {
            self.change(async |tx| {
                let key = key(id, tx.at());
                tx.insert_key(&key, &KeyHash::from_bytes([9; 32]), 1).await.unwrap();
                Invalidation::Key(TENANT, key.id)
            })
            .await;
        }
    }

    /// One change of the tenant.
    async fn change(&self, change: impl AsyncFn(&mut WriteTx<TenantTx>) -> Invalidation) {
        let mut tx = self.store.write(TENANT, system("test")).await.unwrap();
        let touched = change(&mut tx).await;
        tx.finish(Change::new((), entry(&TENANT)).invalidating([touched])).await.unwrap();
    }

    async fn with_key(&self, id: u128, change: impl Fn(&mut ApiKey, Timestamp)) {
        self.change(async |tx| {
            let mut key = tx.find_key(KeyId::from_bits(id)).await.unwrap().unwrap();
            change(&mut key, tx.at());
            tx.update_key(&key).await.unwrap();
            Invalidation::Key(TENANT, key.id)
        })
        .await;
    }

    async fn key(&self, id: u128) -> ApiKey {
        let mut tx = self.store.read(TENANT).await.unwrap();
        tx.find_key(KeyId::from_bits(id)).await.unwrap().unwrap()
    }

    async fn epoch(&self) -> (i64, i64) {
        self.store.read_system("test").await.unwrap().epoch().await.unwrap()
    }

    /// Writes what changed behind an epoch to a file.
    async fn log(&self, name: &str, since: u64) -> PathBuf {
        let path = self.folder.path().join(name);
        let first = part(&self.store, since, 1).await.unwrap();
        let header = LogHeader::new(first.incarnation, since, first.epoch, self.clock.now());
        let mut writer = LogWriter::create(&path, &header).unwrap();
        let mut after = Some(since);
        while let Some(epoch) = after {
            // small parts, so that there are several
            let page = part(&self.store, epoch, 3).await.unwrap();
            page.data.iter().for_each(|entry| writer.entry(entry).unwrap());
            after = page.next_after;
        }
        writer.finish().unwrap();
        path
    }

    async fn restored(&self, log: Option<&PathBuf>, suspect: bool) -> anyhow::Result<Report> {
        let log = log.map(|path| LogReader::open(path).unwrap());
        let command = "keyward backup restore";
        restored(&self.store, Knowledge { log, suspect, least_epoch: 0, command }).await
    }

    async fn operator_actions(&self) -> Vec<String> {
        let mut tx = self.store.read_system("test").await.unwrap();
        let filter = AuditFilter { limit: 50, ..AuditFilter::default() };
        let events = tx.audit_events_of(Chain::Operator, &filter).await.unwrap();
        events.into_iter().map(|event| event.action).collect()
    }
}

/// Everything that lowers authority, once, as it happened after the backup.
async fn lower(world: &World) {
    world.with_key(REVOKED, |key, at| key.revoke(RevokeReason::Leaked, at)).await;
    world.with_key(NARROWED, |key, _| key.scopes.retain(|scope| scope != "audit:read")).await;
    world.with_key(SHORTENED, |key, at| key.expires_at = Some(at.plus_ms(5_000))).await;
    let office = IpAllowlist::parse(&["203.0.113.0/24"]).unwrap();
    world.with_key(CONFINED, |key, _| key.ip_allowlist = office.clone()).await;
    world
        .change(async |tx| {
            let id = KeyId::from_bits(REISSUED);
            let hint = KeyHint::new(*b"wxyz").unwrap();
            tx.set_key_secret(id, &KeyHash::from_bytes([8; 32]), 1, hint).await.unwrap();
            Invalidation::Key(TENANT, id)
        })
        .await;
    world
        .change(async |tx| {
            assert!(tx.set_role(OWNER, "viewer").await.unwrap());
            Invalidation::Member(TENANT, OWNER)
        })
        .await;
    world
        .change(async |tx| {
            let at = tx.at();
            assert!(tx.offboard(LEAVER, at).await.unwrap());
            Invalidation::Member(TENANT, LEAVER)
        })
        .await;
    let (store, chain) = (&world.store, Chain::Operator);
    let mut tx = store.write_system("test", chain, system("test")).await.unwrap();
    let at = tx.at();
    assert!(tx.revoke_admin_token(TOKEN, at).await.unwrap());
    let scopes = ["keys:read".to_owned()];
    tx.lower_admin_token(SPARE_TOKEN, Some(at.plus_ms(9)), &scopes).await.unwrap();
    let touched = [TOKEN, SPARE_TOKEN].map(Invalidation::AdminToken);
    tx.finish(Change::new((), entry(&TOKEN)).invalidating(touched)).await.unwrap();
    let mut tx = store.write(OTHER, system("test")).await.unwrap();
    let at = tx.at();
    tx.set_suspended(Some(at), Some("unpaid")).await.unwrap();
    let touched = [Invalidation::Tenant(OTHER)];
    tx.finish(Change::new((), entry(&OTHER)).invalidating(touched)).await.unwrap();
}

#[tokio::test]
async fn what_the_log_names_is_taken_away_again_and_nothing_else() {
    let before = World::every().await;
    for (world, backup) in before.into_iter().zip(World::every().await) {
        let since = u64::try_from(backup.epoch().await.0).unwrap();
        lower(&world).await;
        let log = world.log("log", since).await;
        let (last, _) = world.epoch().await;

        let report = backup.restored(Some(&log), false).await.unwrap();
        let revoked = backup.key(REVOKED).await;
        assert_eq!(revoked.revoked_at, world.key(REVOKED).await.revoked_at);
        assert_eq!(revoked.revoke_reason, Some(RevokeReason::Leaked));
        for id in [NARROWED, SHORTENED, CONFINED] {
            assert_eq!(backup.key(id).await, world.key(id).await, "{id}");
        }
        // the log holds no hash: the restored secret is the one that was replaced
        assert!(backup.key(REISSUED).await.suspect_since.is_some());
        assert_eq!(backup.key(UNTOUCHED).await.suspect_since, None);
        let mut tx = backup.store.read(TENANT).await.unwrap();
        assert_eq!(tx.role_of(OWNER).await.unwrap().as_deref(), Some("viewer"));
        assert_eq!(tx.role_of(LEAVER).await.unwrap(), None);
        drop(tx);
        let mut tx = backup.store.read_system("test").await.unwrap();
        let token = tx.find_admin_token(TOKEN).await.unwrap().unwrap();
        assert!(token.revoked_at.is_some());
        let spare = tx.find_admin_token(SPARE_TOKEN).await.unwrap().unwrap();
        assert!(spare.revoked_at.is_none() && spare.expires_at.is_some());
        assert_eq!(spare.scopes, ["keys:read"]);
        let other = tx.find_tenant(OTHER).await.unwrap().unwrap();
        assert_eq!(other.suspend_reason.as_deref(), Some("unpaid"));
        drop(tx);

        let (epoch, incarnation) = backup.epoch().await;
        assert!(epoch >= last && incarnation > 1, "{epoch} {last} {incarnation}");
        assert_eq!((report.epoch, report.incarnation), (epoch, incarnation));
        let counts = [
            report.keys_revoked,
            report.keys_narrowed,
            report.keys_suspected,
            report.members_offboarded,
            report.roles_changed,
            report.tenants_suspended,
            report.admin_tokens_revoked,
            report.admin_tokens_narrowed,
            report.unneeded,
        ];
        assert_eq!(counts, [1, 3, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(backup.operator_actions().await.first().unwrap(), "deployment.restored");
        let chains = walk(&backup.store).await.unwrap();
        assert!(chains.broken.is_empty() && chains.events >= 20, "{chains:?}");
        assert!(report.broken_chains.is_empty());
        // once is enough
        let text = refusal(backup.restored(Some(&log), false).await);
        assert!(text.contains("is older than the backup"), "{text}");
    }
}

#[tokio::test]
async fn without_a_log_every_active_key_waits_and_no_admin_token_works() {
    for world in World::every().await {
        world.with_key(REVOKED, |key, at| key.revoke(RevokeReason::Leaked, at)).await;
        let report = world.restored(None, true).await.unwrap();
        assert_eq!((report.keys_suspected, report.admin_tokens_revoked), (5, 2));
        assert_eq!(world.key(REVOKED).await.suspect_since, None);
        for id in NARROWED..=UNTOUCHED {
            assert!(world.key(id).await.suspect_since.is_some());
        }
        // accepted as it is: the history is another one all the same
        let before = world.epoch().await;
        let report = world.restored(None, false).await.unwrap();
        assert_eq!((report.keys_suspected, report.admin_tokens_revoked), (0, 0));
        assert!(world.epoch().await.1 > before.1);
    }
}

/// The fix in the refusal of a log.
fn refusal(result: anyhow::Result<Report>) -> String {
    let error = result.expect_err("a refusal");
    assert!(error.downcast_ref::<ConfigError>().is_some(), "{error:#}");
    error.to_string()
}

#[tokio::test]
async fn a_log_that_does_not_fit_the_backup_is_refused_before_anything_is_taken() {
    for world in World::every().await {
        let begin = u64::try_from(world.epoch().await.0).unwrap();
        let old = world.log("old", 0).await;
        world.with_key(REVOKED, |key, at| key.revoke(RevokeReason::Leaked, at)).await;
        world.with_key(NARROWED, |key, at| key.revoke(RevokeReason::Leaked, at)).await;
        // the log of a deployment that has come further than its backup
        let gap = world.folder.path().join("gap");
        let header = LogHeader::new(1, begin + 9, begin + 20, world.clock.now());
        LogWriter::create(&gap, &header).unwrap().finish().unwrap();
        let elsewhere = world.folder.path().join("elsewhere");
        let header = LogHeader::new(7, 0, begin + 20, world.clock.now());
        LogWriter::create(&elsewhere, &header).unwrap().finish().unwrap();

        let text = refusal(world.restored(Some(&old), false).await);
        assert!(text.contains("is older than the backup"), "{text}");
        let text = refusal(world.restored(Some(&gap), true).await);
        assert!(text.contains("what changed between them is in neither"), "{text}");
        let text = refusal(world.restored(Some(&elsewhere), false).await);
        assert!(text.contains("add --suspect"), "{text}");
        assert_eq!(world.epoch().await.1, 1, "nothing has begun");
        assert_eq!(world.key(UNTOUCHED).await.suspect_since, None);
        let report = world.restored(Some(&elsewhere), true).await.unwrap();
        assert_eq!((report.keys_suspected, report.log_epoch), (4, Some(begin + 20)));
        assert_eq!(report.epoch, i64::try_from(begin + 20).unwrap());
    }
}

fn tenant(epoch: u64) -> Revocation {
    let tenant = LoweredTenant {
        tenant_id: TENANT,
        suspended_at: Some(Timestamp::from_millis(7)),
        suspend_reason: Some("line\nbreak".to_owned()),
    };
    Revocation { epoch, tenant: Some(tenant), ..Revocation::default() }
}

#[test]
fn a_file_is_read_as_it_was_written_and_refused_when_a_byte_is_another_or_missing() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("log");
    let header = LogHeader::new(1, 5, 9, Timestamp::from_millis(1_800_000_000_000));
    let mut writer = LogWriter::create(&path, &header).unwrap();
    (6..10).for_each(|epoch| writer.entry(&tenant(epoch)).unwrap());
    assert!(!path.exists(), "it has its name when it is whole");
    assert_eq!(writer.finish().unwrap(), 4);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(LogWriter::create(&path, &header).is_err(), "and takes nobody else's place");

    let mut reader = LogReader::open(&path).unwrap();
    assert_eq!(*reader.header(), header);
    for epoch in 6..10 {
        assert_eq!(reader.next().unwrap(), Some(tenant(epoch)));
    }
    assert_eq!(reader.next().unwrap(), None);

    let whole = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        LogReader::open(&path).is_err()
    };
    for length in 0..whole.len() {
        assert!(refused(&whole[..length]), "cut after {length} bytes");
    }
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        assert!(refused(&changed), "byte {place}");
    }
    assert!(refused(&[whole.as_slice(), b"{}\n"].concat()));
    assert!(refused(&vec![b'x'; 600_000]), "a line without an end");
    let text = String::from_utf8(whole).unwrap();
    std::fs::write(&path, text.replacen("\"version\":1", "\"version\":2", 1)).unwrap();
    let newer = LogReader::open(&path).err().unwrap();
    assert!(newer.fix.contains("newer binary"), "{newer}");
}

#[tokio::test]
async fn a_change_behind_the_products_back_breaks_a_chain() {
    for world in World::every().await {
        assert_eq!(walk(&world.store).await.unwrap().broken, Vec::<String>::new());
        let sql = "UPDATE audit_events SET actor_name = 'nobody' WHERE target_kind = 'test' AND
                   sequence = 3 AND tenant_id = 'ten_0000000000000000000001'";
        world.database.behind(sql).await;
        assert_eq!(walk(&world.store).await.unwrap().broken, [TENANT.to_string()]);
        world.database.behind("DELETE FROM audit_heads WHERE tenant_id LIKE '%2'").await;
        let broken = walk(&world.store).await.unwrap().broken;
        assert_eq!(broken, [TENANT.to_string(), OTHER.to_string()]);
        let report = world.restored(None, true).await.unwrap();
        assert_eq!(report.broken_chains, broken, "a restore goes on, and says so");
    }
}
