-- name: ledger_version
-- The comment of the ledger's schema, which ends with its version; empty if there is no ledger.
SELECT coalesce(obj_description(to_regnamespace('etl'), 'pg_namespace'), '');

-- name: schema_exists
-- Is a schema there? Reading the catalog itself, the session takes notice of what others committed.
SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s);

-- name: wait_for_turn
-- Publishing into a table is one at a time. The wait ends with the statement's time limit, not with
-- that of locks: those before us may take their time, and one that hangs is ended by the server.
SELECT set_config('etl.lock_timeout', current_setting('lock_timeout'), true),
       set_config('lock_timeout', '0', true);
SELECT pg_advisory_xact_lock(hashtextextended(%(table)s, 0));
SELECT set_config('lock_timeout', current_setting('etl.lock_timeout'), true);

-- name: open_dataset
-- Take over a dataset: of the runs of one purpose, the one that raised the fence last may publish.
INSERT INTO etl.datasets AS d (dataset, purpose, fence, run)
VALUES (%(dataset)s, %(purpose)s, 1, %(run)s)
ON CONFLICT (dataset, purpose) DO UPDATE SET fence = d.fence + 1, run = excluded.run, opened_at = now()
RETURNING fence;

-- name: join_dataset
-- Own a dataset beside the runs of this purpose that own it: the fence stays where it is.
INSERT INTO etl.datasets AS d (dataset, purpose, fence, run)
VALUES (%(dataset)s, %(purpose)s, 1, %(run)s)
ON CONFLICT (dataset, purpose) DO UPDATE SET run = excluded.run, opened_at = now()
RETURNING fence;

-- name: read_fence
-- Read the fence and keep it from being raised until the transaction ends.
SELECT fence, run FROM etl.datasets
WHERE dataset = %(dataset)s AND purpose = %(purpose)s FOR SHARE;

-- name: loaded_meanwhile
-- Numbers of the items, of those given, that were loaded since they were planned, or other versions of
-- them. Each part of an object is an item of its own.
SELECT i.number
FROM unnest(%(uris)s::text[], %(versions)s::text[], %(parts)s::text[])
     WITH ORDINALITY AS i (uri, version, part, number)
WHERE EXISTS (
    SELECT 1 FROM etl.source_items AS s
    WHERE s.dataset = %(dataset)s AND s.uri = i.uri
      AND (s.version = i.version AND s.part IN (i.part, '')
           OR s.version <> i.version AND s.load_id > %(planned_after)s))
ORDER BY i.number;

-- name: find_load
-- The ledger row of a partition, if it was loaded.
SELECT load_id, rows_read, rows_inserted, rows_updated, rows_unchanged, rows_deduplicated,
       rows_quarantined, rows_deleted, rows_restored, seconds
FROM etl.loads WHERE dataset = %(dataset)s AND fingerprint = %(fingerprint)s;

-- name: next_load_id
-- The id that the rows of this load carry.
SELECT nextval(pg_get_serial_sequence('etl.loads', 'load_id'));

-- name: insert_load
-- The ledger row; it commits with the rows it stands for.
INSERT INTO etl.loads (
    load_id, dataset, fingerprint, label, run, target, rows_read, rows_inserted, rows_updated,
    rows_unchanged, rows_deduplicated, rows_quarantined, rows_deleted, rows_restored, manifest_key,
    manifest_digest, config_hash, code_version, source_state, source_bytes,
    rows_staged, deletes_up_to, slice, refresh, seconds)
OVERRIDING SYSTEM VALUE VALUES (
    %(load_id)s, %(dataset)s, %(fingerprint)s, %(label)s, %(run)s, %(target)s, %(read)s,
    %(inserted)s, %(updated)s, %(unchanged)s, %(deduplicated)s, %(quarantined)s, %(deleted)s,
    %(restored)s,
    %(manifest_key)s, %(manifest_digest)s, %(config_hash)s, %(code_version)s, %(source_state)s, %(source_bytes)s,
    %(staged)s, %(deletes_up_to)s, %(slice)s, %(refresh)s, %(seconds)s);

-- name: insert_source_items
-- The objects of the partition, so that they are not planned again.
INSERT INTO etl.source_items (dataset, uri, version, part, load_id) VALUES %s;

-- name: replace_source_items
-- The objects of a partition that was asked for again; they stand for this load now.
INSERT INTO etl.source_items (dataset, uri, version, part, load_id) VALUES %s
ON CONFLICT (dataset, uri, version, part) DO UPDATE SET load_id = excluded.load_id;

-- name: insert_quarantine
-- The refused rows of the partition, by reason.
INSERT INTO etl.quarantine (
    load_id, stage, rule, column_name, rows, message, source_uri, source_row) VALUES %s;

-- name: committed_items
-- Every object, and every part of one, that a dataset has loaded.
SELECT uri, version, part FROM etl.source_items WHERE dataset = %(dataset)s
UNION
SELECT i.uri, i.version, i.part
FROM etl.unloads u CROSS JOIN jsonb_to_recordset(u.items) AS i (uri text, version text, part text)
WHERE u.dataset = %(dataset)s AND u.excluded;

-- name: committed_fingerprints
-- Every partition that a dataset has loaded.
SELECT fingerprint FROM etl.loads WHERE dataset = %(dataset)s
UNION SELECT fingerprint FROM etl.unloads WHERE dataset = %(dataset)s AND excluded;

-- name: latest_state
-- Where the next plan of a dataset goes on.
SELECT source_state FROM (
    SELECT load_id, source_state FROM etl.loads WHERE dataset = %(dataset)s
    UNION ALL
    SELECT load_id, load -> 'source_state' FROM etl.unloads
    WHERE dataset = %(dataset)s AND excluded
) s WHERE source_state <> '{}' ORDER BY load_id DESC LIMIT 1;

-- name: last_load
-- The last load of a dataset, NULL if there was none.
SELECT max(load_id) FROM etl.loads WHERE dataset = %(dataset)s;

-- name: load_sizes
-- Rows and bytes of the loads of a dataset, to estimate those of the next ones.
SELECT count(*), coalesce(sum(rows_read), 0)::bigint,
       coalesce(sum(rows_read) FILTER (WHERE source_bytes > 0), 0)::bigint,
       coalesce(sum(source_bytes), 0)::bigint
FROM etl.loads WHERE dataset = %(dataset)s;

-- name: status
-- What each dataset holds, and when it was loaded last.
SELECT dataset, target, count(*) AS loads, sum(rows_read)::bigint AS read,
       sum(rows_inserted)::bigint AS inserted, sum(rows_updated)::bigint AS updated,
       sum(rows_unchanged)::bigint AS unchanged, sum(rows_deduplicated)::bigint AS deduplicated,
       sum(rows_quarantined)::bigint AS quarantined, sum(rows_deleted)::bigint AS deleted,
       sum(rows_restored)::bigint AS restored, max(loaded_at) AS loaded_at,
       (array_agg(run ORDER BY load_id DESC))[1] AS run,
       count(DISTINCT config_hash) AS configurations,
       (array_agg(config_hash ORDER BY load_id DESC))[1] AS config_hash
FROM etl.loads GROUP BY dataset, target ORDER BY dataset;

-- name: quarantine_loads
-- Loads of a dataset, or of all, that refused rows; with what is resolved of them.
SELECT l.dataset, l.load_id, l.run, l.label, l.fingerprint, l.config_hash, l.manifest_key,
       coalesce(r.first_seen, l.loaded_at) AS first_seen,
       coalesce(r.times_replayed, 0) AS times_replayed, l.rows_quarantined,
       (SELECT count(*) FROM etl.quarantine_resolutions q
        WHERE q.load_id = l.load_id AND q.child = '') AS resolved
FROM etl.loads l LEFT JOIN etl.replays r USING (load_id)
WHERE l.rows_quarantined > 0
  AND (%(dataset)s::text IS NULL OR l.dataset = %(dataset)s) ORDER BY l.load_id;

-- name: child_quarantine_loads
-- Loads of a dataset that refused items of a child table; with what is resolved of them.
SELECT l.dataset || '.' || c.child, l.load_id, l.run, l.label, l.fingerprint, l.config_hash,
       l.manifest_key, coalesce(r.first_seen, l.loaded_at) AS first_seen,
       coalesce(r.times_replayed, 0) AS times_replayed, c.rows_quarantined,
       (SELECT count(*) FROM etl.quarantine_resolutions q
        WHERE q.load_id = l.load_id AND q.child = c.child) AS resolved
FROM etl.child_loads c JOIN etl.loads l USING (load_id)
LEFT JOIN etl.replays r ON r.load_id = c.load_id AND r.child = c.child
WHERE c.rows_quarantined > 0 AND l.dataset = %(dataset)s AND c.child = %(child)s
ORDER BY l.load_id;

-- name: quarantine_reasons
-- Refused rows by load and reason, with what is resolved of them.
SELECT l.dataset, l.load_id, q.stage, q.rule, q.column_name, q.message, q.source_uri, q.source_row,
       coalesce(r.first_seen, l.loaded_at) AS first_seen, q.rows,
       coalesce(d.replayed, 0) AS replayed, coalesce(d.discarded, 0) AS discarded
FROM etl.quarantine q JOIN etl.loads l USING (load_id) LEFT JOIN etl.replays r USING (load_id)
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE s.resolution = 'replayed') AS replayed,
           count(*) FILTER (WHERE s.resolution = 'discarded') AS discarded
    FROM etl.quarantine_resolutions s
    WHERE s.load_id = q.load_id AND s.child = '' AND s.stage = q.stage AND s.rule = q.rule
      AND s.column_name IS NOT DISTINCT FROM q.column_name
) d ON true
WHERE %(dataset)s::text IS NULL OR l.dataset = %(dataset)s ORDER BY l.dataset, l.load_id;

-- name: rows_read
-- Rows that each dataset's source gave; what was replayed came from it before.
SELECT l.dataset, sum(l.rows_read)::bigint FROM etl.loads l
WHERE NOT EXISTS (SELECT 1 FROM etl.replays r WHERE r.load_id = l.load_id) GROUP BY l.dataset
UNION ALL
SELECT l.dataset || '.' || c.child, sum(c.rows_read)::bigint
FROM etl.child_loads c JOIN etl.loads l USING (load_id)
WHERE NOT EXISTS (SELECT 1 FROM etl.replays r WHERE r.load_id = c.load_id AND r.child = c.child)
GROUP BY l.dataset, c.child;

-- name: resolutions_of_load
-- What became of the refused rows of a load, or of its refused items of a child table.
SELECT row_number, resolution, reason, resolved_by, resolved_at, replay_load_id
FROM etl.quarantine_resolutions WHERE load_id = %(load_id)s AND child = %(child)s;

-- name: insert_replay
-- This load is a replay of rows of another one.
INSERT INTO etl.replays (load_id, origin_load_id, first_seen, times_replayed, child)
VALUES (%(load_id)s, %(origin)s, %(first_seen)s, %(times_replayed)s, %(child)s);

-- name: resolve_span
-- Rows of a load are resolved, once: if one of them is already, nothing is.
INSERT INTO etl.quarantine_resolutions (
    load_id, child, row_number, stage, rule, column_name, resolution, reason, resolved_by,
    replay_load_id)
SELECT %(load_id)s, %(child)s, n, %(stage)s, %(rule)s, %(column)s, %(resolution)s, %(reason)s, %(by)s,
       %(replay)s
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n;

-- name: resolutions_beyond_quarantine
-- Loads with a resolved row that they never refused, or more of a reason than there were.
SELECT l.load_id FROM etl.loads l
JOIN (SELECT load_id, count(*) AS n, min(row_number) AS low, max(row_number) AS high
      FROM etl.quarantine_resolutions WHERE child = '' GROUP BY load_id) q USING (load_id)
WHERE l.dataset = %(dataset)s
  AND (q.n > l.rows_quarantined OR q.low < 1 OR q.high > l.rows_quarantined)
UNION
SELECT l.load_id FROM etl.loads l
JOIN (SELECT load_id, stage, rule, column_name, count(*) AS n
      FROM etl.quarantine_resolutions WHERE child = ''
      GROUP BY load_id, stage, rule, column_name) s USING (load_id)
WHERE l.dataset = %(dataset)s AND s.n > coalesce((
    SELECT sum(q.rows) FROM etl.quarantine q
    WHERE q.load_id = s.load_id AND q.stage = s.stage AND q.rule = s.rule
      AND q.column_name IS NOT DISTINCT FROM s.column_name), 0);

-- name: replays_out_of_balance
-- Replays that read another number of rows than were marked as replayed by them.
SELECT l.load_id, l.rows_read, count(q.row_number)
FROM etl.replays r JOIN etl.loads l USING (load_id)
LEFT JOIN etl.quarantine_resolutions q
       ON q.replay_load_id = r.load_id AND q.load_id = r.origin_load_id AND q.child = ''
WHERE l.dataset = %(dataset)s AND r.child = '' GROUP BY l.load_id, l.rows_read
HAVING count(q.row_number) <> l.rows_read;

-- name: quarantine_manifests
-- Manifests of the loads of a dataset that refused rows.
SELECT manifest_key FROM etl.loads
WHERE dataset = %(dataset)s AND rows_quarantined > 0 ORDER BY load_id;

-- name: ledger_rows
-- The ledger of one dataset.
SELECT load_id, fingerprint, label, target, rows_read, rows_inserted, rows_updated, rows_unchanged,
       rows_deduplicated, rows_quarantined, rows_deleted, rows_restored, manifest_key, manifest_digest, config_hash,
       loaded_at, run, rows_staged, deletes_up_to, source_state, slice, refresh
FROM etl.loads WHERE dataset = %(dataset)s ORDER BY load_id;

-- name: quarantine_per_load
-- Refused rows of each load, as the quarantine table has them.
SELECT q.load_id, sum(q.rows)::bigint FROM etl.quarantine q JOIN etl.loads l USING (load_id)
WHERE l.dataset = %(dataset)s GROUP BY q.load_id;

-- name: existing_columns
-- The columns of a table, with their types as PostgreSQL writes them, and their comments.
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       col_description(a.attrelid, a.attnum)
FROM pg_attribute a
WHERE a.attrelid = to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

-- name: search_columns
-- The columns of a table that hold words, with what their comments say of them.
SELECT attname, col_description(attrelid, attnum)
FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attname IN ('_search', '_search_next')
  AND NOT attisdropped;

-- name: indexes
-- The indexes of a table: name, whether its building ended, comment.
SELECT c.relname, i.indisvalid, obj_description(c.oid, 'pg_class')
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%(table)s);

-- name: function_comment
-- What the comment of a function says, and of which table it is; no row if there is none.
SELECT obj_description(p.oid, 'pg_proc')
FROM pg_proc p WHERE p.oid = to_regprocedure(%(function)s);

-- name: table_blocks
-- Blocks of the largest heap of a table, its partitions included.
SELECT coalesce(max(pg_relation_size(t.relid)) / current_setting('block_size')::int, 0)::bigint
FROM (SELECT to_regclass(%(table)s) AS relid UNION
      SELECT relid FROM pg_partition_tree(to_regclass(%(table)s))) t;

-- name: text_search_configurations
-- Languages that a search can be in.
SELECT cfgname FROM pg_catalog.pg_ts_config WHERE cfgnamespace = 'pg_catalog'::regnamespace ORDER BY 1;

-- name: lock_schema
-- Alter a schema one at a time; until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended(%(schema)s, 0));

-- name: is_partitioned
-- Is a table cut into partitions?
SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%(table)s);

-- name: partitions_without_index
-- The partitions of a table to which an index of the whole table does not reach yet.
SELECT n.nspname, c.relname
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = to_regclass(%(table)s) AND NOT EXISTS (
    SELECT FROM pg_inherits ii JOIN pg_index x ON x.indexrelid = ii.inhrelid
    WHERE ii.inhparent = to_regclass(%(index)s) AND x.indrelid = c.oid)
ORDER BY c.relname;

-- name: table_state
-- What a table is beside its columns; grants are lists of role and privilege, the owner's left out.
SELECT obj_description(c.oid, 'pg_class'), pg_get_userbyid(c.relowner), current_user::text,
       pg_has_role(c.relowner, 'USAGE'), pg_has_role(n.nspowner, 'USAGE'),
       CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
       ARRAY(SELECT a.attname::text FROM pg_index i
             CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.position),
       (SELECT coalesce(json_object_agg(x.relname, i.indisvalid), '{}')
        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid),
       (SELECT coalesce(json_agg(json_build_array(
            CASE WHEN g.grantee = 0 THEN 'public' ELSE pg_get_userbyid(g.grantee) END,
            lower(g.privilege_type))), '[]')
        FROM aclexplode(c.relacl) g WHERE g.grantee <> c.relowner),
       ARRAY(SELECT p FROM unnest(ARRAY['select', 'insert', 'update', 'delete']) p
             WHERE has_table_privilege(c.oid, p)
                OR (p <> 'delete' AND has_any_column_privilege(c.oid, p)))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%(table)s);

-- name: unknown_roles
-- Those of some roles that are not there.
SELECT r FROM unnest(%(roles)s::text[]) r
WHERE r <> 'public' AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r);

-- name: roles_without_schema
-- Those of some roles that cannot reach what is in a schema.
SELECT r FROM unnest(%(roles)s::text[]) r
WHERE NOT has_schema_privilege(r, %(schema)s, 'USAGE');

-- name: partitions
-- The partitions of a table, with the bounds as PostgreSQL writes them.
SELECT n.nspname, c.relname, pg_get_expr(c.relpartbound, c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = to_regclass(%(table)s) AND NOT i.inhdetachpending ORDER BY c.relname;

-- name: relation_exists
-- Is there a table, an index or anything else of a name?
SELECT to_regclass(%(name)s) IS NOT NULL;

-- name: plain_columns
-- The columns of a table that are not computed from others.
SELECT attname FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum;

-- name: insert_retention
-- What was dropped because it was too old; it commits with that.
INSERT INTO etl.retention (
    dataset, target, partition_name, range_from, range_to, rows, rows_by_load, run, after_load)
VALUES (%(dataset)s, %(target)s, %(partition)s, %(range_from)s, %(range_to)s, %(rows)s,
        %(rows_by_load)s, %(run)s,
        (SELECT coalesce(max(load_id), 0) FROM etl.loads WHERE dataset = %(dataset)s));

-- name: rows_retired
-- Rows of each load that retention took away.
SELECT r.load_id::bigint, sum(r.rows::bigint)::bigint
FROM etl.retention, jsonb_each_text(rows_by_load) AS r (load_id, rows)
WHERE dataset = %(dataset)s GROUP BY r.load_id;

-- name: profile_history
-- The profiles of the partitions before one, the latest first, as they were when its run began; a
-- partition that was loaded again is no history of itself.
SELECT p.at, p.lag_seconds, p.profile
FROM etl.profiles p JOIN etl.loads l USING (load_id)
WHERE p.dataset = %(dataset)s AND p.at < %(before)s AND l.fingerprint <> %(fingerprint)s
  AND l.loaded_at < (SELECT opened_at FROM etl.datasets
                     WHERE dataset = %(dataset)s AND purpose = %(purpose)s)
ORDER BY p.at DESC, p.load_id DESC LIMIT %(most)s;

-- name: insert_profile
-- The profile of a load; it commits with the rows that it describes.
INSERT INTO etl.profiles (load_id, dataset, at, lag_seconds, rows, profile, findings)
VALUES (%(load_id)s, %(dataset)s, %(at)s, %(lag_seconds)s, %(rows)s, %(profile)s, %(findings)s);

-- name: latest_profile
-- The profile of the load that was committed last.
SELECT p.load_id, l.label, p.at, p.profile, p.findings
FROM etl.profiles p JOIN etl.loads l USING (load_id)
WHERE p.dataset = %(dataset)s ORDER BY p.load_id DESC LIMIT 1;
-- name: columns_added
-- Columns that loads of a dataset added to its table because its source had them.
SELECT DISTINCT column_name FROM etl.schema_changes
WHERE dataset = %(dataset)s AND kind = 'column added' ORDER BY column_name;

-- name: insert_schema_changes
-- What a load altered in its table.
INSERT INTO etl.schema_changes (load_id, dataset, column_name, from_type, to_type, kind) VALUES %s;

-- name: column_slots
-- How many columns a table ever had; a dropped one keeps its number.
SELECT coalesce(max(attnum), 0) FROM pg_attribute WHERE attrelid = to_regclass(%(table)s);

-- name: insert_child_load
-- The account of a child table in one load; it commits with the rows it stands for.
INSERT INTO etl.child_loads (
    load_id, child, target, rows_read, rows_inserted, rows_updated, rows_unchanged,
    rows_deduplicated, rows_quarantined, rows_deleted, rows_restored)
VALUES (%(load_id)s, %(child)s, %(target)s, %(read)s, %(inserted)s, %(updated)s, %(unchanged)s,
        %(deduplicated)s, %(quarantined)s, %(deleted)s, %(restored)s);

-- name: insert_child_quarantine
-- The refused items of a child table, by reason.
INSERT INTO etl.child_quarantine (
    load_id, child, rule, column_name, rows, message, source_uri, source_row) VALUES %s;

-- name: child_loads
-- The accounts of a child of a dataset, with the refused items that their reasons count.
SELECT c.load_id, c.rows_read, c.rows_inserted, c.rows_updated, c.rows_unchanged,
       c.rows_deduplicated, c.rows_quarantined, c.rows_deleted, c.rows_restored,
       coalesce((SELECT sum(q.rows) FROM etl.child_quarantine q
                 WHERE q.load_id = c.load_id AND q.child = c.child), 0)::bigint
FROM etl.child_loads c JOIN etl.loads l USING (load_id)
WHERE l.dataset = %(dataset)s AND c.child = %(child)s ORDER BY c.load_id;

-- name: child_quarantine
-- Refused items of child tables by load and reason, as quarantine_reasons has those of rows.
SELECT l.dataset || '.' || q.child, q.load_id, 'transformation', q.rule, q.column_name, q.message,
       q.source_uri, q.source_row, coalesce(r.first_seen, l.loaded_at) AS first_seen, q.rows,
       coalesce(d.replayed, 0) AS replayed, coalesce(d.discarded, 0) AS discarded
FROM etl.child_quarantine q JOIN etl.loads l USING (load_id)
LEFT JOIN etl.replays r ON r.load_id = q.load_id AND r.child = q.child
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE s.resolution = 'replayed') AS replayed,
           count(*) FILTER (WHERE s.resolution = 'discarded') AS discarded
    FROM etl.quarantine_resolutions s
    WHERE s.load_id = q.load_id AND s.child = q.child AND s.rule = q.rule
      AND s.column_name IS NOT DISTINCT FROM q.column_name
) d ON true
WHERE (%(dataset)s::text IS NULL OR l.dataset = %(dataset)s)
  AND (%(child)s::text IS NULL OR q.child = %(child)s)
ORDER BY l.dataset, q.child, q.load_id;

-- name: child_resolutions_beyond_quarantine
-- Loads with a resolved item of a child that they never refused, or more of a reason than there were.
SELECT s.load_id FROM (
    SELECT load_id, rule, column_name, count(*) AS n, min(row_number) AS low,
           max(row_number) AS high
    FROM etl.quarantine_resolutions WHERE child = %(child)s
    GROUP BY load_id, rule, column_name) s
JOIN etl.loads l USING (load_id)
JOIN etl.child_loads c ON c.load_id = s.load_id AND c.child = %(child)s
WHERE l.dataset = %(dataset)s AND (s.low < 1 OR s.high > c.rows_quarantined OR s.n > coalesce((
    SELECT sum(q.rows) FROM etl.child_quarantine q
    WHERE q.load_id = s.load_id AND q.child = %(child)s AND q.rule = s.rule
      AND q.column_name IS NOT DISTINCT FROM s.column_name), 0));

-- name: child_replays_out_of_balance
-- Replays that read another number of items of a child than were marked as replayed by them.
SELECT c.load_id, c.rows_read, count(q.row_number)
FROM etl.replays r JOIN etl.loads l USING (load_id)
JOIN etl.child_loads c ON c.load_id = r.load_id AND c.child = r.child
LEFT JOIN etl.quarantine_resolutions q
       ON q.replay_load_id = r.load_id AND q.load_id = r.origin_load_id AND q.child = r.child
WHERE l.dataset = %(dataset)s AND r.child = %(child)s GROUP BY c.load_id, c.rows_read
HAVING count(q.row_number) <> c.rows_read;

-- name: hold_staging
-- While this transaction lasts, a staging table of this name is needed.
SELECT pg_advisory_xact_lock(hashtextextended('etl.' || %(name)s, 0));

-- name: take_staging
-- Is nobody in need of a staging table of this name?
SELECT pg_try_advisory_xact_lock(hashtextextended('etl.' || %(name)s, 0));

-- name: staging_tables
-- Staging tables of loads that copy, or copied, over several connections.
SELECT relname FROM pg_class
WHERE relnamespace = to_regnamespace('etl') AND relkind = 'r' AND relpersistence = 'u'
  AND relname ~ '^staging_[0-9a-f]{16}$' AND pg_has_role(relowner, 'USAGE');

-- name: staging_kind
-- Whether the staged rows of this session are in a table of its own (r), or seen through a view (v).
SELECT relkind::text FROM pg_class WHERE oid = to_regclass('pg_temp.etl_staging');

-- name: load_origins
-- The loads that some loads come from, themselves or through replays, and the objects of these.
WITH RECURSIVE origin AS (
    SELECT id, id AS root FROM unnest(%(load_ids)s::bigint[]) AS asked (id)
    UNION ALL
    SELECT o.id, r.origin_load_id FROM origin o JOIN etl.replays r ON r.load_id = o.root
)
SELECT o.id, o.root, l.label, i.uri, i.part
FROM origin o JOIN etl.loads l ON l.load_id = o.root
LEFT JOIN etl.source_items i ON i.load_id = o.root
WHERE NOT EXISTS (SELECT FROM etl.replays r WHERE r.load_id = o.root);

-- name: load_of_parents
-- The load that read the parents of refused items: itself, or of items replayed before the first.
WITH RECURSIVE origin AS (
    SELECT %(load_id)s::bigint AS id
    UNION ALL
    SELECT r.origin_load_id FROM origin o JOIN etl.replays r ON r.load_id = o.id
    WHERE r.child = %(child)s
)
SELECT min(id) FROM origin;

-- name: is_of_current_content
-- Is a load of the content that replaced all others last?
SELECT l.source_state ->> 'generation' IS NOT DISTINCT FROM (
    SELECT c.source_state ->> 'generation' FROM etl.loads c
    WHERE c.dataset = l.dataset AND c.source_state ->> 'generation' IS NOT NULL
    ORDER BY c.load_id DESC LIMIT 1)
FROM etl.loads l WHERE l.load_id = %(load_id)s;

-- name: describe_gate
-- The columns of the open query of a gate, and no row.
FETCH 0 FROM gate;

-- name: fetch_from_gate
-- Rows that the query of a gate should not give.
FETCH %(most)s FROM gate;

-- name: record_gate_failure
-- A gate that refused a partition: what was found, and where the rows are. Kept once per partition.
INSERT INTO etl.gate_failures AS f (
    dataset, fingerprint, gate, label, run, target, found, rows, evidence, manifest_key, files,
    config_hash)
VALUES (%(dataset)s, %(fingerprint)s, %(gate)s, %(label)s, %(run)s, %(target)s, %(found)s, %(rows)s,
        %(evidence)s, %(manifest_key)s, %(files)s, %(config_hash)s)
ON CONFLICT (dataset, fingerprint, gate) DO UPDATE SET
    run = excluded.run, target = excluded.target, found = excluded.found, rows = excluded.rows,
    evidence = excluded.evidence, manifest_key = excluded.manifest_key, files = excluded.files,
    config_hash = excluded.config_hash, times = f.times + 1, failed_at = now();

-- name: open_gate_failures
-- Per dataset the last partition that a gate refused and that was not loaded since, with how many
-- such partitions there are.
SELECT DISTINCT ON (f.dataset) f.dataset, f.target, f.label, f.gate, f.found, f.run, f.failed_at,
       f.manifest_key, count(*) OVER (PARTITION BY f.dataset) AS open
FROM etl.gate_failures f
WHERE NOT EXISTS (SELECT FROM etl.loads l
                  WHERE l.dataset = f.dataset AND l.fingerprint = f.fingerprint)
ORDER BY f.dataset, f.failed_at DESC, f.gate;

-- name: lock_timeout
-- How long locks are waited for, in milliseconds; 0 is without end.
SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout';

-- name: set_lock_timeout
-- How long locks are waited for until the transaction ends.
SELECT set_config('lock_timeout', %(value)s, true);

-- name: lock_holders
-- Who holds a lock on a table, or on an index of it: first those whose lock keeps writers out, then
-- those who may have locked rows, then readers, who keep out only what alters the table.
SELECT pid, coalesce(application_name, ''), coalesce(state, ''),
       coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8,
       CASE WHEN query <> '<insufficient privilege>' THEN query END
FROM (
    SELECT l.pid, a.application_name, a.state, a.xact_start, a.query,
           min(CASE WHEN l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                                    'AccessExclusiveLock') THEN 1
                    WHEN l.mode IN ('RowShareLock', 'RowExclusiveLock') THEN 2 ELSE 3 END) AS rank
    FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
    WHERE l.granted AND l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.relation = to_regclass(%(table)s) OR l.relation IN (
          SELECT indexrelid FROM pg_index WHERE indrelid = to_regclass(%(table)s)))
    GROUP BY 1, 2, 3, 4, 5
) AS held
ORDER BY rank, xact_start, pid LIMIT %(most)s;

-- name: current_fence
-- The fence under which runs of a purpose may publish now.
SELECT fence FROM etl.datasets WHERE dataset = %(dataset)s AND purpose = %(purpose)s;

-- name: loads_of_run
-- The ledger rows of some partitions, if a run loaded them.
SELECT load_id, fingerprint, seconds, rows_read, rows_inserted, rows_updated, rows_unchanged,
       rows_deduplicated, rows_quarantined, rows_deleted, rows_restored
FROM etl.loads
WHERE dataset = %(dataset)s AND run = %(run)s AND fingerprint = ANY (%(fingerprints)s);

-- name: reasons_of_run
-- The refused rows of some partitions by reason, if a run loaded them.
SELECT q.load_id, q.stage, q.rule, q.column_name, q.rows, q.message, q.source_uri, q.source_row
FROM etl.quarantine q JOIN etl.loads l USING (load_id)
WHERE l.dataset = %(dataset)s AND l.run = %(run)s AND l.fingerprint = ANY (%(fingerprints)s);

-- name: loads_by_age
-- The loads of a dataset: whether each is within its retention, whether it met rows of others, and
-- whether refused rows of it wait for somebody.
SELECT l.fingerprint, l.manifest_key, l.loaded_at >= %(since)s,
       l.rows_updated + l.rows_unchanged + l.rows_deleted > 0,
       l.rows_quarantined > (SELECT count(*) FROM etl.quarantine_resolutions r WHERE r.load_id = l.load_id)
       OR EXISTS (SELECT FROM etl.child_quarantine c WHERE c.load_id = l.load_id)
FROM etl.loads l WHERE l.dataset = %(dataset)s;

-- name: gated_manifests
-- Manifests of partitions that a gate refused and that were not loaded since.
SELECT DISTINCT f.manifest_key FROM etl.gate_failures f
WHERE f.dataset = %(dataset)s AND NOT EXISTS (
    SELECT FROM etl.loads l WHERE l.dataset = f.dataset AND l.fingerprint = f.fingerprint);

-- name: old_profiles
-- Profiles that are old, but for the last ones of their dataset.
SELECT ctid FROM etl.profiles
WHERE dataset = %(dataset)s AND at < %(since)s AND load_id NOT IN (
    SELECT load_id FROM etl.profiles WHERE dataset = %(dataset)s
    ORDER BY at DESC, load_id DESC LIMIT %(kept)s);

-- name: old_gate_failures
-- Failures of gates that are old, of partitions that were loaded since.
SELECT ctid FROM etl.gate_failures f
WHERE dataset = %(dataset)s AND failed_at < %(since)s AND EXISTS (
    SELECT FROM etl.loads l WHERE l.dataset = f.dataset AND l.fingerprint = f.fingerprint);

-- name: count_answers
-- Answers of APIs, and hosts, that are older than the retention.
SELECT (SELECT count(*) FROM etl.lookup_answers WHERE asked_at < %(since)s)
     + (SELECT count(*) FROM etl.source_hosts WHERE changed_at < %(since)s);

-- name: erase_answers
-- The same, deleted. What is known of a host is its breaker and its rate, which are of minutes.
WITH answers AS (DELETE FROM etl.lookup_answers WHERE asked_at < %(since)s RETURNING 1),
     hosts AS (DELETE FROM etl.source_hosts WHERE changed_at < %(since)s RETURNING 1)
SELECT (SELECT count(*) FROM answers) + (SELECT count(*) FROM hosts);

-- name: was_planned
-- Was a plan to erase written into the audit by another run, for a retention that is not longer?
SELECT EXISTS (SELECT FROM etl.audit
               WHERE action = 'plan to erase' AND dataset = %(dataset)s AND details ->> 'of' = %(of)s
                 AND (details ->> 'retention_days')::int <= %(days)s
                 AND details ->> 'run' <> %(run)s);

-- name: vacuum_hints
-- Tables with many dead rows, or with transactions so old that PostgreSQL will soon insist.
SELECT format('%%I.%%I', s.schemaname, s.relname), s.n_dead_tup, s.n_live_tup, age(c.relfrozenxid)
FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
WHERE (s.schemaname = 'etl' OR s.relid IN (
           SELECT p.relid FROM unnest(%(tables)s::text[]) AS t,
                LATERAL (SELECT to_regclass(t) AS relid UNION
                         SELECT relid FROM pg_partition_tree(to_regclass(t))) AS p))
  AND (s.n_dead_tup > 100000 AND s.n_dead_tup > 0.3 * s.n_live_tup
       OR age(c.relfrozenxid) > 500000000)
ORDER BY s.n_dead_tup DESC;
