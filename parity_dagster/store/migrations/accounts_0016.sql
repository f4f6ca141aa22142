DO $do$
DECLARE
    name text := CASE '{state_table}' WHEN 'parity_import_states' THEN 'accounts' ELSE '{state_table}_accounts' END;
BEGIN
    IF to_regclass(quote_ident(current_schema()) || '.' || quote_ident(name)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE 'CREATE VIEW ' || quote_ident(name) || $view$ AS
SELECT s.did, i.handle, i.handle_verified_at IS NOT NULL AS handle_verified,
       coalesce(i.pds, s.pds) AS pds,
       CASE WHEN s.gone_at >= coalesce(s.last_seen_at, '-infinity') THEN s.gone
            WHEN s.last_seen_at IS NOT NULL THEN 'active' END AS status,
       s.last_seen_at, s.records, s.pairs, s.pairs_completed, s.pairs_failed, s.stalest_at
  FROM (SELECT s.did, max(s.pds) AS pds, max(greatest(s.completed_at, s.confirmed_at)) AS last_seen_at,
               max(s.updated_at) FILTER (WHERE s.error_code IN ('account_unavailable', 'deactivated', 'deleted', 'did_not_found', 'repo_not_found', 'suspended', 'takendown')) AS gone_at,
               (array_agg(s.error_code ORDER BY s.updated_at DESC)
                FILTER (WHERE s.error_code IN ('account_unavailable', 'deactivated', 'deleted', 'did_not_found', 'repo_not_found', 'suspended', 'takendown')))[1] AS gone,
               sum(s.records_synced)::bigint AS records, count(*) AS pairs,
               count(*) FILTER (WHERE s.status = 'completed') AS pairs_completed,
               count(*) FILTER (WHERE s.status = 'failed') AS pairs_failed,
               min(greatest(s.completed_at, s.confirmed_at)) AS stalest_at
          FROM "{state_table}" s GROUP BY s.did) s
  LEFT JOIN parity_identities i ON i.did = s.did
$view$;
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.did IS ' || quote_literal($$Account$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.handle IS ' || quote_literal($$Handle that its DID document claims; null if it claims none, or was not looked up yet$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.handle_verified IS ' || quote_literal($$Whether that handle was looked up and led to this account$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.pds IS ' || quote_literal($$Host of its repository$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.status IS ' || quote_literal($$active, or why it was not to be had when it was last asked for; null if it never was$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.last_seen_at IS ' || quote_literal($$When one of its complete copies was last read, or confirmed by its host$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.records IS ' || quote_literal($$Records stored by the last walk of each of its pairs$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.pairs IS ' || quote_literal($$Collections of it that are imported or wanted$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.pairs_completed IS ' || quote_literal($$Those that are complete$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.pairs_failed IS ' || quote_literal($$Those whose last attempt failed$$);
    EXECUTE 'COMMENT ON COLUMN ' || quote_ident(name) || '.stalest_at IS ' || quote_literal($$When the stalest of its complete copies was read or confirmed$$);
    EXECUTE 'COMMENT ON VIEW ' || quote_ident(name) || ' IS ' || quote_literal($$Accounts, one row each, over their pairs and identities. [parity_dagster 6f1b12f85804]$$);
END
$do$
