-- A key that was seen where others may have seen it too says since when, and how.
ALTER TABLE api_keys ADD COLUMN exposed_at INTEGER;
ALTER TABLE api_keys ADD COLUMN exposed_by TEXT;
