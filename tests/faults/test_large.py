"""Large loads: each row as a naive model says, in bounded memory and bounded temporary disk.

Small in the suite; ``DPP_LARGE_ROWS=1000000`` and ``DPP_LARGE_LOAD_ROWS=20000000`` make them large.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from pydantic import SecretStr

from blocks.warehouse import WarehouseCredentials
from tasks.lake import manifest_key, publish_manifest, store_file
from tasks.loading.publish import Load, load_partition
from tasks.loading.session import session
from tasks.model.manifest import Manifest
from tests.faults.campaign import FORKSERVER, connection_document
from tests.integration.loading.support import CREATED, World, make_lake, make_partition, make_spec

ROWS = int(os.environ.get("DPP_LARGE_ROWS", "40000"))
LOAD_ROWS = int(os.environ.get("DPP_LARGE_LOAD_ROWS", "200000"))
PIECE = 250_000
BUDGET_MB = 256
"""What a load may take beside what the process has anyway; ``memory_budget`` of dev."""
TEMPORARY = 2.0
"""Most bytes of temporary disk, in sizes of the partition as the table has it."""
SECONDS = 1200
COLUMNS = {
    "id": {"type": "int64"},
    "name": {"type": "string"},
    "amount": {"type": "decimal(12,2)"},
    "at": {"type": "timestamp"},
    "seen": {"type": "int64"},
}
ARROW = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("amount", pa.decimal128(12, 2)),
        ("at", pa.timestamp("us")),
        ("seen", pa.int64()),
    ]
)
SPEC = make_spec(COLUMNS)
Row = tuple[int, str | None, Decimal, datetime, int]


def _row(key: int, version: int, seen: int) -> Row:
    name = None if key % 7 == 0 else f"name {key} of {version}"
    amount = Decimal(key * 31 + version).scaleb(-2)
    return (key, name, amount, datetime(2020, 1, 1) + timedelta(seconds=key), seen)


def _mixed() -> Iterator[Row]:
    """Rows of which a quarter each is new, newer, as it was, and older than what is there."""
    for key in range(ROWS):
        what = key % 4
        if what == 0:
            yield _row(ROWS + key, 1, 1)
        else:
            version, seen = {1: (2, 6), 2: (1, 5), 3: (0, 4)}[what]
            yield _row(key, version, seen)


def test_mixed_batch_equals_a_naive_reference(world: World) -> None:
    """Row by row, with what each load counted."""
    first = [_row(key, 1, 5) for key in range(ROWS)]
    mixed = list(_mixed())
    reference: dict[int, Row] = {}
    expected = [0, 0, 0]
    for row in (*first, *mixed):
        there = reference.get(row[0])
        if there is None or (row[4] >= there[4] and row != there):
            reference[row[0]] = row
            expected[0 if there is None else 1] += 1
        else:
            expected[2] += 1
    counted = [0, 0, 0]
    for label, rows in (("first", first), ("mixed", mixed)):
        table = pa.Table.from_arrays(
            [pa.array(values, field.type) for values, field in zip(zip(*rows), ARROW, strict=True)],  # noqa: B905
            schema=ARROW,
        )
        load = world.prepared(SPEC, make_partition(label), table, row_group=PIECE)
        counts = world.publish(load).counts
        counted = [
            counted[0] + counts.inserted, counted[1] + counts.updated, counted[2] + counts.unchanged
        ]  # fmt: skip
    assert counted == expected
    with session(world.engine) as connection, connection.cursor("rows") as cursor:
        cursor.itersize = 20_000
        cursor.execute('SELECT id, name, amount, "at", seen FROM analytics.things ORDER BY id')
        found = 0
        for row, key in zip(cursor, sorted(reference), strict=True):
            assert row == reference[key]
            found += 1
    assert found == len(reference) == ROWS + -(-ROWS // 4)


def _large_load(world: World) -> Load:
    """Return the load of many rows, which were written piece by piece in no order of their keys."""
    path = world.scratch / "large.parquet"
    chance = np.random.default_rng(1)
    with pq.ParquetWriter(path, ARROW) as writer:
        for begin in range(0, LOAD_ROWS, PIECE):
            keys = chance.permutation(np.arange(begin, min(begin + PIECE, LOAD_ROWS)))
            ids = pa.array(keys * 2_654_435_761 % 2**40)  # scattered over the whole
            names = pa.array([f"name of the row {key}" for key in keys.tolist()])
            amounts = (
                pa.array(keys % 1_000_000).cast(pa.decimal128(21, 2)).cast(ARROW.field(2).type)
            )
            moments = pa.array(keys * 1_000_000).cast(pa.timestamp("us"))
            writer.write_table(
                pa.table([ids, names, amounts, moments, pa.array(keys)], schema=ARROW),
                row_group_size=PIECE // 2,
            )
    partition = make_partition("large")
    file = store_file(world.lake, "clean", SPEC.name, path, LOAD_ROWS)
    path.unlink(missing_ok=True)
    key = manifest_key("transformation", SPEC.name, partition.fingerprint, "ab" * 32)
    manifest = Manifest(
        stage="transformation",
        dataset=SPEC.name,
        fingerprint=partition.fingerprint,
        config_hash=SPEC.config_hash,
        files=(file,),
        quarantine=(),
        rows_read=LOAD_ROWS,
        rows_quarantined=0,
        rows_deduplicated=0,
        reasons=(),
        created_at=CREATED,
        seconds=0.0,
    )
    publish_manifest(world.lake, key, manifest)
    return Load(
        spec=SPEC,
        lookups={},
        partition=partition,
        manifest=manifest,
        manifest_key=key,
        run="run",
        fence=world.open(SPEC, "run"),
        code_version="test",
    )


def _loader(document: dict[str, Any], root: Path, load: Load, told: Connection) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    block = WarehouseCredentials(**{**document, "password": SecretStr(document["password"])})
    engine, lake = block.get_engine("large"), make_lake(root / "lake")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    receipt = load_partition(engine, lake, root, load)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told.send({"mb": (peak - before) / 1024, "seconds": receipt.seconds})


USED = "SELECT pg_database_size(current_database()), (SELECT sum(size) FROM pg_ls_tmpdir())"
"""Bytes of all tables, those that nobody else can see too, and of what is spilled."""


def test_large_load_takes_bounded_memory_and_temporary_disk(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path
) -> None:
    """Of the disk that is used, what is free again afterwards was temporary."""
    load = _large_load(world)
    here, there = FORKSERVER.Pipe()
    document = connection_document(warehouse) | {"statement_timeout": SECONDS}
    process = FORKSERVER.Process(target=_loader, args=(document, tmp_path, load, there))
    most = [0, 0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            most[:] = map(max, most, (int(used or 0) for used in world.sql(USED)[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    process.start()
    try:
        assert here.poll(SECONDS)
        said = here.recv()
    finally:
        ended.set()
        watcher.join()
    process.join(SECONDS)
    staged, spilled = most[0] - int(world.sql(USED)[0][0]), most[1]
    size = int(world.sql("SELECT pg_relation_size('analytics.things')")[0][0])
    assert world.sql("SELECT count(*) FROM analytics.things") == [(LOAD_ROWS,)]
    took = (
        f"{LOAD_ROWS} rows of {size >> 20} MB: {said['seconds']:.0f} s, memory {said['mb']:.0f} MB, "
        f"staged {staged >> 20} MB, spilled {spilled >> 20} MB"
    )
    print(took)  # noqa: T201 - shown when it fails, and with -s
    assert said["mb"] < BUDGET_MB, took
    assert staged > 0 and staged + spilled < TEMPORARY * size, took
