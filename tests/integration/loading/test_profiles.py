"""Profiles in the warehouse, and the learned gate in the load transaction."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.ingestion.connector import PlanLimits
from tasks.loading.ledger import open_dataset
from tasks.loading.publish import load_partition
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import GateFailed
from tasks.model.replay import ReplayRequest
from tests.integration.loading.support import make_spec
from tests.pipeline import Pipeline

COLUMNS = {
    "id": {"type": "int64"},
    "seen": {"type": "timestamp", "timezone": "UTC"},
    "name": {"type": "string"},
    "price": {"type": "decimal(8,2)"},
}
ANOMALY = {
    "action": "fail",
    "time": "seen",
    "season": "none",
    "min_history": 5,
    "watch": ["volume"],
}
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def spec_of(**quality: object) -> DatasetSpec:
    return make_spec(COLUMNS, key=["id"], cursor=None, quality=quality)


def write_day(folder: Path, day: int, rows: int) -> None:
    moment = (FIRST + timedelta(days=day)).isoformat()
    lines = [
        f"{day * 1000 + row},{moment},{'' if row % 4 == 0 else f'n{row % 2}'},{row}.50"
        for row in range(rows)
    ]
    (folder / f"{day:03d}.csv").write_text("\n".join(["id,seen,name,price", *lines]) + "\n")


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    (tmp_path / "in").mkdir()
    return Pipeline(engine, lake, scratch, tmp_path / "in", limits=PlanLimits(partition_items=1))


def stored(engine: Engine) -> list[tuple[int, dict, list, datetime, float | None]]:
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT rows, profile, findings, at, lag_seconds FROM etl.profiles ORDER BY load_id"
        )
        return cursor.fetchall()


def test_profile_of_each_load_is_kept(pipeline: Pipeline) -> None:
    """What etl.profiles says is what the rows of the table are."""
    write_day(pipeline.base, 0, 8)
    pipeline.run(spec_of())
    rows, profile, findings, _, lag = stored(pipeline.engine)[0]
    assert (rows, findings, lag) == (8, [], None)
    price, name = profile["columns"]["price"], profile["columns"]["name"]
    assert (price["min"], price["max"], price["nulls"]) == ("0.50", "7.50", 0)
    assert (price["quantiles"][0], price["quantiles"][5], price["quantiles"][10]) == (0.5, 3.5, 7.5)
    assert name["top"] == [["n1", 0.5], ["", 0.25], ["n0", 0.25]]
    assert (name["distinct"], name["lengths"]) == (3, [0, 1.5, 2])
    assert not any(column.startswith("_") for column in profile["columns"])


def test_unusual_partition_is_not_published(pipeline: Pipeline) -> None:
    """Six usual days; the seventh has a third of the rows: nothing of it is in the warehouse."""
    spec = spec_of(anomaly=ANOMALY)
    notes = []
    for day in range(6):
        write_day(pipeline.base, day, 90 + day)
        notes += [finding.severity for finding in pipeline.run(spec)[0].findings]
    assert notes == ["note"] * 5  # too short a history says so, and never fails
    write_day(pipeline.base, 6, 30)
    with pytest.raises(GateFailed, match=r"volume is usually [0-9]+–[0-9]+, today 30") as caught:
        pipeline.run(spec)
    assert [finding.metric for finding in caught.value.findings] == ["volume"]
    assert len(caught.value.findings[0].history) == 6
    assert len(pipeline.rows(spec)) == sum(range(90, 96))
    assert len(stored(pipeline.engine)) == 6

    warned = spec_of(anomaly={**ANOMALY, "action": "warn"})
    assert warned.config_hash == spec.config_hash  # a learned check changes no row
    receipt = pipeline.run(warned)[0]
    assert [finding.severity for finding in receipt.findings] == ["warn"]
    rows, _, findings, at, lag = stored(pipeline.engine)[-1]
    assert (rows, findings[0]["metric"], "history" in findings[0]) == (30, "volume", False) or (
        findings[0]["history"] == []
    )
    assert at == FIRST + timedelta(days=6) and lag is not None
    assert json.dumps(findings)


def test_partitions_of_one_run_do_not_judge_each_other(pipeline: Pipeline) -> None:
    """Ten days in one run, in whatever order they commit: each is judged by what was there before."""
    spec = spec_of(anomaly={**ANOMALY, "action": "warn"})
    for day in range(10):
        write_day(pipeline.base, day, 5 if day == 9 else 90 + day)
    first = pipeline.run(spec)
    assert [receipt.findings[0].message[:25] for receipt in first] == [
        "not judged: 0 partitions "
    ] * 10
    for day in (10, 11):
        write_day(pipeline.base, day, 30)
    second = [receipt.findings for receipt in pipeline.run(spec)]
    assert [[point.value for point in found[0].history][-2:] for found in second] == [[98, 5]] * 2


def test_judgement_precedes_the_transaction(pipeline: Pipeline) -> None:
    """What is refused by it never began to load: no lock, no COPY."""
    spec = spec_of(anomaly=ANOMALY)
    for day in range(6):
        write_day(pipeline.base, day, 90 + day)
    pipeline.run(spec)
    write_day(pipeline.base, 6, 30)
    fence = open_dataset(pipeline.engine, spec.name, "next")
    (partition,) = pipeline.plan(spec)
    load = pipeline.load_of(spec, partition, "next", fence)
    steps: list[str] = []
    with pytest.raises(GateFailed):
        load_partition(pipeline.engine, pipeline.lake, pipeline.scratch, load, on_step=steps.append)
    assert steps == []


def test_empty_partition_has_a_profile(pipeline: Pipeline) -> None:
    """No rows at all are the most unusual volume: they are part of the history."""
    (pipeline.base / "empty.csv").write_text("id,seen,name,price\n")
    pipeline.run(spec_of())
    assert [row[0] for row in stored(pipeline.engine)] == [0]


def test_replayed_rows_are_no_history(pipeline: Pipeline) -> None:
    """A few corrected rows say nothing about what is usual, and are not judged by it."""
    spec = spec_of(anomaly=ANOMALY)
    for day in range(6):
        write_day(pipeline.base, day, 90 + day)
        if day == 5:
            with (pipeline.base / "005.csv").open("a") as file:
                file.write("x,2026-01-06T00:00:00+00:00,n1,1.50\n")
        pipeline.run(spec)
    assert len(stored(pipeline.engine)) == 6
    (receipt,) = pipeline.replay(spec, ReplayRequest())
    assert receipt.counts.quarantined == 1
    assert receipt.findings == ()
    assert len(stored(pipeline.engine)) == 6
