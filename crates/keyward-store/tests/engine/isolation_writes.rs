//! What a tenant's own transaction may not write although the row is its own: what every node goes
//! by, and what decides whom a tenant sees.

use keyward_testkit::TestDatabase;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::isolation::raw;
use crate::matrix::sign;
use crate::{ADA, BOB};

const ROWS: &str = "SET search_path = keyward;
    INSERT INTO tenants (tenant_id, slug, name, created_at)
        VALUES ('ten_ada', 'ada', '', 0), ('ten_bob', 'bob', '', 0);
    INSERT INTO users (user_id, kind, email, name, created_at)
        VALUES ('usr_ann', 'person', 'ann', '', 0), ('usr_ben', 'person', 'ben', '', 0);
    INSERT INTO memberships (tenant_id, user_id, role, created_at)
        VALUES ('ten_ada', 'usr_ann', 'owner', 0), ('ten_bob', 'usr_ben', 'owner', 0);
    INSERT INTO api_keys (tenant_id, key_id, environment, name, description, hint, hash,
            pepper_version, scopes, owner_id, created_by, created_at, ip_allowlist, lineage_id)
        SELECT tenant_id, 'key_' || tenant_id, '', '', '', '', '', 1, '', user_id, '', 0, '', ''
        FROM memberships;
    UPDATE authority SET epoch = 7";

/// A connection of the application, and one of the superuser.
async fn open() -> Option<(TestDatabase, Client, Client)> {
    let database = TestDatabase::postgres().await?;
    let superuser = raw(&database.superuser_url().unwrap()).await;
    superuser.batch_execute(ROWS).await.unwrap();
    let client = raw(&database.url()).await;
    client.batch_execute("SET search_path = keyward").await.unwrap();
    Some((database, client, superuser))
}

/// Whether a tenant's transaction, or one over tenants, may do it. It is taken back.
async fn may(client: &Client, superuser: &Client, context: &str, sql: &str) -> bool {
    let context = sign(superuser, client, context).await;
    let text = format!("BEGIN; SET LOCAL keyward.context = '{context}'; {sql}");
    let done = client.batch_execute(&text).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    match done {
        Ok(()) => true,
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => false,
        Err(error) => panic!("{sql}: {error:?}"),
    }
}

#[tokio::test]
async fn a_tenant_enters_its_own_changes_under_the_epoch_of_now_and_no_others() {
    let Some((_database, client, superuser)) = open().await else { return };
    let change = |tenant: &str, epoch: i64, kind: &str, subject: &str| {
        format!(
            "UPDATE authority SET epoch = epoch + 1; INSERT INTO changes
             (tenant_id, epoch, position, kind, subject, at)
             VALUES ('{tenant}', {epoch}, 0, '{kind}', '{subject}', 0)"
        )
    };
    let own = [("key", "key_ten_ada"), ("member", "usr_ann"), ("tenant", ADA)];
    for (kind, subject) in own {
        assert!(may(&client, &superuser, ADA, &change(ADA, 8, kind, subject)).await, "{kind}");
        // Every node would skip what is numbered in between, or wait for it for ever.
        for epoch in [7, 9, i64::MAX] {
            let elsewhere = change(ADA, epoch, kind, subject);
            assert!(!may(&client, &superuser, ADA, &elsewhere).await, "{kind} at {epoch}");
        }
    }
    let others = [
        ("key", "key_ten_bob"),
        ("member", "usr_ben"),
        ("tenant", BOB),
        // An operator's token is no tenant's.
        ("admin_token", "adm_any"),
        // No node could read these, and none would decide any more.
        ("key", "no id at all"),
        ("something", ADA),
    ];
    for (kind, subject) in others {
        let foreign = change(ADA, 8, kind, subject);
        assert!(!may(&client, &superuser, ADA, &foreign).await, "{kind} {subject}");
        assert!(may(&client, &superuser, "*", &foreign).await, "{kind} {subject}");
    }
}

#[tokio::test]
async fn in_a_tenants_transaction_the_epoch_moves_one_forward_and_nothing_else_does() {
    let Some((_database, client, superuser)) = open().await else { return };
    let forward = "UPDATE authority SET epoch = epoch + 1";
    assert!(may(&client, &superuser, ADA, forward).await);
    for set in [
        "epoch = epoch - 1",
        "epoch = epoch",
        "epoch = 9223372036854775807",
        "epoch = epoch + 1, incarnation = incarnation + 1",
        "incarnation = 0",
        "timeline = 7",
    ] {
        let update = format!("UPDATE authority SET {set}");
        assert!(!may(&client, &superuser, ADA, &update).await, "{set}");
        assert!(may(&client, &superuser, "*", &update).await, "{set}");
    }
    // Whoever repairs by hand has no context and needs none.
    let repair = "UPDATE keyward.authority SET incarnation = incarnation + 1";
    superuser.batch_execute(repair).await.unwrap();
}

#[tokio::test]
async fn a_tenant_cannot_make_somebody_its_member_and_so_see_them() {
    let Some((_database, client, superuser)) = open().await else { return };
    let enter = "INSERT INTO memberships (tenant_id, user_id, role, created_at)
        VALUES ('ten_ada', 'usr_ben', 'owner', 0)";
    // Without keys in their name, no foreign key holds a membership to its user.
    let turn = "DELETE FROM api_keys; UPDATE memberships SET user_id = 'usr_ben'
        WHERE tenant_id = 'ten_ada'";
    for sql in [enter, turn] {
        assert!(!may(&client, &superuser, ADA, sql).await, "{sql}");
    }
    assert!(may(&client, &superuser, "*", enter).await);
    let role = "UPDATE memberships SET role = 'admin', offboarded_at = 1";
    assert!(may(&client, &superuser, ADA, role).await);
}

#[tokio::test]
async fn a_tenant_keeps_its_slug_and_does_not_reach_admin_tokens() {
    let Some((_database, client, superuser)) = open().await else { return };
    let token = "INSERT INTO admin_tokens (admin_token_id, name, hint, hash, pepper_version,
            tenant_id, role, scopes, created_by, created_at)
        VALUES ('adm_one', '', '', '', 1, 'ten_ada', 'owner', '', '', 0)";
    for sql in ["UPDATE tenants SET slug = 'taken' WHERE tenant_id = 'ten_ada'", token] {
        assert!(!may(&client, &superuser, ADA, sql).await, "{sql}");
        assert!(may(&client, &superuser, "*", sql).await, "{sql}");
    }
    let suspend = "UPDATE tenants SET suspended_at = 1, suspend_reason = 'x'";
    assert!(may(&client, &superuser, ADA, suspend).await);
}
