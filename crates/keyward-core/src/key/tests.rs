use crate::environment::Environment;
use crate::error::{ErrorCode, Result};
use crate::id::{KeyId, TenantId, UserId};
use crate::ip::IpAllowlist;
use crate::key::{
    ApiKey, DEFAULT_OVERLAP_MS, KeyHint, KeyLowering, KeyState, MAX_OVERLAP_MS, REISSUE_WINDOW_MS,
    RevokeReason, Rotation,
};
use crate::time::{DAY_MS, HOUR_MS, Timestamp};

const CREATED: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const NEXT: KeyId = KeyId::from_bits(2);

fn after(millis: i64) -> Timestamp {
    CREATED.plus_ms(millis)
}

fn key() -> ApiKey {
    ApiKey {
        tenant: TenantId::from_bits(1),
        id: KeyId::from_bits(1),
        environment: Environment::Live,
        name: "billing".to_owned(),
        description: String::new(),
        hint: KeyHint::new(*b"a1B2").unwrap(),
        scopes: ["audit:read", "reports:read", "reports:write"].map(str::to_owned).to_vec(),
        owner: UserId::from_bits(1),
        created_by: "usr_1".to_owned(),
        created_at: CREATED,
        expires_at: None,
        revoked_at: None,
        revoke_reason: None,
        suspect_since: None,
        exposed: None,
        ip_allowlist: IpAllowlist::default(),
        rate_limit: None,
        lineage: KeyId::from_bits(1),
        rotated_from: None,
        replaced_by: None,
        deleted_at: None,
        last_used_at: None,
        last_used_ip: None,
        last_used_agent: None,
    }
}

fn expiring(at: Timestamp) -> ApiKey {
    ApiKey { expires_at: Some(at), ..key() }
}

fn revoked() -> ApiKey {
    let mut key = key();
    key.revoke(RevokeReason::Leaked, after(1));
    key
}

/// The change is refused with this code and a text that says so, and left nothing behind.
fn refuses<T>(
    before: &ApiKey,
    code: ErrorCode,
    words: &str,
    change: impl FnOnce(&mut ApiKey) -> Result<T>,
) {
    let mut key = before.clone();
    let error = change(&mut key).err().expect("a refusal");
    assert_eq!(error.code(), code);
    assert!(error.public().contains(words), "{}", error.public());
    assert_eq!(&key, before, "a refused change changes nothing");
}

#[test]
fn states_follow_the_instants() {
    let end = after(1_000);
    let table = [
        (None, None, after(i64::MAX), KeyState::Active),
        (Some(end), None, after(999), KeyState::Active),
        (Some(end), None, end, KeyState::Expired),
        (Some(end), None, after(1_001), KeyState::Expired),
        (None, Some(after(5)), after(5), KeyState::Revoked),
        (Some(end), Some(after(5)), after(2_000), KeyState::Revoked),
        // revoked by a node whose clock runs ahead: it does not wait for ours
        (None, Some(after(5)), after(4), KeyState::Revoked),
    ];
    for (expires, revoked, now, expected) in table {
        let found = KeyState::at(now, expires, revoked);
        assert_eq!(found, expected, "{expires:?} {revoked:?} {now}");
        let key = ApiKey { expires_at: expires, revoked_at: revoked, ..key() };
        assert_eq!(key.state(now), expected);
    }
    let words = [KeyState::Active, KeyState::Expired, KeyState::Revoked].map(KeyState::as_str);
    assert_eq!(words, ["active", "expired", "revoked"]);
}

#[test]
fn revoking_twice_keeps_the_first_instant_and_reason() {
    let mut key = key();
    key.revoke(RevokeReason::Leaked, after(1));
    key.revoke(RevokeReason::Unused, after(2));
    assert_eq!(key.revoked_at, Some(after(1)));
    assert_eq!(key.revoke_reason, Some(RevokeReason::Leaked));
}

#[test]
fn reasons_round_trip_as_words() {
    for reason in RevokeReason::ALL {
        assert_eq!(RevokeReason::from_word(reason.as_str()), Some(reason));
    }
    assert_eq!(RevokeReason::from_word("paused"), None);
}

#[test]
fn hints_are_four_letters_or_digits() {
    assert_eq!(KeyHint::new(*b"a1B2").unwrap().to_string(), "a1B2");
    for bad in [*b"a1_2", *b"   \n", [0xc3, 0xa9, b'a', b'b']] {
        assert!(KeyHint::new(bad).is_none());
    }
}

#[test]
fn a_rotation_leaves_both_working_until_the_overlap_ends() {
    let mut old = key();
    let now = after(DAY_MS);
    let rotation = Rotation::begin(&mut old, NEXT, DEFAULT_OVERLAP_MS, now).unwrap();
    let end = now.plus_ms(DEFAULT_OVERLAP_MS);
    assert_eq!(rotation.overlap_ends_at, end);
    assert_eq!(old.replaced_by, Some(NEXT));
    assert_eq!(old.state(end.plus_ms(-1)), KeyState::Active);
    assert_eq!(old.state(end), KeyState::Expired, "it ran out; nobody revoked it");
}

#[test]
fn a_rotation_never_extends_the_old_key() {
    for (expiry, overlap) in [(HOUR_MS, DAY_MS), (DAY_MS, DAY_MS), (DAY_MS, HOUR_MS)] {
        let mut old = expiring(after(expiry));
        let rotation = Rotation::begin(&mut old, NEXT, overlap, CREATED).unwrap();
        assert_eq!(rotation.overlap_ends_at, after(expiry.min(overlap)));
        assert_eq!(old.expires_at, Some(rotation.overlap_ends_at));
    }
}

#[test]
fn an_overlap_of_zero_revokes_at_once() {
    let mut old = expiring(after(DAY_MS));
    let rotation = Rotation::begin(&mut old, NEXT, 0, after(1)).unwrap();
    assert_eq!(rotation.overlap_ends_at, after(1));
    assert_eq!(old.state(after(1)), KeyState::Revoked);
    assert_eq!(old.revoke_reason, Some(RevokeReason::Rotated));
    assert_eq!(old.replaced_by, Some(NEXT));
}

#[test]
fn a_second_rotation_is_refused_and_names_the_replacement() {
    let mut old = key();
    Rotation::begin(&mut old, NEXT, DAY_MS, CREATED).unwrap();
    let again = |key: &mut ApiKey| Rotation::begin(key, KeyId::from_bits(3), DAY_MS, after(1));
    refuses(&old, ErrorCode::Conflict, "rotated already", again);
    let error = again(&mut old).unwrap_err();
    assert_eq!(error.details()["replacedBy"], NEXT.to_string());
}

#[test]
fn rotations_out_of_bounds_or_of_dead_keys_are_refused() {
    let begin = |overlap| move |key: &mut ApiKey| Rotation::begin(key, NEXT, overlap, after(2));
    for overlap in [-1, MAX_OVERLAP_MS + 1, i64::MIN, i64::MAX] {
        refuses(&key(), ErrorCode::ValidationFailed, "30 days", begin(overlap));
    }
    assert!(Rotation::begin(&mut key(), NEXT, MAX_OVERLAP_MS, CREATED).is_ok());
    refuses(&revoked(), ErrorCode::Conflict, "revoked", begin(DAY_MS));
    refuses(&expiring(after(2)), ErrorCode::Conflict, "expired", begin(0));
}

#[test]
fn an_overlap_ended_by_hand_leaves_the_key_revoked() {
    let mut old = key();
    Rotation::begin(&mut old, NEXT, DAY_MS, CREATED).unwrap();
    old.end_overlap(after(5)).unwrap();
    assert_eq!(old.state(after(5)), KeyState::Revoked);
    assert_eq!(old.revoke_reason, Some(RevokeReason::Rotated));
    refuses(&old, ErrorCode::Conflict, "revoked", |key| key.end_overlap(after(6)));
}

#[test]
fn an_overlap_that_is_none_or_over_cannot_be_ended() {
    refuses(&key(), ErrorCode::Conflict, "not rotated", |key| key.end_overlap(after(1)));
    let mut old = key();
    Rotation::begin(&mut old, NEXT, HOUR_MS, CREATED).unwrap();
    refuses(&old, ErrorCode::Conflict, "expired", |key| key.end_overlap(after(HOUR_MS)));
}

#[test]
fn narrowing_takes_scopes_away_and_leaves_one() {
    let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut narrowed = key();
    narrowed.narrow(&names(&["reports:write", "audit:read"]), CREATED).unwrap();
    assert_eq!(narrowed.scopes, names(&["reports:read"]));

    let narrow = |list: &[&str]| {
        let list = names(list);
        move |key: &mut ApiKey| key.narrow(&list, after(2))
    };
    let invalid = ErrorCode::ValidationFailed;
    refuses(&key(), invalid, "files:read", narrow(&["audit:read", "files:read"]));
    let all = ["audit:read", "reports:read", "reports:write"];
    refuses(&key(), invalid, "at least one scope", narrow(&all));
    refuses(&narrowed, invalid, "at least one scope", narrow(&["reports:read"]));
    refuses(&revoked(), ErrorCode::Conflict, "revoked", narrow(&["audit:read"]));
    refuses(&expiring(after(2)), ErrorCode::Conflict, "expired", narrow(&["audit:read"]));
}

#[test]
fn an_expiry_only_moves_earlier() {
    let mut key_without = key();
    key_without.shorten(after(DAY_MS), CREATED).unwrap();
    assert_eq!(key_without.expires_at, Some(after(DAY_MS)));
    key_without.shorten(after(HOUR_MS), CREATED).unwrap();
    assert_eq!(key_without.expires_at, Some(after(HOUR_MS)));

    let shorten = |to| move |key: &mut ApiKey| key.shorten(to, after(10));
    let invalid = ErrorCode::ValidationFailed;
    refuses(&key_without, invalid, "only move earlier", shorten(after(HOUR_MS + 1)));
    refuses(&key(), invalid, "in the future", shorten(after(10)));
    refuses(&key(), invalid, "in the future", shorten(CREATED));
    refuses(&revoked(), ErrorCode::Conflict, "revoked", shorten(after(DAY_MS)));
    refuses(&expiring(after(10)), ErrorCode::Conflict, "expired", shorten(after(11)));
}

#[test]
fn a_secret_is_issued_again_only_in_the_first_hour_and_unused() {
    assert!(key().ensure_reissuable(CREATED).is_ok());
    assert!(key().ensure_reissuable(after(REISSUE_WINDOW_MS)).is_ok());
    let at = |now| move |key: &mut ApiKey| key.ensure_reissuable(now);
    let conflict = ErrorCode::Conflict;
    refuses(&key(), conflict, "one hour", at(after(REISSUE_WINDOW_MS + 1)));
    let used = ApiKey { last_used_at: Some(after(1)), ..key() };
    refuses(&used, conflict, "used already", at(after(2)));
    refuses(&revoked(), conflict, "revoked", at(after(2)));
    refuses(&expiring(after(2)), conflict, "expired", at(after(2)));
}

#[test]
fn a_suspect_key_is_active_until_it_is_confirmed_and_after() {
    let mut suspect = ApiKey { suspect_since: Some(after(1)), ..key() };
    assert_eq!(suspect.state(after(2)), KeyState::Active);
    suspect.confirm(after(2)).unwrap();
    assert_eq!(suspect, key());
    refuses(&key(), ErrorCode::Conflict, "nothing to confirm", |key| key.confirm(after(2)));
    let dead = ApiKey { suspect_since: Some(after(1)), ..revoked() };
    refuses(&dead, ErrorCode::Conflict, "is revoked", |key| key.confirm(after(2)));
}

/// What a log written now would say of a key.
fn logged(key: &ApiKey) -> KeyLowering {
    KeyLowering {
        revoked_at: key.revoked_at,
        revoke_reason: key.revoke_reason,
        expires_at: key.expires_at,
        scopes: key.scopes.clone(),
        ip_allowlist: key.ip_allowlist.clone(),
        owner: key.owner,
        hint: key.hint,
        suspect_since: key.suspect_since,
    }
}

fn lowered(by: impl FnOnce(&mut KeyLowering)) -> ApiKey {
    let (mut restored, mut log) = (key(), logged(&key()));
    by(&mut log);
    assert!(restored.lower(&log, after(9)));
    assert!(!restored.clone().lower(&log, after(10)), "a second time there is nothing to take");
    restored
}

#[test]
fn a_log_takes_what_was_taken_after_the_backup() {
    assert!(!key().lower(&logged(&key()), after(9)));
    let key = lowered(|log| {
        log.revoked_at = Some(after(5));
        log.revoke_reason = Some(RevokeReason::Leaked);
    });
    assert_eq!((key.revoked_at, key.revoke_reason), (Some(after(5)), Some(RevokeReason::Leaked)));
    assert_eq!(lowered(|log| log.expires_at = Some(after(7))).expires_at, Some(after(7)));
    let key = lowered(|log| log.scopes = vec!["audit:read".to_owned()]);
    assert_eq!(key.scopes, ["audit:read"]);
    assert_eq!(lowered(|log| log.scopes.clear()).revoked_at, Some(after(9)));
    let office = IpAllowlist::parse(&["203.0.113.0/24"]).unwrap();
    assert_eq!(lowered(|log| log.ip_allowlist = office.clone()).ip_allowlist, office);
    let suspect = [
        lowered(|log| log.owner = UserId::from_bits(2)),
        lowered(|log| log.hint = KeyHint::new(*b"z9Z9").unwrap()),
        lowered(|log| log.suspect_since = Some(after(3))),
    ];
    assert!(suspect.iter().all(|key| key.suspect_since == Some(after(9))));
}

#[test]
fn a_log_gives_nothing_back() {
    let narrow = ApiKey {
        expires_at: Some(after(4)),
        scopes: vec!["audit:read".to_owned()],
        ip_allowlist: IpAllowlist::parse(&["203.0.113.0/24"]).unwrap(),
        suspect_since: Some(after(2)),
        ..key()
    };
    let mut restored = narrow.clone();
    assert!(!restored.lower(&logged(&key()), after(3)));
    assert_eq!(restored, narrow);
    let mut dead = revoked();
    assert!(!dead.lower(&logged(&key()), after(3)));
    assert_eq!(dead, revoked());
}
