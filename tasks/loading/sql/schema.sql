-- The schema of the ledger. Safe to run again, and by several processes at once: it is run under an
-- advisory lock.
CREATE SCHEMA IF NOT EXISTS etl;

CREATE TABLE IF NOT EXISTS etl.datasets (
    dataset   text NOT NULL,
    purpose   text NOT NULL DEFAULT 'run',
    fence     bigint NOT NULL,
    run       text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, purpose)
);
COMMENT ON TABLE etl.datasets IS 'One row per dataset and purpose (run, objects, backfill, replay); only a run that holds the current fence may publish.';
-- A ledger that was made before backfills went on beside live runs.
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_attribute
                   WHERE attrelid = 'etl.datasets'::regclass AND attname = 'purpose') THEN
        ALTER TABLE etl.datasets ADD COLUMN purpose text NOT NULL DEFAULT 'run';
        ALTER TABLE etl.datasets DROP CONSTRAINT datasets_pkey;
        ALTER TABLE etl.datasets ADD PRIMARY KEY (dataset, purpose);
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS etl.loads (
    load_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset           text NOT NULL,
    fingerprint       text NOT NULL,
    label             text NOT NULL,
    run               text NOT NULL,
    target            text NOT NULL,
    rows_read         bigint NOT NULL,
    rows_inserted     bigint NOT NULL,
    rows_updated      bigint NOT NULL,
    rows_unchanged    bigint NOT NULL,
    rows_deduplicated bigint NOT NULL,
    rows_quarantined  bigint NOT NULL,
    manifest_key      text NOT NULL,
    manifest_digest   text NOT NULL,
    config_hash       text NOT NULL,
    code_version      text NOT NULL,
    source_state      jsonb NOT NULL,
    source_bytes      bigint,
    loaded_at         timestamptz NOT NULL DEFAULT now(),
    seconds           double precision NOT NULL,
    UNIQUE (dataset, fingerprint),
    CONSTRAINT every_row_is_accounted_for CHECK (
        rows_read = rows_inserted + rows_updated + rows_unchanged + rows_deduplicated
                    + rows_quarantined)
);
ALTER TABLE etl.loads ADD COLUMN IF NOT EXISTS source_bytes bigint;
ALTER TABLE etl.loads ADD COLUMN IF NOT EXISTS rows_deleted bigint NOT NULL DEFAULT 0;
ALTER TABLE etl.loads ADD COLUMN IF NOT EXISTS rows_staged bigint;
ALTER TABLE etl.loads ADD COLUMN IF NOT EXISTS deletes_up_to bigint;
COMMENT ON COLUMN etl.loads.rows_staged IS 'Rows that the server took by COPY; NULL in loads of older versions.';
COMMENT ON COLUMN etl.loads.deletes_up_to IS 'Set where the rows are the keys of the whole source: rows of this load and older ones were deleted if their key is not among them.';
ALTER TABLE etl.loads ADD COLUMN IF NOT EXISTS rows_restored bigint NOT NULL DEFAULT 0;
ALTER TABLE etl.loads ADD COLUMN IF NOT EXISTS slice jsonb;
ALTER TABLE etl.loads ADD COLUMN IF NOT EXISTS refresh text;
COMMENT ON COLUMN etl.loads.slice IS 'The window, the range or the query that was read, so that it can be read again; NULL in loads of older versions.';
COMMENT ON COLUMN etl.loads.refresh IS 'The run that asked for the partition again although it was loaded.';
COMMENT ON TABLE etl.loads IS 'The ledger: one row per committed partition, written with its rows.';

CREATE TABLE IF NOT EXISTS etl.source_items (
    dataset text NOT NULL,
    uri     text NOT NULL,
    version text NOT NULL,
    part    text NOT NULL DEFAULT '',
    load_id bigint NOT NULL REFERENCES etl.loads,
    PRIMARY KEY (dataset, uri, version, part)
);
COMMENT ON TABLE etl.source_items IS 'The objects and files that were loaded, in the version that was loaded; of large ones the parts.';
-- A ledger that was made before objects had parts.
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_attribute
                   WHERE attrelid = 'etl.source_items'::regclass AND attname = 'part') THEN
        ALTER TABLE etl.source_items ADD COLUMN part text NOT NULL DEFAULT '';
        ALTER TABLE etl.source_items DROP CONSTRAINT source_items_pkey;
        ALTER TABLE etl.source_items ADD PRIMARY KEY (dataset, uri, version, part);
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS etl.quarantine (
    load_id     bigint NOT NULL REFERENCES etl.loads,
    stage       text NOT NULL,
    rule        text NOT NULL,
    column_name text,
    rows        bigint NOT NULL,
    message     text NOT NULL,
    source_uri  text NOT NULL,
    source_row  bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS quarantine_load_id ON etl.quarantine (load_id);
COMMENT ON TABLE etl.quarantine IS 'Refused rows by reason, with the first of each; the rows are in the lake.';

CREATE TABLE IF NOT EXISTS etl.schema_changes (
    load_id     bigint NOT NULL,
    dataset     text NOT NULL,
    column_name text NOT NULL,
    from_type   text,
    to_type     text NOT NULL,
    kind        text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, column_name, load_id)
);
ALTER TABLE etl.schema_changes DROP CONSTRAINT IF EXISTS schema_changes_kind_check;
ALTER TABLE etl.schema_changes ADD CONSTRAINT schema_changes_kind_check
    CHECK (kind IN ('column added', 'type widened', 'null allowed'));
COMMENT ON TABLE etl.schema_changes IS 'What loads altered in their tables under the contract of the dataset.';

CREATE TABLE IF NOT EXISTS etl.retention (
    retention_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset        text NOT NULL,
    target         text NOT NULL,
    partition_name text NOT NULL,
    range_from     text,
    range_to       text,
    rows           bigint NOT NULL,
    rows_by_load   jsonb NOT NULL,
    run            text NOT NULL,
    at             timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE etl.retention ADD COLUMN IF NOT EXISTS after_load bigint;
CREATE INDEX IF NOT EXISTS retention_dataset ON etl.retention (dataset);
COMMENT ON TABLE etl.retention IS 'Partitions that were dropped because all in them was too old, with the rows that went with them by load.';

CREATE TABLE IF NOT EXISTS etl.replays (
    load_id        bigint PRIMARY KEY REFERENCES etl.loads ON DELETE CASCADE,
    origin_load_id bigint NOT NULL,
    first_seen     timestamptz NOT NULL,
    times_replayed integer NOT NULL
);
ALTER TABLE etl.replays ADD COLUMN IF NOT EXISTS child text NOT NULL DEFAULT '';
COMMENT ON COLUMN etl.replays.child IS 'The child table whose refused items were replayed; empty if they were rows.';
COMMENT ON TABLE etl.replays IS 'Loads that are replays of refused rows of another load; rows that were refused again are in their own quarantine.';

CREATE TABLE IF NOT EXISTS etl.quarantine_resolutions (
    load_id        bigint NOT NULL REFERENCES etl.loads ON DELETE CASCADE,
    row_number     bigint NOT NULL,
    stage          text NOT NULL,
    rule           text NOT NULL,
    column_name    text,
    resolution     text NOT NULL CHECK (resolution IN ('replayed', 'discarded')),
    reason         text,
    resolved_by    text NOT NULL,
    resolved_at    timestamptz NOT NULL DEFAULT now(),
    replay_load_id bigint REFERENCES etl.loads ON DELETE CASCADE,
    PRIMARY KEY (load_id, row_number),
    CONSTRAINT a_replay_has_its_load CHECK ((resolution = 'replayed') = (replay_load_id IS NOT NULL)),
    CONSTRAINT a_discard_has_its_reason CHECK (resolution <> 'discarded' OR reason <> '')
);
CREATE INDEX IF NOT EXISTS quarantine_resolutions_replay
    ON etl.quarantine_resolutions (replay_load_id);
COMMENT ON TABLE etl.quarantine_resolutions IS 'What became of refused rows, once each: the row of a load is its place in the quarantine files of that load.';
-- A ledger that was made before refused items of child tables could be resolved.
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_attribute
                   WHERE attrelid = 'etl.quarantine_resolutions'::regclass AND attname = 'child') THEN
        ALTER TABLE etl.quarantine_resolutions ADD COLUMN child text NOT NULL DEFAULT '';
        ALTER TABLE etl.quarantine_resolutions DROP CONSTRAINT quarantine_resolutions_pkey;
        ALTER TABLE etl.quarantine_resolutions ADD PRIMARY KEY (load_id, child, row_number);
    END IF;
END $$;
COMMENT ON COLUMN etl.quarantine_resolutions.child IS 'The child table whose refused item it is; empty if it is a row.';

CREATE TABLE IF NOT EXISTS etl.source_hosts (
    host       text PRIMARY KEY,
    state      jsonb NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE etl.source_hosts IS 'Circuit breakers and rate limits of the hosts of APIs, for all processes.';

CREATE TABLE IF NOT EXISTS etl.profiles (
    load_id     bigint PRIMARY KEY REFERENCES etl.loads ON DELETE CASCADE,
    dataset     text NOT NULL,
    at          timestamptz NOT NULL,
    lag_seconds double precision,
    rows        bigint NOT NULL,
    profile     jsonb NOT NULL,
    findings    jsonb NOT NULL DEFAULT '[]'
);
CREATE INDEX IF NOT EXISTS profiles_dataset_at ON etl.profiles (dataset, at);
COMMENT ON TABLE etl.profiles IS 'What the clean rows of each load look like, and what was unusual about them.';
CREATE TABLE IF NOT EXISTS etl.lookup_answers (
    request  text NOT NULL,
    key      text NOT NULL,
    answer   text,
    asked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (request, key)
);
COMMENT ON TABLE etl.lookup_answers IS 'What APIs answered when rows looked something up, until it expires; NULL where they have nothing.';

CREATE TABLE IF NOT EXISTS etl.child_loads (
    load_id           bigint NOT NULL REFERENCES etl.loads ON DELETE CASCADE,
    child             text NOT NULL,
    target            text NOT NULL,
    rows_read         bigint NOT NULL,
    rows_inserted     bigint NOT NULL,
    rows_updated      bigint NOT NULL,
    rows_unchanged    bigint NOT NULL,
    rows_deduplicated bigint NOT NULL,
    rows_quarantined  bigint NOT NULL,
    rows_deleted      bigint NOT NULL,
    PRIMARY KEY (load_id, child),
    CONSTRAINT every_item_is_accounted_for CHECK (
        rows_read = rows_inserted + rows_updated + rows_unchanged + rows_deduplicated
                    + rows_quarantined)
);
ALTER TABLE etl.child_loads ADD COLUMN IF NOT EXISTS rows_restored bigint NOT NULL DEFAULT 0;
COMMENT ON TABLE etl.child_loads IS 'What each load did to its child tables; an account of the items of the rows that were kept.';

CREATE TABLE IF NOT EXISTS etl.child_quarantine (
    load_id     bigint NOT NULL REFERENCES etl.loads ON DELETE CASCADE,
    child       text NOT NULL,
    rule        text NOT NULL,
    column_name text,
    rows        bigint NOT NULL,
    message     text NOT NULL,
    source_uri  text NOT NULL,
    source_row  bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS child_quarantine_load_id ON etl.child_quarantine (load_id);
COMMENT ON TABLE etl.child_quarantine IS 'Refused items of child tables by reason, with the first of each; source_row is that of the row they belong to.';

CREATE TABLE IF NOT EXISTS etl.gate_failures (
    dataset         text NOT NULL,
    fingerprint     text NOT NULL,
    gate            text NOT NULL,
    label           text NOT NULL,
    run             text NOT NULL,
    target          text NOT NULL,
    found           text NOT NULL,
    rows            bigint NOT NULL,
    evidence        jsonb NOT NULL DEFAULT '[]',
    manifest_key    text NOT NULL,
    files           jsonb NOT NULL,
    config_hash     text NOT NULL,
    times           integer NOT NULL DEFAULT 1,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    failed_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, fingerprint, gate)
);
COMMENT ON TABLE etl.gate_failures IS 'Partitions that a gate refused: what was found, some of the rows, and the lake files that have all of them.';
