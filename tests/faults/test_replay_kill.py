"""Kill a replay half way: run again, and the table is as if it had run once."""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr

from blocks.warehouse import WarehouseCredentials
from tasks.loading.ledger import ensure_ledger
from tasks.loading.reconcile import reconcile
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.replay import ReplayRequest, Selection
from tasks.protection import UNPROTECTED
from tasks.replay.export import write_export
from tasks.replay.select import selected_rows
from tests.faults.campaign import connection_document
from tests.integration.loading.support import World, make_lake, make_spec
from tests.pipeline import Pipeline

BAD = 10_000
GOOD = 500
PARTITION_ROWS = 2_500
KEY = "corrections/things.csv"
SECONDS = 60
COLUMNS = {
    "id": {"type": "int64", "nullable": False},
    "name": {"type": "string"},
    "seen": {"type": "int64"},
}


def spec_of() -> DatasetSpec:
    return make_spec(COLUMNS, mode="append", key=(), cursor=None)


def pipeline_at(world: World) -> Pipeline:
    return Pipeline(world.engine, world.lake, world.scratch, world.root / "source")


def refuse_rows(pipeline: Pipeline, spec: DatasetSpec) -> None:
    """Load a file of which ten thousand rows are refused, and store their corrected export."""
    ensure_ledger(pipeline.engine)
    pipeline.base.mkdir()
    lines = [f"{number},n{number},{number}" for number in range(GOOD)]
    lines += [f"{GOOD + number},n{number},{number} pieces" for number in range(BAD)]
    (pipeline.base / "things.csv").write_text("\n".join(["id,name,seen", *lines, ""]))
    (receipt,) = pipeline.run(spec)
    assert (receipt.counts.inserted, receipt.counts.quarantined) == (GOOD, BAD)
    exported = io.StringIO(newline="")
    rows = lambda: selected_rows(pipeline.engine, pipeline.lake, spec.name, Selection())  # noqa: E731
    assert write_export(exported, spec, rows, UNPROTECTED, reveal=False) == BAD
    table = list(csv.reader(io.StringIO(exported.getvalue(), newline="")))
    seen = table[0].index("seen")
    for row in table[1:]:
        row[seen] = row[seen].removesuffix(" pieces")
    corrected = io.StringIO(newline="")
    csv.writer(corrected).writerows(table)
    assert pipeline.lake.put_new(KEY, corrected.getvalue().encode())


def victim(document: dict[str, Any], root: str, number: int, step: str) -> None:
    """Replay in this process, which kills itself at a step of a partition."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    block = WarehouseCredentials(**{**document, "password": SecretStr(document["password"])})
    world = World(block.get_engine("victim"), make_lake(Path(root) / "lake"), Path(root))

    def on_step(at_number: int, at_step: str) -> None:
        if (at_number, at_step) == (number, step):
            os.kill(os.getpid(), signal.SIGKILL)

    pipeline_at(world).replay(
        spec_of(),
        ReplayRequest(corrections=KEY),
        partition_rows=PARTITION_ROWS,
        on_step=on_step,
    )


def test_replay_killed_half_way_and_repeated_leaves_the_table_as_if_it_had_run_once(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path
) -> None:
    """Killed when all is written and nothing committed; again when committed, and nobody was told.

    The table is one of mode append, in which a row that is loaded twice is there twice.
    """
    spec, pipeline = spec_of(), pipeline_at(world)
    refuse_rows(pipeline, spec)
    # The second process finds one partition done, so its first one is the second of all.
    for number, step, done in ((1, "quarantine_written", 1), (0, "committed", 2)):
        process = multiprocessing.get_context("forkserver").Process(
            target=victim, args=(connection_document(warehouse), str(tmp_path), number, step)
        )
        process.start()
        process.join(SECONDS)
        assert process.exitcode == -signal.SIGKILL
        assert world.sql("SELECT count(*) FROM etl.replays") == [(done,)]

    again = pipeline.replay(spec, ReplayRequest(corrections=KEY), partition_rows=PARTITION_ROWS)
    assert sum(receipt.counts.inserted for receipt in again) == BAD - done * PARTITION_ROWS
    third = pipeline.replay(spec, ReplayRequest(corrections=KEY), partition_rows=PARTITION_ROWS)
    assert third == []

    expected = [(number, f"n{number}", number) for number in range(GOOD)]
    expected += [(GOOD + number, f"n{number}", number) for number in range(BAD)]
    assert world.rows(spec) == expected
    with session(world.engine) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT resolution, count(*), count(DISTINCT row_number), count(replay_load_id) "
            "FROM etl.quarantine_resolutions GROUP BY 1"
        )
        assert cursor.fetchall() == [("replayed", BAD, BAD, BAD)]
    assert [c for c in reconcile(world.engine, world.lake, spec, 10_000) if not c.holds] == []
