-- The processes that may decide from memory. `renewals` numbers a node's renewals and never comes
-- back; `hold_ms` is how long the node may go on after one. Times are for people only: no rule
-- compares the clocks of two machines.
CREATE TABLE nodes (
  node_id       TEXT NOT NULL PRIMARY KEY,
  roles         TEXT NOT NULL,
  version       TEXT NOT NULL,
  renewals      BIGINT NOT NULL,
  applied_epoch BIGINT NOT NULL,
  hold_ms       BIGINT NOT NULL,
  started_at    BIGINT NOT NULL,
  renewed_at    BIGINT NOT NULL
) WITH (fillfactor = 50);
-- Updated several times a second by every node: room for it on the page, and an early vacuum.
ALTER TABLE nodes SET (autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- The server's own history: another one means that a standby was promoted.
ALTER TABLE authority ADD COLUMN timeline BIGINT;

CALL keyward_private.isolate('nodes', 'system');
-- A change of any tenant lists the nodes it must reach.
CREATE POLICY listed ON keyward.nodes FOR SELECT
  USING ((SELECT keyward.current_tenant()) IS NOT NULL);
