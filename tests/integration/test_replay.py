"""Refused rows through the stages again: what is in the table, the ledger and the quarantine then."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from blocks.privacy import Privacy
from tasks.lake import read_manifest
from tasks.loading.ledger_state import quarantine_manifests
from tasks.loading.reconcile import reconcile
from tasks.loading.resolutions import discard
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, LoadConflict
from tasks.model.replay import ReplayRequest, Selection
from tasks.protection import UNPROTECTED, Protection, pii_columns
from tasks.replay.discard import discard_rows, rows_to_discard
from tasks.replay.export import write_export
from tasks.replay.select import selected_rows
from tests.pipeline import Pipeline

SOURCE = """id,E-Mail,amount,note
1,a@example.org,1.50,
2,b@example.org,two,=1+1
3,c@example.org,3.50,"say ""hi"", please"
x,d@example.org,4.50,
5,e@example.org,-5,NA
6,too,many,cells,here
"""


def spec_of(**more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "people",
            "description": "d",
            "source": {
                "kind": "files",
                "path": "*.csv",
                "format": {"kind": "csv", "null_values": ["NA"]},
            },
            "key": ["id"],
            "columns": {
                "id": {"type": "int64"},
                "mail": {"type": "string", "source": "E-Mail", "pii": "token"},
                "amount": {"type": "decimal(9,2)", "checks": {"between": [0, 100]}},
                "note": {"type": "string"},
            },
            "quality": {"gates": [{"rows_between": [2, 100]}]},
            "load": {"table": "analytics.people", "mode": "merge"},
            **more,
        }
    )


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    """A dataset with two loaded rows, three refused ones, and a line that is no row."""
    base = tmp_path / "source"
    base.mkdir()
    (base / "people.csv").write_text(SOURCE)
    protection = Protection(pii_columns(spec_of()), Privacy(["k" * 32]))
    made = Pipeline(engine, lake, scratch, base, protection=protection)
    (receipt,) = made.run(spec_of())
    assert (receipt.counts.inserted, receipt.counts.quarantined) == (2, 4)
    return made


def open_rows(pipeline: Pipeline, **selection: Any) -> list[tuple[str, str, int, int]]:
    return [
        (row.row_id, row.kept.rule, row.kept.source_row, row.load.times_replayed)
        for row in selected_rows(pipeline.engine, pipeline.lake, "people", Selection(**selection))
    ]


def corrected(
    pipeline: Pipeline, correct: Callable[[dict[str, str]], None], key: str = "corrections/x.csv"
) -> ReplayRequest:
    """Export what is open, correct it row by row, and put it into the lake."""
    file = io.StringIO(newline="")

    def rows() -> Iterator[Any]:
        return selected_rows(pipeline.engine, pipeline.lake, "people", Selection())

    write_export(file, spec_of(), rows, UNPROTECTED, reveal=False)
    table = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    assert "example.org" not in file.getvalue(), "protected values are not exported"
    for row in table:
        correct(row)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, table[0].keys())
    writer.writeheader()
    writer.writerows(table)
    pipeline.lake.delete(key)
    assert pipeline.lake.put_new(key, out.getvalue().encode())
    return ReplayRequest(corrections=key)


def broken(pipeline: Pipeline, spec: DatasetSpec) -> list[str]:
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 10_000)
    return [check.statement for check in checks if not check.holds]


def query(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def test_replay_under_a_corrected_dataset_file_loads_what_passes_now(pipeline: Pipeline) -> None:
    """Rows that are refused again are open under a new name, and know how often they were tried."""
    columns = spec_of().model_dump(mode="json")["columns"]
    columns["amount"]["checks"] = {"between": [-10, 100]}
    spec = spec_of(columns=columns)
    (receipt,) = pipeline.replay(spec, ReplayRequest())
    # The gate rows_between of the dataset wants two rows; a replay is not held to it.
    assert (receipt.counts.read, receipt.counts.inserted, receipt.counts.quarantined) == (3, 1, 2)
    rows = pipeline.rows(spec)
    assert [(row["id"], row["mail"], str(row["amount"]), row["note"]) for row in rows] == [
        (1, "a@example.org", "1.50", ""),
        (3, "c@example.org", "3.50", 'say "hi", please'),
        (5, "e@example.org", "-5.00", None),
    ]
    load = receipt.load_id
    first = query(pipeline, "SELECT min(load_id) FROM etl.loads")[0][0]
    still = [(rule, row, times) for _, rule, row, times in open_rows(pipeline)]
    assert still[1:] == [("type", 2, 1), ("type", 4, 1)]
    assert still[0][1:] == (6, 0), "the line that was no row waits for its columns"
    assert {row_id.split("-")[0] for row_id, *_ in open_rows(pipeline)} == {str(first), str(load)}
    assert query(
        pipeline,
        "SELECT r.first_seen = l.loaded_at FROM etl.replays r "
        "JOIN etl.loads l ON l.load_id = r.origin_load_id",
    ) == [(True,)]
    assert broken(pipeline, spec) == []
    (again,) = pipeline.replay(spec, ReplayRequest())
    assert (again.counts.read, again.counts.quarantined) == (2, 2)
    assert [times for *_, times in open_rows(pipeline)] == [0, 2, 2]
    assert broken(pipeline, spec) == []


def test_corrected_export_is_merged_once_and_protected_cells_keep_their_values(
    pipeline: Pipeline,
) -> None:
    def correct(row: dict[str, str]) -> None:
        amounts = {"two": "2.50", r"'-5": "5"}
        row["amount"] = amounts.get(row["amount"], row["amount"])
        if row["id"] == "x":
            row["id"], row["E-Mail"] = "4", "new@example.org"
        if row["id"] == r"\N":  # the line that was no row: filled in by hand
            row.update({"id": "6", "E-Mail": "f@example.org", "amount": "6"})

    spec = spec_of()
    request = corrected(pipeline, correct)
    (receipt,) = pipeline.replay(spec, request)
    assert (receipt.counts.read, receipt.counts.inserted) == (4, 4)
    rows = pipeline.rows(spec)
    assert [(row["id"], row["mail"], str(row["amount"]), row["note"]) for row in rows] == [
        (1, "a@example.org", "1.50", ""),
        (2, "b@example.org", "2.50", "=1+1"),
        (3, "c@example.org", "3.50", 'say "hi", please'),
        (4, "new@example.org", "4.50", ""),
        (5, "e@example.org", "5.00", None),
        (6, "f@example.org", "6.00", None),
    ]
    assert pipeline.replay(spec, request) == [], "nothing is left to do"
    assert open_rows(pipeline) == []
    assert len(open_rows(pipeline, resolved_too=True)) == 4
    assert broken(pipeline, spec) == []
    for zone in ("quarantine", "manifests"):
        for key in pipeline.lake.keys(zone):
            content = pipeline.lake.get(key) or b""
            assert b"example.org" not in content, key
    for key in quarantine_manifests(pipeline.engine, "people"):
        manifest = read_manifest(pipeline.lake, key)
        assert manifest is not None
        for kept in manifest.quarantine:
            table = pq.read_table(pipeline.lake.local_path(kept.key, pipeline.scratch))
            assert "example.org" not in str(table.to_pylist())
            assert set(table["dataset"].to_pylist()) == {"people"}
            assert set(table["config_hash"].to_pylist()) == {spec.config_hash}


def test_discarded_rows_are_left_out_for_good(pipeline: Pipeline) -> None:
    spec = spec_of()
    rows = rows_to_discard(pipeline.engine, pipeline.lake, "people", Selection(rule="type"))
    with pytest.raises(ConfigError, match="needs a reason"):
        discard_rows(pipeline.engine, rows, "  ", "ann")
    discard_rows(pipeline.engine, rows, "test data", "ann")
    assert query(
        pipeline,
        "SELECT resolution, reason, resolved_by, count(*)::int FROM etl.quarantine_resolutions "
        "GROUP BY 1, 2, 3",
    ) == [("discarded", "test data", "ann", 2)]
    with pytest.raises(LoadConflict, match="meanwhile"):
        discard(pipeline.engine, rows, "again", "bob")
    (receipt,) = pipeline.replay(spec, ReplayRequest())
    assert receipt.counts.read == 1, "what is discarded is not replayed"
    assert broken(pipeline, spec) == []
    query(pipeline, "UPDATE etl.quarantine_resolutions SET row_number = 99 "
          "WHERE resolution = 'discarded' AND row_number = "
          "(SELECT min(row_number) FROM etl.quarantine_resolutions) RETURNING 1")  # fmt: skip
    query(
        pipeline, "DELETE FROM etl.quarantine_resolutions WHERE resolution = 'replayed' RETURNING 1"
    )
    assert broken(pipeline, spec) == [
        "what is resolved was refused",
        "every replayed row was read once by its replay",
    ]


def test_row_that_is_discarded_while_it_is_replayed_is_not_published(pipeline: Pipeline) -> None:
    spec = spec_of()
    request = corrected(pipeline, lambda row: row.update({"id": "7", "amount": "7"}))
    rows = rows_to_discard(pipeline.engine, pipeline.lake, "people", Selection())

    def on_step(_number: int, step: str) -> None:
        if step == "gated":
            discard_rows(pipeline.engine, rows, "meanwhile", "ann")

    with pytest.raises(LoadConflict):
        pipeline.replay(spec, request, on_step=on_step)
    assert [row["id"] for row in pipeline.rows(spec)] == [1, 3]
    assert query(pipeline, "SELECT count(*)::int FROM etl.replays") == [(0,)]
    assert broken(pipeline, spec) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dpp:row": "99-1"}, "row 99-1 is not in its quarantine"),
        ({"ammount": "1"}, "column 'ammount' is not one of people"),
    ],
)
def test_correction_of_what_is_not_there_is_refused(
    pipeline: Pipeline, change: dict[str, str], message: str
) -> None:
    header = {"dpp:row": open_rows(pipeline)[0][0], "id": "1"} | change
    file = io.StringIO(newline="")
    csv.writer(file).writerows([header.keys(), header.values()])
    assert pipeline.lake.put_new("corrections/bad.csv", file.getvalue().encode())
    with pytest.raises(ConfigError, match=message):
        pipeline.replay(spec_of(), ReplayRequest(corrections="corrections/bad.csv"))
