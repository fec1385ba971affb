-- What is kept of what was done by hand; a part of the ledger, made after the rest of it.
-- What loads altered in their tables stays known when one of them is taken back: the columns stay.
ALTER TABLE etl.schema_changes DROP CONSTRAINT IF EXISTS schema_changes_load_id_fkey;
CREATE TABLE IF NOT EXISTS etl.unloads (
    load_id      bigint PRIMARY KEY,
    dataset      text NOT NULL,
    fingerprint  text NOT NULL,
    excluded     boolean NOT NULL,
    unloaded_at  timestamptz NOT NULL DEFAULT now(),
    unloaded_by  text NOT NULL,
    reason       text NOT NULL,
    rows_deleted bigint NOT NULL,
    rows_restored bigint NOT NULL,
    load         jsonb NOT NULL,
    quarantine   jsonb NOT NULL,
    items        jsonb NOT NULL,
    recounted    jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS unloads_dataset ON etl.unloads (dataset);
COMMENT ON TABLE etl.unloads IS 'Loads that were taken back, with all that the ledger said of them; excluded ones are not loaded again.';

CREATE TABLE IF NOT EXISTS etl.audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor    text NOT NULL,
    action   text NOT NULL,
    dataset  text NOT NULL,
    load_id  bigint,
    reason   text NOT NULL,
    details  jsonb NOT NULL,
    previous text NOT NULL,
    hash     text NOT NULL
);
COMMENT ON TABLE etl.audit IS 'What was done by hand, and what maintenance took away: who, when, what, why. Each line has the hash of the one before; dpp reconcile checks the chain.';
CREATE TABLE IF NOT EXISTS etl.audit_head (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    hash text NOT NULL
);
COMMENT ON TABLE etl.audit_head IS 'The hash of the last line of the audit, so that a missing end is seen.';
INSERT INTO etl.audit_head (hash) VALUES ('') ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION etl.audit_hash(line etl.audit) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT encode(sha256(convert_to(jsonb_build_array(
        line.previous, line.audit_id, extract(epoch FROM line.at), line.actor, line.action,
        line.dataset, line.load_id, line.reason, line.details)::text, 'UTF8')), 'hex')
$$;
-- The head is locked until the end of the transaction: lines are appended one at a time.
CREATE OR REPLACE FUNCTION etl.append_audit(
    by text, what text, of_dataset text, of_load bigint, why text, more jsonb
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE line etl.audit;
BEGIN
    SELECT hash INTO STRICT line.previous FROM etl.audit_head FOR UPDATE;
    line.audit_id := nextval(pg_get_serial_sequence('etl.audit', 'audit_id'));
    line.at := clock_timestamp();
    line.actor := by; line.action := what; line.dataset := of_dataset; line.load_id := of_load;
    line.reason := why; line.details := more;
    line.hash := etl.audit_hash(line);
    INSERT INTO etl.audit OVERRIDING SYSTEM VALUE SELECT line.*;
    UPDATE etl.audit_head SET hash = line.hash;
    RETURN line.audit_id;
END $$;
CREATE OR REPLACE FUNCTION etl.audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'etl.audit is append-only';
END $$;
CREATE OR REPLACE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON etl.audit
    FOR EACH STATEMENT EXECUTE FUNCTION etl.audit_is_append_only();
