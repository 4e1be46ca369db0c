-- The tenant's bound inside PostgreSQL, for the case that everything above it fails.
--
-- A transaction carries a context, set locally: 64 hex digits of HMAC-SHA-256 over
-- '{backend pid}:{name}', then the name, which is a tenant's id or '*' for work over tenants.
-- The application role can set any text, but only the node knows the key, so that even raw SQL
-- as that role stays in the tenant of its transaction.

CREATE SCHEMA keyward_private;
REVOKE ALL ON SCHEMA keyward_private FROM PUBLIC;

-- The HMAC key, already mixed with the inner and outer pad: sha256() is all that is needed then.
CREATE TABLE keyward_private.context_key (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    inner_pad BYTEA NOT NULL CHECK (octet_length(inner_pad) = 64),
    outer_pad BYTEA NOT NULL CHECK (octet_length(outer_pad) = 64)
);

CREATE FUNCTION keyward.current_tenant() RETURNS TEXT
LANGUAGE plpgsql STABLE SECURITY DEFINER
-- In a parallel worker pg_backend_pid() is the worker's.
PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    context TEXT := current_setting('keyward.context', true);
    given TEXT := left(context, 64);
    tenant TEXT := substr(context, 65);
    expected TEXT;
BEGIN
    IF context IS NULL OR context = '' THEN
        RAISE EXCEPTION 'no tenant context' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT encode(
        sha256(outer_pad || sha256(
            inner_pad || convert_to(pg_backend_pid() || ':' || tenant, 'UTF8'))), 'hex')
    INTO expected FROM keyward_private.context_key;
    -- Sums are compared, so that the time taken tells nothing about the expected value.
    IF expected IS NULL OR tenant = ''
        OR sha256(convert_to(given, 'UTF8')) <> sha256(convert_to(expected, 'UTF8')) THEN
        RAISE EXCEPTION 'bad tenant context' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN tenant;
END
$$;
REVOKE ALL ON FUNCTION keyward.current_tenant() FROM PUBLIC;

-- Every table of the schema but the migrations' history, and what the application may do there.
CREATE TABLE keyward_private.isolated_table (
    table_name NAME PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('tenant', 'append_only', 'shared', 'system'))
);

-- Puts a table behind the context. A later migration that adds a table adds one CALL.
--   tenant       rows of the tenant named by the column
--   append_only  the same, and rows can only be added
--   shared       rows of no tenant, made by a migration; any valid context may update them
--   system       work over tenants only
CREATE PROCEDURE keyward_private.isolate(
    table_name NAME, kind TEXT, tenant_column NAME DEFAULT 'tenant_id')
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The subquery makes it an init plan: it runs once per statement, not once per row. With
    -- IN (…) it would be copied and run twice.
    visible TEXT := CASE kind
        WHEN 'shared' THEN '(SELECT keyward.current_tenant()) IS NOT NULL'
        WHEN 'system' THEN '(SELECT keyward.current_tenant()) = ''*'''
        ELSE format('(SELECT keyward.current_tenant()) = ANY (ARRAY[%I, ''*''])', tenant_column)
    END;
BEGIN
    INSERT INTO keyward_private.isolated_table VALUES (table_name, kind);
    EXECUTE format('ALTER TABLE keyward.%I ENABLE ROW LEVEL SECURITY', table_name);
    EXECUTE format('ALTER TABLE keyward.%I FORCE ROW LEVEL SECURITY', table_name);
    EXECUTE format('CREATE POLICY context ON keyward.%I USING (%s) WITH CHECK (%s)',
        table_name, visible, visible);
END
$$;

-- Gives the application role what it needs and nothing else; run after every migration.
CREATE PROCEDURE keyward_private.grant_application(application NAME)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    isolated RECORD;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA keyward TO %I', application);
    EXECUTE format('GRANT EXECUTE ON FUNCTION keyward.current_tenant() TO %I', application);
    EXECUTE format('GRANT SELECT ON keyward.schema_history TO %I', application);
    FOR isolated IN SELECT * FROM keyward_private.isolated_table LOOP
        EXECUTE format('REVOKE ALL ON keyward.%I FROM PUBLIC, %I',
            isolated.table_name, application);
        EXECUTE format('GRANT %s ON keyward.%I TO %I',
            CASE isolated.kind
                WHEN 'append_only' THEN 'SELECT, INSERT'
                WHEN 'shared' THEN 'SELECT, UPDATE'
                ELSE 'SELECT, INSERT, UPDATE, DELETE'
            END, isolated.table_name, application);
    END LOOP;
END
$$;

-- The tables of V0001.
CALL keyward_private.isolate('tenants', 'tenant');
CALL keyward_private.isolate('memberships', 'tenant');
CALL keyward_private.isolate('api_keys', 'tenant');
CALL keyward_private.isolate('admin_tokens', 'tenant');
CALL keyward_private.isolate('setup_links', 'system');
CALL keyward_private.isolate('audit_heads', 'tenant');
CALL keyward_private.isolate('audit_events', 'append_only');
CALL keyward_private.isolate('authority', 'shared');
CALL keyward_private.isolate('changes', 'append_only');
CALL keyward_private.isolate('idempotency_records', 'tenant');

-- People belong to no tenant. A tenant sees those who are its members and changes none.
CALL keyward_private.isolate('users', 'system');
CREATE POLICY members ON keyward.users FOR SELECT USING (user_id IN (
    SELECT m.user_id FROM keyward.memberships m
    WHERE m.tenant_id = (SELECT keyward.current_tenant())));
