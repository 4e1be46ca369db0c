-- Times are milliseconds since the epoch. JSON is text. Ids are in their wire form.

CREATE TABLE tenants (
  tenant_id      TEXT NOT NULL PRIMARY KEY,
  slug           TEXT NOT NULL UNIQUE,
  name           TEXT NOT NULL,
  created_at     INTEGER NOT NULL,
  suspended_at   INTEGER,
  suspend_reason TEXT
) STRICT, WITHOUT ROWID;

-- Users are global: a person may belong to several tenants. A service account belongs to one.
CREATE TABLE users (
  user_id       TEXT NOT NULL PRIMARY KEY,
  kind          TEXT NOT NULL CHECK (kind IN ('person', 'service')),
  email         TEXT UNIQUE,
  name          TEXT NOT NULL,
  administrator INTEGER NOT NULL DEFAULT 0,
  password_hash TEXT,
  created_at    INTEGER NOT NULL,
  CHECK ((kind = 'person') = (email IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE memberships (
  tenant_id     TEXT NOT NULL REFERENCES tenants (tenant_id),
  user_id       TEXT NOT NULL REFERENCES users (user_id),
  role          TEXT NOT NULL,
  created_at    INTEGER NOT NULL,
  offboarded_at INTEGER,
  PRIMARY KEY (tenant_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX memberships_by_user ON memberships (user_id);
CREATE INDEX memberships_by_creation
  ON memberships (tenant_id, created_at DESC, user_id DESC);

CREATE TABLE api_keys (
  tenant_id       TEXT NOT NULL,
  key_id          TEXT NOT NULL UNIQUE,
  environment     TEXT NOT NULL,
  name            TEXT NOT NULL,
  description     TEXT NOT NULL,
  hint            TEXT NOT NULL,
  hash            BLOB NOT NULL,
  pepper_version  INTEGER NOT NULL,
  scopes          TEXT NOT NULL,
  owner_id        TEXT NOT NULL,
  created_by      TEXT NOT NULL,
  created_at      INTEGER NOT NULL,
  expires_at      INTEGER,
  revoked_at      INTEGER,
  revoke_reason   TEXT,
  ip_allowlist    TEXT NOT NULL,
  rate_limit      TEXT,
  lineage_id      TEXT NOT NULL,
  rotated_from    TEXT,
  replaced_by     TEXT,
  deleted_at      INTEGER,
  last_used_at    INTEGER,
  last_used_ip    TEXT,
  last_used_agent TEXT,
  PRIMARY KEY (tenant_id, key_id),
  FOREIGN KEY (tenant_id, owner_id) REFERENCES memberships (tenant_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_by_creation ON api_keys (tenant_id, created_at DESC, key_id DESC);
CREATE INDEX api_keys_by_owner ON api_keys (tenant_id, owner_id);

CREATE TABLE admin_tokens (
  admin_token_id TEXT NOT NULL PRIMARY KEY,
  name           TEXT NOT NULL,
  hint           TEXT NOT NULL,
  hash           BLOB NOT NULL,
  pepper_version INTEGER NOT NULL,
  tenant_id      TEXT REFERENCES tenants (tenant_id),
  role           TEXT,
  scopes         TEXT NOT NULL,
  created_by     TEXT NOT NULL,
  created_at     INTEGER NOT NULL,
  expires_at     INTEGER,
  revoked_at     INTEGER,
  CHECK ((tenant_id IS NULL) = (role IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE setup_links (
  setup_link_id TEXT NOT NULL PRIMARY KEY,
  hash          BLOB NOT NULL,
  created_at    INTEGER NOT NULL,
  expires_at    INTEGER NOT NULL,
  used_at       INTEGER
) STRICT, WITHOUT ROWID;

-- One chain per tenant, and one for what belongs to no tenant ('operator').
CREATE TABLE audit_heads (
  tenant_id TEXT NOT NULL PRIMARY KEY,
  sequence  INTEGER NOT NULL,
  hash      BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_events (
  tenant_id      TEXT NOT NULL,
  sequence       INTEGER NOT NULL,
  audit_event_id TEXT NOT NULL,
  at             INTEGER NOT NULL,
  actor_kind     TEXT NOT NULL,
  actor_id       TEXT NOT NULL,
  actor_name     TEXT NOT NULL,
  actor_role     TEXT,
  request_id     TEXT,
  ip             TEXT,
  user_agent     TEXT,
  action         TEXT NOT NULL,
  target_kind    TEXT NOT NULL,
  target_id      TEXT NOT NULL,
  outcome        TEXT NOT NULL,
  details        TEXT NOT NULL,
  previous_hash  BLOB NOT NULL,
  hash           BLOB NOT NULL,
  PRIMARY KEY (tenant_id, sequence),
  UNIQUE (tenant_id, audit_event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_events_by_target ON audit_events (tenant_id, target_id, sequence DESC);

-- What changed in the authority to call, in commit order. The epoch is taken last, under a lock
-- held to commit, so it has no gaps and no reader can pass one by.
CREATE TABLE authority (
  singleton   INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
  epoch       INTEGER NOT NULL,
  incarnation INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO authority (singleton, epoch, incarnation) VALUES (1, 0, 1);

CREATE TABLE changes (
  tenant_id TEXT NOT NULL,
  epoch     INTEGER NOT NULL,
  position  INTEGER NOT NULL,
  kind      TEXT NOT NULL,
  subject   TEXT NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, epoch, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX changes_by_epoch ON changes (epoch);

CREATE TABLE idempotency_records (
  tenant_id       TEXT NOT NULL,
  principal       TEXT NOT NULL,
  operation       TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  fingerprint     BLOB NOT NULL,
  body            TEXT,
  created_at      INTEGER NOT NULL,
  expires_at      INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, principal, operation, idempotency_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_records_by_expiry ON idempotency_records (expires_at);
