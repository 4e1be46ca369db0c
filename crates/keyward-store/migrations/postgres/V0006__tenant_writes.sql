-- A tenant's own transaction could so far write some rows whose meaning goes beyond the tenant. No
-- statement of the program did; SQL of somebody else's in its place could:
--   enter any user as a member, and read that person's row by it;
--   set the epoch or the incarnation, which all nodes go by;
--   enter changes that no node can read, or that speak of others;
--   learn from a refusal which slugs and admin tokens exist.
-- The program writes all of these in work over tenants ('*') already.

CREATE FUNCTION keyward_private.refuse_to_tenants() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Whom row level security does not bind (a superuser who repairs) is not bound here either.
    IF row_security_active(TG_RELID) AND keyward.current_tenant() <> '*' THEN
        RAISE EXCEPTION 'only work over tenants may change this of %', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION keyward_private.refuse_to_tenants() FROM PUBLIC;

-- Who is a member decides which users a tenant sees. A tenant changes roles and ends memberships.
CREATE POLICY entered_over_tenants ON keyward.memberships AS RESTRICTIVE FOR INSERT
    WITH CHECK ((SELECT keyward.current_tenant()) = '*');
CREATE TRIGGER keeps_its_user BEFORE UPDATE OF user_id ON keyward.memberships
    FOR EACH ROW WHEN (NEW.user_id IS DISTINCT FROM OLD.user_id)
    EXECUTE FUNCTION keyward_private.refuse_to_tenants();

-- Slugs are unique over all tenants.
CREATE POLICY entered_over_tenants ON keyward.tenants AS RESTRICTIVE FOR INSERT
    WITH CHECK ((SELECT keyward.current_tenant()) = '*');
CREATE POLICY removed_over_tenants ON keyward.tenants AS RESTRICTIVE FOR DELETE
    USING ((SELECT keyward.current_tenant()) = '*');
CREATE TRIGGER keeps_its_slug BEFORE UPDATE OF slug ON keyward.tenants
    FOR EACH ROW WHEN (NEW.slug IS DISTINCT FROM OLD.slug)
    EXECUTE FUNCTION keyward_private.refuse_to_tenants();

-- An admin token may be the operator's; it is made, found and revoked over tenants.
CREATE POLICY over_tenants ON keyward.admin_tokens AS RESTRICTIVE
    USING ((SELECT keyward.current_tenant()) = '*');

-- In a tenant's transaction the epoch goes one forward, and nothing else moves.
CREATE TRIGGER goes_one_forward BEFORE UPDATE ON keyward.authority
    FOR EACH ROW WHEN (NEW.epoch IS DISTINCT FROM OLD.epoch + 1
        OR (NEW.singleton, NEW.incarnation, NEW.timeline)
            IS DISTINCT FROM (OLD.singleton, OLD.incarnation, OLD.timeline))
    EXECUTE FUNCTION keyward_private.refuse_to_tenants();

-- Every node reads every change. A tenant's speak of its own rows, under the epoch of now.
CREATE POLICY of_its_own ON keyward.changes AS RESTRICTIVE FOR INSERT
    WITH CHECK ((SELECT keyward.current_tenant()) = '*' OR (
        epoch = (SELECT a.epoch FROM keyward.authority a WHERE a.singleton = 1)
        AND CASE kind
            WHEN 'tenant' THEN subject = tenant_id
            WHEN 'key' THEN EXISTS (SELECT FROM keyward.api_keys k
                WHERE k.tenant_id = changes.tenant_id AND k.key_id = subject)
            WHEN 'member' THEN EXISTS (SELECT FROM keyward.memberships m
                WHERE m.tenant_id = changes.tenant_id AND m.user_id = subject)
            ELSE false
        END));
