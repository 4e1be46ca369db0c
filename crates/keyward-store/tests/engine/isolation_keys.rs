//! Which keys reach over tenants, and that none of them tells a tenant what another has.

use std::collections::BTreeSet;

use keyward_testkit::TestDatabase;
use tokio_postgres::Client;

use crate::isolation::raw;
use crate::probed;

/// The keys of tenants' tables that do not begin with the tenant, each for a reason. Decision
/// record 0011 has them in full.
const GLOBAL_KEYS: [&str; 3] = [
    // A caller's key names its tenant only once it was found. Its id is random.
    "api_keys unique (key_id)",
    // An operator names tenants by it. A tenant's transaction can neither enter nor change one.
    "tenants unique (slug)",
    // An operator's token has no tenant. A tenant's transaction does not reach the table.
    "admin_tokens primary (admin_token_id)",
];
/// Foreign keys of tenants' tables that do not begin with the tenant.
const GLOBAL_FOREIGN_KEYS: [&str; 1] = [
    // People belong to several tenants. Only work over tenants enters a member.
    "memberships (user_id) of users",
];

const KEYS: &str = "SELECT t.relname || CASE WHEN i.indisprimary THEN ' primary (' ELSE ' unique ('
        END || (SELECT string_agg(pg_get_indexdef(i.indexrelid, place, true), ', ' ORDER BY place)
            FROM generate_series(1, i.indnkeyatts) AS place) || ')'
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
    JOIN keyward_private.isolated_table l ON l.table_name = t.relname
    WHERE t.relnamespace = 'keyward'::regnamespace AND i.indisunique
    AND l.kind IN ('tenant', 'append_only')
    AND pg_get_indexdef(i.indexrelid, 1, true) <> 'tenant_id'";
const FOREIGN_KEYS: &str = "SELECT t.relname || ' ('
        || (SELECT string_agg(attname, ', ' ORDER BY place)
            FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute ON attrelid = c.conrelid AND attnum = number)
        || ') of ' || f.relname
    FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
    JOIN pg_class f ON f.oid = c.confrelid
    JOIN keyward_private.isolated_table l ON l.table_name = t.relname
    WHERE c.contype = 'f' AND l.kind IN ('tenant', 'append_only') AND NOT EXISTS (
        SELECT FROM pg_attribute a, pg_attribute b
        WHERE a.attrelid = c.conrelid AND a.attnum = c.conkey[1] AND a.attname = 'tenant_id'
        AND b.attrelid = c.confrelid AND b.attnum = c.confkey[1] AND b.attname = 'tenant_id')";
/// Exclusion constraints collide as unique keys do, and are not looked at: there are none.
const EXCLUSIONS: &str = "SELECT conname::text FROM pg_constraint
    WHERE contype = 'x' AND connamespace = 'keyward'::regnamespace";

async fn list(client: &Client, sql: &str) -> BTreeSet<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test]
async fn every_key_of_a_tenants_table_begins_with_the_tenant_or_is_named_here() {
    let Some(database) = TestDatabase::postgres_with(probed()).await else { return };
    let client = raw(&database.superuser_url().unwrap()).await;
    assert_eq!(list(&client, KEYS).await, named(&GLOBAL_KEYS));
    assert_eq!(list(&client, FOREIGN_KEYS).await, named(&GLOBAL_FOREIGN_KEYS));
    assert_eq!(list(&client, EXCLUSIONS).await, named(&[]));
    let record = include_str!("../../../../docs/adr/0011-keys-over-tenants.md");
    for key in GLOBAL_KEYS.iter().chain(&GLOBAL_FOREIGN_KEYS) {
        assert!(record.contains(&format!("`{key}`")), "the record does not name `{key}`");
    }
}
