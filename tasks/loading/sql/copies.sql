-- name: lock_copies
-- Copying is one at a time, so that no older copy takes the place of a newer one.
SELECT pg_advisory_xact_lock(hashtextextended('etl:copies', 0));

-- name: try_lock_copies
-- As above, unless somebody else is at it.
SELECT pg_try_advisory_xact_lock(hashtextextended('etl:copies', 0));

-- name: take_marks
-- What is to be copied; it is forgotten with the transaction that copies it. While a part of the
-- ledger is made again from its copy, there is less in it than in the copy: then nothing is copied.
WITH taken AS (DELETE FROM etl.uncopied WHERE NOT EXISTS (SELECT FROM etl.rebuilds)
               RETURNING kind, dataset, id)
SELECT DISTINCT t.kind, coalesce(t.dataset, l.dataset, u.dataset), t.id
FROM taken t LEFT JOIN etl.loads l ON t.kind = 'load' AND l.load_id = t.id
LEFT JOIN etl.unloads u ON t.kind = 'load' AND u.load_id = t.id;

-- name: uncopied_loads
-- Loads of a dataset that wait to be copied.
SELECT DISTINCT id FROM etl.uncopied WHERE kind = 'load';

-- name: ledger_identity
-- What tells this ledger from others.
SELECT ledger::text FROM etl.identity;

-- name: adopt_identity
-- Become the ledger that is made again.
UPDATE etl.identity SET ledger = %(ledger)s::uuid;

-- name: has_loads
-- Was anything ever loaded into this warehouse?
SELECT EXISTS (SELECT FROM etl.loads) OR EXISTS (SELECT FROM etl.unloads);

-- name: known_loads
-- Loads of a dataset that the ledger has, or had.
SELECT load_id FROM etl.loads WHERE dataset = %(dataset)s
UNION SELECT load_id FROM etl.unloads WHERE dataset = %(dataset)s;

-- name: load_copies
-- All that the ledger says of some loads, each as one document.
SELECT i.id, jsonb_build_object(
    'loads', (SELECT jsonb_agg(to_jsonb(t)) FROM etl.loads t WHERE t.load_id = i.id),
    'unloads', (SELECT jsonb_agg(to_jsonb(t)) FROM etl.unloads t WHERE t.load_id = i.id),
    'source_items', (SELECT jsonb_agg(to_jsonb(t)) FROM etl.source_items t WHERE t.load_id = i.id),
    'quarantine', (SELECT jsonb_agg(to_jsonb(t)) FROM etl.quarantine t WHERE t.load_id = i.id),
    'schema_changes', (SELECT jsonb_agg(to_jsonb(t)) FROM etl.schema_changes t WHERE t.load_id = i.id),
    'child_loads', (SELECT jsonb_agg(to_jsonb(t)) FROM etl.child_loads t WHERE t.load_id = i.id),
    'child_quarantine',
        (SELECT jsonb_agg(to_jsonb(t)) FROM etl.child_quarantine t WHERE t.load_id = i.id),
    'replays', (SELECT jsonb_agg(to_jsonb(t)) FROM etl.replays t WHERE t.load_id = i.id),
    'profiles', (SELECT jsonb_agg(to_jsonb(t)) FROM etl.profiles t WHERE t.load_id = i.id),
    'quarantine_resolutions',
        (SELECT jsonb_agg(to_jsonb(t)) FROM etl.quarantine_resolutions t WHERE t.load_id = i.id))::text
FROM unnest(%(ids)s::bigint[]) AS i (id);

-- name: dataset_copy
-- What the ledger says of a dataset as a whole.
SELECT jsonb_build_object(
    'datasets', (SELECT jsonb_agg(to_jsonb(t)) FROM etl.datasets t WHERE t.dataset = %(dataset)s),
    'retention', (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.retention_id) FROM etl.retention t
                  WHERE t.dataset = %(dataset)s))::text;

-- name: audit_copies
-- Lines of the audit, each as one document.
SELECT audit_id, jsonb_build_object('audit', jsonb_build_array(to_jsonb(a)))::text
FROM etl.audit a WHERE audit_id = ANY(%(ids)s);

-- name: begin_rebuild
-- From now on no run opens the dataset.
INSERT INTO etl.rebuilds (dataset, started_by) VALUES (%(dataset)s, %(by)s) ON CONFLICT DO NOTHING;

-- name: end_rebuild
-- Runs may open the dataset again.
DELETE FROM etl.rebuilds WHERE dataset = %(dataset)s;

-- name: rebuild_of
-- Is a dataset being made again from the lake, and by whom?
SELECT started_by, started_at FROM etl.rebuilds WHERE dataset = %(dataset)s;

-- name: audit_is_empty
-- Was nothing ever written into the audit?
SELECT NOT EXISTS (SELECT FROM etl.audit);

-- name: restore_audit_head
-- The audit ends with its last line.
UPDATE etl.audit_head SET hash = coalesce((SELECT hash FROM etl.audit ORDER BY audit_id DESC LIMIT 1), '');

-- name: advance_ids
-- Ids that were given before are not given again.
SELECT setval(pg_get_serial_sequence('etl.loads', 'load_id'), greatest(%(loads)s,
              (SELECT last_value FROM pg_sequences WHERE schemaname = 'etl'
               AND sequencename = 'loads_load_id_seq'), 1)),
       setval(pg_get_serial_sequence('etl.audit', 'audit_id'),
              greatest((SELECT max(audit_id) FROM etl.audit), 1)),
       setval(pg_get_serial_sequence('etl.retention', 'retention_id'),
              greatest((SELECT max(retention_id) FROM etl.retention), 1));
