"""What the tests of databases share: a table, a connector, and its rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from blocks.source_database import SourceDatabase
from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.connectors.database import DatabaseConnector
from tasks.ingestion.database.snapshots import Snapshots
from tasks.model.database_source import DatabaseSource
from tasks.model.partition import Partition
from tasks.model.request import SourceState

NOW = datetime(2013, 6, 1, tzinfo=UTC)


def statements(engine: sa.Engine, *texts: str) -> None:
    with engine.begin() as connection:
        for text in texts:
            connection.exec_driver_sql(
                text.replace("%", "%%") if "sqlite" not in str(engine.url) else text
            )


def insert_many(engine: sa.Engine, rows: int, columns: str, row: Callable[[int], str]) -> None:
    """Insert rows a thousand at a time, and have the statistics made."""
    for first in range(0, rows, 1000):
        values = ", ".join(row(i) for i in range(first, min(first + 1000, rows)))
        statements(engine, f"INSERT INTO things ({columns}) VALUES {values}")
    if engine.dialect.name != "sqlite":
        table = "" if engine.dialect.name == "postgresql" else "TABLE"
        statements(engine, f"ANALYZE {table} things")


_READERS: dict[str, sa.Engine] = {}


def reader(url: sa.URL) -> sa.Engine:
    """Return an engine as the block makes it."""
    text = url.render_as_string(hide_password=False)
    if text not in _READERS:
        _READERS[text] = SourceDatabase.from_url(text).get_engine()
    return _READERS[text]


def dispose_readers() -> None:
    while _READERS:
        _READERS.popitem()[1].dispose()


def connector(
    engine: sa.Engine, *, settled: bool = False, limits: PlanLimits | None = None,
    snapshots: Snapshots | None = None, now: datetime = NOW, **source: Any,
) -> DatabaseConnector:  # fmt: skip
    declared = {"kind": "database", "block": "b", "table": "things", **source}
    return DatabaseConnector(
        "things", DatabaseSource.model_validate(declared), reader(engine.url), limits or PlanLimits(),
        settled=settled, now=lambda: now, snapshots=snapshots or Snapshots(),
    )  # fmt: skip


def read(
    made: DatabaseConnector, *partitions: Partition
) -> tuple[list[dict[str, Any]], list[Reject]]:
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for partition in partitions:
        for raw in made.read(partition):
            rows += raw.batch.to_pylist() if raw.batch is not None else []
            rejects += raw.rejects
    return rows, rejects


class Ledger:
    """Runs a connector again and again, as the product does: plan, read, commit."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}
        self.fingerprints: set[str] = set()
        self.items: set[tuple[str, str]] = set()

    @property
    def state(self) -> SourceState:
        return SourceState(
            latest=self.latest,
            fingerprints=frozenset(self.fingerprints),
            items=frozenset(self.items),
        )

    def commit(self, partition: Partition) -> None:
        assert partition.fingerprint not in self.fingerprints, "it would be skipped as loaded"
        self.fingerprints.add(partition.fingerprint)
        new = {(item.uri, item.version) for item in partition.items}
        assert partition.refresh or not new & self.items, "the ledger has it from another partition"
        self.items |= new
        if partition.state:
            self.latest = partition.state

    def run(self, made: DatabaseConnector) -> tuple[list[dict[str, Any]], list[Reject]]:
        """Read and commit all that is planned."""
        planned = made.plan(self.state)
        found = read(made, *planned)
        for partition in planned:
            self.commit(partition)
        return found

    def ids(self, made: DatabaseConnector) -> list[Any]:
        return sorted(row["id"] for row in self.run(made)[0])
