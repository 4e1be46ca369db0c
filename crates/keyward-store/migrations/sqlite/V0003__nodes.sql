-- The processes that may decide from memory. One process has this database, so nobody registers
-- here; the table is kept for one schema on both engines.
CREATE TABLE nodes (
  node_id       TEXT NOT NULL PRIMARY KEY,
  roles         TEXT NOT NULL,
  version       TEXT NOT NULL,
  renewals      BIGINT NOT NULL,
  applied_epoch BIGINT NOT NULL,
  hold_ms       BIGINT NOT NULL,
  started_at    BIGINT NOT NULL,
  renewed_at    BIGINT NOT NULL
);
-- The server's own history, when it tells: another one means that a standby was promoted.
ALTER TABLE authority ADD COLUMN timeline INTEGER;
