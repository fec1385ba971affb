-- The copy of the ledger in the lake, from which it is made again when the warehouse is lost.
CREATE TABLE IF NOT EXISTS etl.identity (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    ledger uuid NOT NULL DEFAULT gen_random_uuid()
);
COMMENT ON TABLE etl.identity IS 'Tells this ledger from others that are copied into the same lake.';
INSERT INTO etl.identity DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS etl.rebuilds (
    dataset    text PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    started_by text NOT NULL
);
COMMENT ON TABLE etl.rebuilds IS 'Datasets whose tables are being made again from the lake; nothing is loaded into them meanwhile.';

-- What is written into the ledger is marked by triggers in the same transaction, and copied after it.
CREATE OR REPLACE FUNCTION etl.mark_uncopied() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rows text := CASE TG_OP WHEN 'INSERT' THEN 'after' WHEN 'DELETE' THEN 'before'
                 ELSE '(SELECT * FROM before UNION ALL SELECT * FROM after)' END;
BEGIN
    EXECUTE format('INSERT INTO etl.uncopied (kind, dataset, id) SELECT DISTINCT %L, %s FROM %s AS r',
                   TG_ARGV[0], TG_ARGV[1], rows);
    RETURN NULL;
END $$;
DO $$
DECLARE
    made boolean := to_regclass('etl.uncopied') IS NULL;
    one  record;
BEGIN
    CREATE TABLE IF NOT EXISTS etl.uncopied (
        mark    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        kind    text NOT NULL,
        dataset text,
        id      bigint
    );
    COMMENT ON TABLE etl.uncopied IS 'What was written into the ledger since it was copied into the lake last.';
    FOR one IN SELECT * FROM (VALUES
        ('loads', 'load', 'r.dataset, r.load_id'), ('unloads', 'load', 'r.dataset, r.load_id'),
        ('source_items', 'load', 'NULL::text, r.load_id'), ('quarantine', 'load', 'NULL::text, r.load_id'),
        ('schema_changes', 'load', 'NULL::text, r.load_id'), ('profiles', 'load', 'NULL::text, r.load_id'),
        ('child_loads', 'load', 'NULL::text, r.load_id'),
        ('child_quarantine', 'load', 'NULL::text, r.load_id'), ('replays', 'load', 'NULL::text, r.load_id'),
        ('quarantine_resolutions', 'load', 'NULL::text, r.load_id'),
        ('datasets', 'dataset', 'r.dataset, NULL::bigint'),
        ('retention', 'dataset', 'r.dataset, NULL::bigint'), ('audit', 'audit', 'NULL::text, r.audit_id')
    ) AS t (name, kind, columns)
    LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER copied_insert AFTER INSERT ON etl.%I '
                       'REFERENCING NEW TABLE AS after FOR EACH STATEMENT '
                       'EXECUTE FUNCTION etl.mark_uncopied(%L, %L)', one.name, one.kind, one.columns);
        CONTINUE WHEN one.name = 'audit';  -- it is append-only
        EXECUTE format('CREATE OR REPLACE TRIGGER copied_update AFTER UPDATE ON etl.%I '
                       'REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT '
                       'EXECUTE FUNCTION etl.mark_uncopied(%L, %L)', one.name, one.kind, one.columns);
        EXECUTE format('CREATE OR REPLACE TRIGGER copied_delete AFTER DELETE ON etl.%I '
                       'REFERENCING OLD TABLE AS before FOR EACH STATEMENT '
                       'EXECUTE FUNCTION etl.mark_uncopied(%L, %L)', one.name, one.kind, one.columns);
    END LOOP;
    IF made THEN  -- a ledger that was made before there were copies
        INSERT INTO etl.uncopied (kind, dataset, id) SELECT 'load', dataset, load_id FROM etl.loads
        UNION ALL SELECT 'load', dataset, load_id FROM etl.unloads
        UNION ALL SELECT DISTINCT 'dataset', dataset, NULL::bigint FROM etl.datasets
        UNION ALL SELECT 'audit', NULL, audit_id FROM etl.audit;
    END IF;
END $$;
