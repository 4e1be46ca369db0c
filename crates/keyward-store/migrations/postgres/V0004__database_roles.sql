-- Roles of their own for control, gateway and worker nodes. Which rights each kind of node needs
-- stands in the binary, which also compares them with what a role has when it starts; here is how
-- they are given. Run as the owner, after every migration.

-- Takes everything back, so that what follows gives exactly what is needed. All in one
-- transaction: a node that runs meanwhile notices nothing.
CREATE PROCEDURE keyward_private.withdraw(grantee NAME)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind TEXT;
BEGIN
    FOREACH kind IN ARRAY ARRAY['TABLES', 'SEQUENCES', 'ROUTINES'] LOOP
        EXECUTE format('REVOKE ALL ON ALL %s IN SCHEMA keyward, keyward_private '
            'FROM PUBLIC, %I CASCADE', kind, grantee);
    END LOOP;
    EXECUTE format('REVOKE ALL ON SCHEMA keyward, keyward_private '
        'FROM PUBLIC, %I CASCADE', grantee);
END
$$;

-- A control node: every row of every table, as far as the kind of the table allows.
CREATE PROCEDURE keyward_private.grant_control(grantee NAME)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    CALL keyward_private.withdraw(grantee);
    CALL keyward_private.grant_application(grantee);
END
$$;

-- A node that needs less: the rights that are listed, as [{"table", "privilege", "columns"}];
-- without columns, the whole table.
CREATE PROCEDURE keyward_private.grant_rights(grantee NAME, rights JSONB)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    entry RECORD;
    listed TEXT;
BEGIN
    CALL keyward_private.withdraw(grantee);
    EXECUTE format('GRANT USAGE ON SCHEMA keyward TO %I', grantee);
    EXECUTE format('GRANT EXECUTE ON FUNCTION keyward.current_tenant() TO %I', grantee);
    FOR entry IN
        SELECT r.element ->> 'table' AS table_name, r.element ->> 'privilege' AS privilege,
            nullif(r.element -> 'columns', 'null') AS columns
        FROM jsonb_array_elements(rights) AS r (element)
    LOOP
        IF entry.privilege NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') THEN
            RAISE EXCEPTION 'no node needs %', entry.privilege;
        END IF;
        SELECT '(' || string_agg(quote_ident(c.name), ', ') || ')' INTO listed
        FROM jsonb_array_elements_text(entry.columns) AS c (name);
        EXECUTE format('GRANT %s %s ON keyward.%I TO %I',
            entry.privilege, coalesce(listed, ''), entry.table_name, grantee);
    END LOOP;
END
$$;
