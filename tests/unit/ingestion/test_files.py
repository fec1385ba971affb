"""Files are pinned to their content, told apart by it, and never half read."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.connectors.files import FilesConnector
from tasks.model.errors import ConfigError, PipelineError, SourceRejected
from tasks.model.partition import Partition
from tasks.model.request import SourceState, Window
from tasks.model.source import FilesSource


def connector(base: Path, path: str = "*.csv", kind: str = "csv") -> FilesConnector:
    source = FilesSource.model_validate({"kind": "files", "path": path, "format": {"kind": kind}})
    return FilesConnector("things", source, base, PlanLimits(batch_bytes=1 << 12), 1)


def planned(made: FilesConnector, **state: Any) -> list[str]:
    return [item.uri for part in made.plan(SourceState(**state)) for item in part.items]


def rows(made: FilesConnector, partitions: list[Partition]) -> int:
    read = (raw for part in partitions for raw in made.read(part))
    return sum(raw.batch.num_rows for raw in read if raw.batch is not None)


LINES = b"id\n" + b"".join(b"%d\n" % n for n in range(5000))
CHANGES: dict[str, Callable[[Path], object]] = {
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"1\n"),
    "cut": lambda path: os.truncate(path, 100),
    "of the same size": lambda path: path.write_bytes(LINES.replace(b"4999", b"4998")),
    "another file": lambda path: (path.unlink(), path.write_bytes(LINES.replace(b"1", b"2"))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_file_that_changes_before_it_is_read_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(LINES)
    made = connector(tmp_path)
    partitions = made.plan(SourceState())
    CHANGES[change](path)
    with pytest.raises(SourceRejected, match=r"a.csv: changed after it was planned"):
        rows(made, partitions)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, change: str, kind: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(LINES)
    if kind == "parquet":
        pq.write_table(pa.table({"id": range(200_000)}), path)
    made = connector(tmp_path, kind=kind)
    reading = made.read(made.plan(SourceState())[0])
    assert next(reading).batch is not None
    CHANGES[change](path)
    with pytest.raises(SourceRejected, match=r"a.csv: changed after it was planned"):
        list(reading)


def test_66_same_content_under_two_names_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(LINES)
    (tmp_path / "b.csv").write_bytes(LINES)
    made = connector(tmp_path)
    (partition,) = made.plan(SourceState())
    assert [item.uri for item in partition.items] == ["a.csv"]
    (tmp_path / "a.csv").unlink()
    done = frozenset((item.uri, item.version) for item in partition.items)
    assert planned(made, items=done) == []


def test_only_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")  # opening it would wait for ever
    (tmp_path / "a.csv").write_bytes(LINES)
    assert planned(connector(tmp_path)) == ["a.csv"]


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes(LINES)
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    assert planned(connector(tmp_path, "in/**/*.csv")) == ["in/a.csv"]


@pytest.mark.parametrize("target", ["missing", "loop.csv"])
def test_link_that_leads_nowhere_is_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop.csv").symlink_to(tmp_path / target)
    with pytest.raises(SourceRejected, match=r"loop.csv: is a link that leads nowhere"):
        planned(connector(tmp_path))


def test_name_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv")).write_bytes(LINES)
    with pytest.raises(SourceRejected, match=r"caf\\xe9.csv is not UTF-8"):
        planned(connector(tmp_path))


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("/proc/self/mem")  # root may open it, nobody read its start
    with pytest.raises(PipelineError, match=r"a.csv"):
        planned(connector(tmp_path))


def test_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.csv").mkdir()
    with pytest.raises(SourceRejected, match=r"is a folder, no file \(write in.csv/\*"):
        planned(connector(tmp_path, "in.csv"))


def window(first: int, last: int) -> Window:
    return Window(
        start=datetime(2013, 1, first, tzinfo=UTC), end=datetime(2013, 1, last, tzinfo=UTC)
    )


def test_backfill_takes_the_files_of_its_days(tmp_path: Path) -> None:
    for day in range(1, 6):
        folder = tmp_path / f"2013-01-0{day}"
        folder.mkdir()
        (folder / "a.csv").write_bytes(LINES + b"%d\n" % day)
    (tmp_path / "2013-99-99").mkdir()
    (tmp_path / "2013-99-99" / "a.csv").write_bytes(LINES)
    made = connector(tmp_path, "{date:%Y-%m-%d}/*.csv")
    assert len(planned(made)) == 5
    (partition,) = made.plan(SourceState(window=window(2, 4)))
    assert [item.uri for item in partition.items] == ["2013-01-02/a.csv", "2013-01-03/a.csv"]
    assert partition.state == {}
    done = frozenset((item.uri, item.version) for item in partition.items)
    assert planned(made, items=done, window=window(2, 5)) == ["2013-01-04/a.csv"]


def test_backfill_of_files_without_dates_says_what_to_declare(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"tells no date.*write where the date is, e.g. inbox/\{date"
    ):
        planned(connector(tmp_path), window=window(1, 2))
