"""What the ledger says: of a source, of the loads of a dataset so far, and of what they made."""

from __future__ import annotations

from datetime import datetime

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from tasks.loading.queries import query
from tasks.loading.session import one_row, session
from tasks.model.partition import Partition
from tasks.model.report import RowCounts
from tasks.model.request import SourceState
from tasks.model.value import Value


def source_state(engine: Engine, dataset: str) -> SourceState:
    """Return what the ledger knows of a dataset's source."""
    key = {"dataset": dataset}
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("committed_items"), key)
        found = [(str(uri), str(version), str(part)) for uri, version, part in cursor]
        cursor.execute(query("committed_fingerprints"), key)
        fingerprints = frozenset(str(row[0]) for row in cursor)
        cursor.execute(query("latest_state"), key)
        latest = cursor.fetchone()
        last = last_load(cursor, dataset) or None
    return SourceState(
        items=frozenset((uri, version) for uri, version, part in found if not part),
        parts=frozenset(item for item in found if item[2]),
        fingerprints=fingerprints,
        latest=latest[0] if latest else {},
        last_load=last,
    )


def last_load(cursor: Cursor, dataset: str) -> int:
    """Return the id of a dataset's last load, 0 if there was none."""
    cursor.execute(query("last_load"), {"dataset": dataset})
    return int(one_row(cursor)[0] or 0)


class LoadSizes(Value):
    """How large the loads of a dataset were so far."""

    loads: int
    rows: int
    rows_of_bytes: int
    """Rows of the loads whose bytes are known."""
    bytes: int

    def expected_rows(self, partition: Partition) -> int | None:
        """Estimate the rows of a partition; None if nothing like it was ever loaded."""
        if partition.bytes and self.bytes:
            return round(self.rows_of_bytes * partition.bytes / self.bytes)
        return round(self.rows / self.loads) if self.loads else None


def load_sizes(engine: Engine, dataset: str) -> LoadSizes:
    """Return how large the loads of a dataset were."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("load_sizes"), {"dataset": dataset})
        names = list(LoadSizes.model_fields)
        return LoadSizes(**dict(zip(names, one_row(cursor), strict=True)))


class DatasetStatus(Value):
    """What one dataset holds according to the ledger."""

    dataset: str
    target: str
    loads: int
    counts: RowCounts
    loaded_at: datetime
    run: str
    configurations: int
    """Number of different dataset files that its loads were made with."""
    config_hash: str
    """The one of the last load."""


def status(engine: Engine) -> list[DatasetStatus]:
    """Return what each dataset holds."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("status"))
        return [
            DatasetStatus(
                dataset=dataset,
                target=target,
                loads=loads,
                counts=RowCounts.of(counts),
                loaded_at=loaded_at,
                run=run,
                configurations=configurations,
                config_hash=config_hash,
            )
            for dataset, target, loads, *counts, loaded_at, run, configurations, config_hash in cursor
        ]


def quarantine_manifests(engine: Engine, dataset: str) -> list[str]:
    """Return the manifests that name the quarantine files of a dataset."""
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("quarantine_manifests"), {"dataset": dataset})
        return [str(row[0]) for row in cursor]
