"""Tables and queries of a database that SQLAlchemy can reach; only what changed, by a cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import structlog

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.database import extent
from tasks.ingestion.database.cursors import window_bounds
from tasks.ingestion.database.failures import failures_named
from tasks.ingestion.database.postgres_copy import copy_rows
from tasks.ingestion.database.ranges import (
    Mark,
    Range,
    cut_range,
    increment,
)
from tasks.ingestion.database.relation import Relation, relation_of
from tasks.ingestion.database.sessions import SnapshotGone, reading
from tasks.ingestion.database.snapshots import SNAPSHOTS, Snapshots
from tasks.ingestion.database.streaming import stream_rows
from tasks.ingestion.database.values import all_refused
from tasks.ingestion.database.watch import CursorWatch
from tasks.model.database_source import DatabaseSource
from tasks.model.errors import ConfigError, SourceRejected
from tasks.model.partition import Partition, SourceItem
from tasks.model.request import SourceState, Window
from tasks.model.value import json_digest

log = structlog.get_logger("dpp.ingestion")


def slice_version(partition: Partition) -> str:
    """Return what stands for the slice of a partition, whether it is loaded anew or again."""
    return json_digest(partition.slice)[:32]


class DatabaseConnector:
    """Reads a table or a query.

    Args:
        dataset: Name of the dataset.
        source: Its declaration.
        engine: The database.
        limits: Bounds of partitions, batches and values.
        key: Columns of the source that tell its rows apart, to find those that are gone.
        settled: Is each row read once only, as ``load.mode: append`` needs it? Then the rows of the
            largest cursor wait until there is a larger one.
        now: Gives the time.
        snapshots: Keeps what the partitions of a plan share.
    """

    def __init__(
        self,
        dataset: str,
        source: DatabaseSource,
        engine: sa.Engine,
        limits: PlanLimits,
        *,
        key: Sequence[str] = (),
        settled: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        snapshots: Snapshots = SNAPSHOTS,
    ) -> None:
        self._dataset = dataset
        self._source = source
        self._engine = engine
        self._limits = limits
        self._key = list(key)
        self._settled = settled
        self._now = now
        self._snapshots = snapshots
        self._name = f"database:{source.block}/{source.table or 'query'}"
        self._where = f"database block {source.block!r}, {source.table or 'query'}"

    def plan(self, state: SourceState) -> list[Partition]:
        """Return what changed since the last load, or all rows, in ranges of a partition's size."""
        if state.window is not None and self._source.cursor is None:
            raise ConfigError(
                f"{self._dataset}: the source has no cursor, so its rows have no time to backfill",
                "declare source.cursor, a column of type date or timestamp; or run the dataset "
                "without a span: it is read whole",
            )
        with failures_named(self._where), ExitStack() as session:
            connection = session.enter_context(reading(self._engine))
            relation = relation_of(connection, self._source)
            if self._source.cursor is None:
                partitions = self._whole(connection, relation)
            elif state.window is not None:
                partitions = self._backfill(connection, relation, state, state.window)
            else:
                partitions = self._increment(connection, relation, state)
            if self._source.deletes and state.window is None and state.last_load is not None:
                partitions.append(self._keys(relation, state.last_load))
            self._share_snapshot(connection, partitions, session)
        return partitions

    def _partition(self, part: Range, extra: dict[str, Any] | None = None) -> Partition:
        request = {"table": self._source.table, "query": self._source.query}
        return Partition(
            dataset=self._dataset,
            label=f"{self._name}, {part.words}",
            slice={**request, **part.to_slice(), **(extra or {})},
        )

    def _with_item(self, partition: Partition) -> Partition:
        uri = partition.label.replace(", ", "?", 1)
        item = SourceItem(uri=uri, version=slice_version(partition))
        return partition.model_copy(update={"items": (item,)})

    def _whole(self, connection: sa.Connection, relation: Relation) -> list[Partition]:
        """Plan all rows of a source that does not say what changed."""
        as_of = {"as_of": self._now().isoformat()}
        column = extent.key_column(connection, self._source)
        if column is None:
            return [self._partition(Range(), as_of)]
        relation.column(column, "split_by")
        sample = extent.edge(connection, relation, column, last=True)
        whole = Range(column, with_nulls=True)
        if sample is None or not extent.encodable(sample):
            return [self._partition(Range(), as_of)]
        cuts = self._cuts(connection, relation, replace(whole, high=sample))
        pieces = cut_range(whole, cuts) if cuts else [Range()]
        return [self._partition(piece, as_of) for piece in pieces]

    def _keys(self, relation: Relation, last_load: int) -> Partition:
        """Plan the keys of all rows.

        Rows of loads after ``last_load`` may have been read after these keys; they are let be.
        """
        for name in self._key:
            relation.column(name, "key")
        extra = {"keys": self._key, "as_of": self._now().isoformat()}
        planned = self._partition(Range(), extra)
        label = f"{self._name}, all keys"
        return planned.model_copy(update={"label": label, "deletes_up_to": last_load})

    def _cuts(self, connection: sa.Connection, relation: Relation, whole: Range) -> list[Any]:
        size = self._limits.partition_bytes
        return extent.pieces(connection, relation, self._source, whole, size)

    def _increment(
        self, connection: sa.Connection, relation: Relation, state: SourceState
    ) -> list[Partition]:
        """Plan what is new since the mark, and what of the last plan was not committed."""
        watch = self._watch(connection, relation)
        mark = Mark.from_state(state.latest, watch.column)
        seen, low = watch.seen(mark)
        watch.refuse(seen, mark, self._where)
        planned, after = increment(mark, seen, low, settled=self._settled)
        planned = [piece for part in planned for piece in self._cut(connection, relation, part)]
        ranges = mark.missing(frozenset(version for _, version in state.items)) + planned
        if not planned:
            after = mark
        # Each is an item of the ledger: its fingerprint would be another one after a refresh.
        partitions = [self._with_item(self._partition(part)) for part in ranges]
        if len(partitions) > 1:
            after = replace(
                after,
                ranges=tuple(
                    (partition.items[0].version, part.to_slice())
                    for partition, part in zip(partitions, ranges, strict=True)
                ),
            )
        marked = {"state": after.to_state()}  # one for all: it can have a word about each of them
        return [each.model_copy(update=marked) for each in partitions]

    def _watch(self, connection: sa.Connection, relation: Relation) -> CursorWatch:
        return CursorWatch(connection, relation, self._source, self._now(), settled=self._settled)

    def _cut(self, connection: sa.Connection, relation: Relation, part: Range) -> list[Range]:
        if part.part != "range":
            return [part]
        return cut_range(part, self._cuts(connection, relation, part))

    def _backfill(
        self, connection: sa.Connection, relation: Relation, state: SourceState, window: Window
    ) -> list[Partition]:
        """Plan the rows whose cursor is in a span of time, and leave the mark where it is."""
        watch = self._watch(connection, relation)
        high = watch.edge()
        if high is None:
            return []
        low, end = window_bounds(window, high, watch.column)
        part = Range(watch.column, low, end)
        limit = watch.limit(high)
        cursor: sa.ColumnElement[Any] = sa.column(watch.column)
        past = [cursor <= limit] if limit is not None and end > limit else []
        last = watch.edge(cursor >= low, cursor < end, *past)
        if last is None:
            return []
        if last == watch.edge(*past):
            # The span is not over: what comes later is a partition of its own.
            part = replace(part, high=last, closed=True, version=(watch.digest(cursor == last),))
        planned = [self._partition(piece) for piece in self._cut(connection, relation, part)]
        return [each for each in planned if each.fingerprint not in state.fingerprints]

    def _share_snapshot(
        self, connection: sa.Connection, partitions: list[Partition], session: ExitStack
    ) -> None:
        """Keep the planning transaction, so that the partitions are read in its snapshot."""
        wanted, able = self._source.snapshot, connection.dialect.name == "postgresql"
        if wanted == "require" and not able:
            raise ConfigError(
                f"{self._where}: only PostgreSQL can share a snapshot between partitions",
                "declare source.snapshot: prefer; each partition then sees one state of its own",
            )
        if not able or wanted == "none" or not partitions:
            return
        if len(partitions) == 1 and wanted == "prefer":
            return
        connection.execute(
            sa.select(sa.func.set_config("idle_in_transaction_session_timeout", "0", sa.true()))
        )
        name = connection.scalar(sa.select(sa.func.pg_export_snapshot()))
        self._snapshots.hold(
            self._dataset,
            str(name),
            [slice_version(partition) for partition in partitions],
            session.pop_all(),
        )

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the rows of a range; each attempt begins from the start of it."""
        with failures_named(self._where):
            yield from self._read(partition)
        self._snapshots.read(self._dataset, slice_version(partition))

    def _read(self, partition: Partition) -> Iterator[RawBatch]:
        part = Range.from_slice(partition.slice)
        with ExitStack() as session:
            connection = self._transaction(partition, session)
            relation = relation_of(connection, self._source)
            if part.column is not None:
                relation.column(part.column, "cursor" if self._source.cursor else "split_by")
            uri = self._name if part.column is None else f"{self._name}?{part.words}"
            if keys := partition.slice.get("keys"):
                relation = replace(relation, columns=[relation.column(key, "key") for key in keys])
                uri = f"{self._name}?keys"
            query, columns = relation.select(part), relation.columns
            if keys:  # a row without a key was never loaded
                query = query.where(*(sa.column(key).is_not(None) for key in keys))
            is_copy = (
                connection.dialect.name == "postgresql" and connection.dialect.driver == "psycopg2"
            )
            rows = (copy_rows if is_copy else stream_rows)(
                connection, query, columns, uri, self._limits
            )
            for batch in rows:
                yield self._refused(batch, part) or batch

    def _transaction(self, partition: Partition, session: ExitStack) -> sa.Connection:
        name = self._snapshots.find(self._dataset, slice_version(partition))
        if name is not None:
            try:
                return session.enter_context(reading(self._engine, name))
            except SnapshotGone:
                name = None
        if self._source.snapshot == "require":
            raise SourceRejected(
                f"{self._where}: the snapshot in which {partition.label} was planned is gone",
                "run the dataset again: it plans a new one; or declare source.snapshot: prefer",
            )
        if self._source.snapshot == "prefer" and partition.slice["column"] is not None:
            log.debug("ingestion.own_snapshot", source=self._name, partition=partition.label)
        return session.enter_context(reading(self._engine))

    def _refused(self, batch: RawBatch, part: Range) -> RawBatch | None:
        """Turn the rows of a range that is declared so into rejects."""
        rules = {
            "nulls": (self._source.null_cursor, "cursor_null", "has no value"),
            "future": ("quarantine", "cursor_future", "is later than now"),
        }
        action, rule, words = rules.get(part.part, ("include", "", ""))
        if action != "quarantine" or batch.batch is None:
            return None
        return all_refused(batch, rule, f"{part.column} {words}")
