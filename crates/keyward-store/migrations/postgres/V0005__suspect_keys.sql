-- A key that a restore could not vouch for is refused until somebody confirms it.
ALTER TABLE api_keys ADD COLUMN suspect_since BIGINT;
CREATE INDEX api_keys_suspect ON api_keys (tenant_id, key_id) WHERE suspect_since IS NOT NULL;
