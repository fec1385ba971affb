-- name: fences
-- How often the dataset was opened, by runs of any purpose.
SELECT coalesce(sum(fence), 0) FROM etl.datasets WHERE dataset = %(dataset)s;

-- name: database_collation
-- The order of texts in this database.
SELECT datcollate FROM pg_database WHERE datname = current_database();

-- name: audit_append
-- Append to the audit; who changes or takes out a line afterwards breaks the chain of hashes.
SELECT etl.append_audit(%(actor)s, %(action)s, %(dataset)s, %(load_id)s, %(reason)s, %(details)s);

-- name: audit_broken
-- Lines of the audit whose hash is not that of what they say after the line before them.
SELECT audit_id FROM (
    SELECT a.audit_id, a.hash, etl.audit_hash(a) AS made, a.previous,
           coalesce(lag(a.hash) OVER (ORDER BY a.audit_id), '') AS before
    FROM etl.audit a) c
WHERE c.hash <> c.made OR c.previous <> c.before ORDER BY audit_id;

-- name: audit_head
-- The last line that was appended, and the last one that is there.
SELECT h.hash, coalesce((SELECT a.hash FROM etl.audit a ORDER BY a.audit_id DESC LIMIT 1), '')
FROM etl.audit_head h;

-- name: raise_fences
-- Take a dataset over from every run that is under way, whatever its purpose.
UPDATE etl.datasets SET fence = fence + 1, run = %(run)s, opened_at = now()
WHERE dataset = %(dataset)s;

-- name: find_unload
-- A load that was taken back already.
SELECT unloaded_at, unloaded_by, rows_deleted, rows_restored, excluded FROM etl.unloads
WHERE dataset = %(dataset)s AND load_id = %(load_id)s;

-- name: replays_of
-- Loads that are replays of rows that a load refused.
SELECT load_id FROM etl.replays WHERE origin_load_id = %(load_id)s ORDER BY load_id;

-- name: is_replay
-- Is a load a replay of rows that were refused before?
SELECT 1 FROM etl.replays WHERE load_id = %(load_id)s;

-- name: keep_unload
-- All that the ledger says of a load that is taken back.
INSERT INTO etl.unloads (load_id, dataset, fingerprint, excluded, unloaded_by, reason, rows_deleted,
                         rows_restored, load, quarantine, items, recounted)
SELECT l.load_id, l.dataset, l.fingerprint, %(excluded)s, %(by)s, %(reason)s, %(deleted)s,
       %(restored)s, to_jsonb(l) || jsonb_build_object('children', coalesce(
           (SELECT jsonb_agg(to_jsonb(c)) FROM etl.child_loads c WHERE c.load_id = l.load_id), '[]')),
       coalesce((SELECT jsonb_agg(to_jsonb(q)) FROM etl.quarantine q WHERE q.load_id = l.load_id), '[]'),
       coalesce((SELECT jsonb_agg(to_jsonb(i)) FROM etl.source_items i WHERE i.load_id = l.load_id), '[]'),
       %(recounted)s
FROM etl.loads l WHERE l.load_id = %(load_id)s;

-- name: forget_load
-- Take a load out of the ledger; replays, profiles and resolutions go with it.
DELETE FROM etl.source_items WHERE load_id = %(load_id)s;
DELETE FROM etl.quarantine WHERE load_id = %(load_id)s;
DELETE FROM etl.loads WHERE load_id = %(load_id)s;

-- name: recount_load
-- What a load did, now that one before it is taken back.
UPDATE etl.loads SET rows_inserted = rows_inserted + %(inserted)s,
       rows_updated = rows_updated + %(updated)s, rows_unchanged = rows_unchanged + %(unchanged)s,
       rows_deleted = rows_deleted + %(deleted)s, rows_restored = rows_restored + %(restored)s
WHERE load_id = %(load_id)s;

-- name: recount_child
-- What a load did to a child table, now that one before it is taken back.
UPDATE etl.child_loads SET rows_inserted = rows_inserted + %(inserted)s,
       rows_updated = rows_updated + %(updated)s, rows_unchanged = rows_unchanged + %(unchanged)s,
       rows_deleted = rows_deleted + %(deleted)s, rows_restored = rows_restored + %(restored)s
WHERE load_id = %(load_id)s AND child = %(child)s;

-- name: child_counts
-- What each load did to each child table of a dataset.
SELECT c.load_id, c.child, c.rows_read, c.rows_inserted, c.rows_updated, c.rows_unchanged,
       c.rows_deduplicated, c.rows_quarantined, c.rows_deleted, c.rows_restored
FROM etl.child_loads c JOIN etl.loads l USING (load_id) WHERE l.dataset = %(dataset)s;

-- name: loaded_items
-- The objects, and parts of objects, that the loads of a dataset stand for.
SELECT load_id, uri, version, part FROM etl.source_items WHERE dataset = %(dataset)s;

-- name: replay_loads
-- Loads of a dataset whose rows were refused before.
SELECT r.load_id FROM etl.replays r JOIN etl.loads l USING (load_id) WHERE l.dataset = %(dataset)s;

-- name: temporary_tables
-- The temporary tables of this session that loads make.
SELECT relname::text FROM pg_class
WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r' AND relname LIKE 'etl\_%%';

-- name: retirements
-- What retention took away of a dataset, in the order in which it did.
SELECT after_load, range_from, range_to, rows FROM etl.retention
WHERE dataset = %(dataset)s ORDER BY retention_id;
