"""Break each invariant by hand: reconcile must name it, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.loading.lake_checks import damage_of
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import LakeFile
from tests.integration.loading.support import World, make_spec


def _loaded(world: World, spec: DatasetSpec) -> None:
    world.load(spec, "a", [(1, "one", 1), (2, "two", 1)], duplicates=1, bad={"range": 2})
    world.load(spec, "b", [(2, "zwei", 2), (3, "three", 1), (4, None, 1)], bad={"pattern": 1})
    for number in range(2):
        world.sql("SELECT etl.append_audit('me', 'test', 'things', %s, 'x', '{}')", number)


def _flip(world: World, zone: str) -> None:
    path = next(iter(sorted((world.root / "lake" / zone).rglob("*.parquet"))))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _remove(world: World, pattern: str) -> None:
    next(iter(sorted((world.root / "lake").rglob(pattern)))).unlink()


def _drop_a_row(world: World) -> None:
    path = next(iter(sorted((world.root / "lake" / "clean").rglob("*.parquet"))))
    pq.write_table(pq.read_table(path).slice(1), path)


def _edit_manifest(world: World) -> None:
    path = next(iter(sorted((world.root / "lake").rglob("transformation-*.json"))))
    path.write_text(path.read_text().replace('"seconds":0.0', '"seconds":1.0'))


def _unconstrained(statement: str) -> Callable[[World], object]:
    return lambda world: world.sql(
        "ALTER TABLE etl.loads DROP CONSTRAINT every_row_is_accounted_for; " + statement
    )


# What somebody does, and the invariants that must then be broken.
BREAKS: dict[str, tuple[Callable[[World], object], set[str]]] = {
    "ledger: one row more read": (
        _unconstrained("UPDATE etl.loads SET rows_read = rows_read + 1 WHERE load_id = 1"),
        {"I1", "I2"},
    ),
    "ledger: errors of two loads that add up to nothing": (
        _unconstrained(
            "UPDATE etl.loads SET rows_unchanged = rows_unchanged + 3 - 2 * load_id * load_id + "
            "load_id WHERE load_id IN (1, 2)"
        ),
        {"I1", "I2", "I3"},
    ),
    "ledger: a load twice": (
        lambda world: world.sql(
            "ALTER TABLE etl.loads DROP CONSTRAINT loads_dataset_fingerprint_key; "
            "UPDATE etl.loads SET fingerprint = (SELECT min(fingerprint) FROM etl.loads)"
        ),
        {"I2", "I4"},
    ),
    "ledger: quarantined rows are called unchanged": (
        lambda world: world.sql(
            "UPDATE etl.loads SET rows_quarantined = 0, rows_unchanged = rows_unchanged + 2 "
            "WHERE load_id = 1"
        ),
        {"I2", "I3", "I5"},
    ),
    "lake: clean file gone": (lambda world: _remove(world, "clean/**/*.parquet"), {"I2", "I11"}),
    "lake: byte of a clean file": (lambda world: _flip(world, "clean"), {"I2", "I11"}),
    "lake: row of a clean file": (_drop_a_row, {"I2", "I11"}),
    "lake: byte of a raw file": (lambda world: _flip(world, "raw"), {"I2"}),
    "lake: raw manifest gone": (lambda world: _remove(world, "ingestion-*.json"), {"I2"}),
    "lake: byte of a quarantine file": (lambda world: _flip(world, "quarantine"), {"I2"}),
    "lake: manifest gone": (lambda world: _remove(world, "transformation-*.json"), {"I2", "I11"}),
    "lake: manifest edited": (_edit_manifest, {"I2", "I11"}),
    "quarantine: a reason deleted": (
        lambda world: world.sql("DELETE FROM etl.quarantine WHERE rule = 'range'"),
        {"I5"},
    ),
    "table: a row deleted": (
        lambda world: world.sql("DELETE FROM analytics.things WHERE id = 1"),
        {"I6", "I11"},
    ),
    "table: a row of nobody's load": (
        lambda world: world.sql("INSERT INTO analytics.things VALUES (9, 'x', 1, 999)"),
        {"I6", "I7", "I11"},
    ),
    "table: a row deleted and another one added": (
        lambda world: world.sql(
            "DELETE FROM analytics.things WHERE id = 3; "
            "INSERT INTO analytics.things VALUES (9, 'x', 1, 1)"
        ),
        {"I11"},
    ),
    "table: a key twice": (
        lambda world: world.sql(
            "ALTER TABLE analytics.things DROP CONSTRAINT things_pkey; "
            "UPDATE analytics.things SET id = 1 WHERE id = 2"
        ),
        {"I8", "I11"},
    ),
    "table: a key is NULL": (
        lambda world: world.sql(
            "ALTER TABLE analytics.things DROP CONSTRAINT things_pkey; "
            "ALTER TABLE analytics.things ALTER id DROP NOT NULL; "
            "UPDATE analytics.things SET id = NULL WHERE id = 2"
        ),
        {"I8", "I11"},
    ),
    "ledger: another number of rows was copied": (
        lambda world: world.sql("UPDATE etl.loads SET rows_staged = 3 WHERE load_id = 1"),
        {"I3"},
    ),
    "ledger: a position goes back": (
        lambda world: world.sql(
            "UPDATE etl.loads SET source_state = jsonb_build_object('at', 9 - load_id)"
        ),
        {"I9"},
    ),
    "ledger: the fence is lowered": (
        lambda world: world.sql("UPDATE etl.datasets SET fence = 0"),
        {"I10"},
    ),
    "quarantine: a row resolved that was never refused": (
        lambda world: world.sql(
            "INSERT INTO etl.quarantine_resolutions (load_id, row_number, stage, rule, column_name, "
            "resolution, reason, resolved_by) "
            "VALUES (1, 9, 'transformation', 'range', 'name', 'discarded', 'x', 'x')"
        ),
        {"I5"},
    ),
    "table: a value changed": (
        lambda world: world.sql("UPDATE analytics.things SET name = 'eins' WHERE id = 1"),
        {"I11"},
    ),
    "table: NULL made empty": (
        lambda world: world.sql("UPDATE analytics.things SET name = '' WHERE id = 4"),
        {"I11"},
    ),
    "table: a version that is older": (
        lambda world: world.sql("UPDATE analytics.things SET seen = 1 WHERE id = 2"),
        {"I8", "I11"},
    ),
    "table: a row under another load": (
        lambda world: world.sql("UPDATE analytics.things SET _load_id = 1 WHERE id = 2"),
        {"I11"},
    ),
    "table: a column dropped": (
        lambda world: world.sql("ALTER TABLE analytics.things DROP COLUMN name"),
        {"I14"},
    ),
    "table: few column numbers left": (
        lambda world: world.sql(
            "DO $$ BEGIN FOR n IN 1..1500 LOOP EXECUTE 'ALTER TABLE analytics.things ADD x int, "
            "ADD y int'; EXECUTE 'ALTER TABLE analytics.things DROP x, DROP y'; "
            "EXIT WHEN n = 750; END LOOP; END $$"
        ),
        {"I14"},
    ),
    "audit: a line changed": (
        lambda world: world.sql(
            "SET session_replication_role = replica; UPDATE etl.audit SET reason = 'y' "
            "WHERE audit_id = 1; RESET session_replication_role"
        ),
        {"I16"},
    ),
    "audit: the last line taken out": (
        lambda world: world.sql(
            "SET session_replication_role = replica; DELETE FROM etl.audit WHERE audit_id = 2; "
            "RESET session_replication_role"
        ),
        {"I16"},
    ),
    "table: gone": (lambda world: world.sql("DROP TABLE analytics.things"), {"I6"}),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_broken_invariant_is_named(world: World, broken: str) -> None:
    """What was broken by hand is found, nothing else is, and a remedy is named."""
    spec = make_spec()
    _loaded(world, spec)
    assert world.broken(spec) == set()
    act, expected = BREAKS[broken]
    act(world)
    assert world.broken(spec) == expected
    assert all(check.holds or check.remedy for check in world.reconcile(spec))


def test_append_counts_rows_by_load(world: World) -> None:
    """In append mode rows of one load cannot stand in for those of another."""
    spec = make_spec(mode="append", key=(), cursor=None)
    _loaded(world, spec)
    assert world.broken(spec) == set()
    world.sql("UPDATE analytics.things SET _load_id = 1")
    assert world.broken(spec) == {"I6", "I11"}


def test_file_with_other_rows_than_promised_is_damaged(world: World, tmp_path: Path) -> None:
    """The rows that a manifest promises are counted in the file itself."""
    from tasks.lake import store_file

    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    file: LakeFile = store_file(world.lake, "quarantine", "things", path, 3)
    assert damage_of(world.lake, file, tmp_path) == "2 rows instead of 3"


def test_files_past_their_retention_may_be_gone(world: World) -> None:
    """Loads older than the retention are checked in the ledger and the table only."""
    from tasks.loading.reconcile import reconcile

    spec = make_spec()
    _loaded(world, spec)
    world.sql("UPDATE etl.loads SET loaded_at = now() - interval '100 days'")
    _remove(world, "clean/**/*.parquet")
    checks = reconcile(world.engine, world.lake, spec, 90)
    assert all(check.holds for check in checks)
