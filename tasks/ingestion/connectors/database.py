"""Tables and queries of a database that SQLAlchemy can reach; only what changed, by a cursor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.sql.selectable import FromClause

from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI, PlanLimits, RawBatch, Reject
from tasks.model.classify import classify
from tasks.model.columns import MAX_DECIMAL_PRECISION
from tasks.model.errors import SourceRejected
from tasks.model.run import Partition, SourceState
from tasks.model.source import DatabaseSource

FETCH_ROWS = 10_000


class DatabaseConnector:
    """Reads a table or a query.

    Args:
        dataset: Name of the dataset.
        source: Its declaration.
        engine: The database.
        limits: Bounds of values.
        now: Gives the time.
    """

    def __init__(
        self,
        dataset: str,
        source: DatabaseSource,
        engine: sa.Engine,
        limits: PlanLimits,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._dataset = dataset
        self._source = source
        self._engine = engine
        self._limits = limits
        self._now = now
        self._where = f"database block {source.block!r}"
        self._name = f"database:{source.block}/{source.table or 'query'}"

    def plan(self, state: SourceState) -> list[Partition]:
        """Return what changed since the last load, as one range of the cursor.

        The range begins at the last cursor, that row included: rows of the same cursor that were
        committed later are not lost, and merging makes those that were loaded already unchanged.
        """
        if self._source.cursor is None:
            as_of = self._now().replace(microsecond=0).isoformat()
            return [self._partition(self._name, {"as_of": as_of}, {})]
        latest = state.latest.get("cursor")
        low = None if latest is None else decode_cursor(latest)
        try:
            with self._engine.connect() as connection:
                table = self._table(connection)
                column = self._cursor_column(table)
                high, rows, nulls, ties = self._extent(connection, table, column, low)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise classify(error, self._where) from None
        known = {"cursor": encode_cursor(high), "ties": ties, "nulls": nulls}
        if (high is None and not nulls) or known == state.latest:
            return []
        bounds = {
            "after": latest,
            "to": known["cursor"],
            "rows": rows,
            "nulls": nulls if nulls != state.latest.get("nulls", 0) else 0,
        }
        label = f"{self._name} to {high}" if high is not None else self._name
        return [self._partition(label, bounds, known)]

    def _extent(
        self, connection: sa.Connection, table: FromClause, column: sa.ColumnElement[Any], low: Any
    ) -> tuple[Any, int, int, int]:
        """Return the largest cursor, and how many rows are new, have none, and share it."""
        new = column >= low if low is not None else column.is_not(None)
        high, rows, nulls = connection.execute(
            sa.select(
                sa.func.max(column),
                sa.func.count().filter(new),
                sa.func.count().filter(column.is_(None)),
            ).select_from(table)
        ).one()
        if high is None:
            return None, 0, nulls, 0
        ties = connection.scalar(
            sa.select(sa.func.count()).select_from(table).where(column == high)
        )
        return high, rows, nulls, int(ties or 0)

    def _partition(self, label: str, bounds: dict[str, Any], state: dict[str, Any]) -> Partition:
        request = {"table": self._source.table, "query": self._source.query}
        return Partition(
            dataset=self._dataset, label=label, slice={**request, **bounds}, state=state
        )

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the rows of a range through a cursor on the server."""
        try:
            with self._engine.connect() as connection:
                table = self._table(connection)
                query = self._query(table, partition.slice)
                result = connection.execution_options(
                    stream_results=True, yield_per=FETCH_ROWS
                ).execute(query)
                types = [_arrow_type(column.type) for column in table.columns]
                names = list(result.keys())
                number = 1
                for fetched in result.partitions():
                    yield self._batch(names, types, fetched, number)
                    number += len(fetched)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise classify(error, self._where) from None

    def _table(self, connection: sa.Connection) -> FromClause:
        if self._source.query is not None:
            statement = sa.text(self._source.query)
            try:
                names = connection.execute(
                    sa.select(sa.text("*"))
                    .select_from(
                        sa.text(f"({self._source.query}) AS q")  # the user's own SQL
                    )
                    .limit(0)
                ).keys()
            except sa.exc.DBAPIError as error:
                raise classify(error, self._where) from None
            return statement.columns(*(sa.column(name) for name in names)).subquery("q")
        name = self._source.table or ""
        schema, _, table = name.rpartition(".")
        try:
            return sa.Table(table, sa.MetaData(), schema=schema or None, autoload_with=connection)
        except sa.exc.NoSuchTableError:
            raise SourceRejected(
                f"{self._where}: there is no table {name}", "correct source.table, or grant SELECT"
            ) from None

    def _cursor_column(self, table: FromClause) -> sa.ColumnElement[Any]:
        name = self._source.cursor or ""
        if name not in table.columns:
            raise SourceRejected(
                f"{self._name}: no column {name!r} for the cursor; "
                f"there are {', '.join(table.columns.keys())}",
                "correct source.cursor",
            )
        return table.columns[name]

    def _query(self, table: FromClause, bounds: dict[str, Any]) -> sa.Select[Any]:
        query = sa.select(table)
        if self._source.cursor is None:
            return query.order_by(*table.primary_key)
        column = self._cursor_column(table)
        conditions: list[sa.ColumnElement[bool]] = []
        if bounds["to"] is not None:
            within = column <= decode_cursor(bounds["to"])
            if bounds["after"] is not None:
                within = sa.and_(within, column >= decode_cursor(bounds["after"]))
            conditions.append(within)
        if bounds["nulls"]:
            conditions.append(column.is_(None))
        return query.where(sa.or_(*conditions)).order_by(column, *table.primary_key)

    def _batch(
        self,
        names: Sequence[str],
        types: Sequence[pa.DataType],
        rows: Sequence[sa.Row[Any]],
        first: int,
    ) -> RawBatch:
        numbers = list(range(first, first + len(rows)))
        bad: dict[int, str] = {}
        columns = [
            _column(name, kind, [row[position] for row in rows], bad)
            for position, (name, kind) in enumerate(zip(names, types, strict=True))
        ]
        batch = pa.record_batch(
            [*columns, pa.repeat(self._name, len(rows)), pa.array(numbers, pa.int64())],
            names=[*names, SOURCE_URI, SOURCE_ROW],
        )
        if not bad:
            return RawBatch(batch)
        rejects = tuple(
            Reject(
                self._name,
                numbers[row],
                "type",
                message,
                json.dumps(dict(zip(names, map(str, rows[row]), strict=True)), ensure_ascii=False),
            )
            for row, message in sorted(bad.items())
        )
        return RawBatch(
            batch.filter(pa.array([row not in bad for row in range(len(rows))])), rejects
        )


def _arrow_type(kind: sa.types.TypeEngine[Any]) -> pa.DataType:
    """Return the Arrow type that holds every value of a column's type; text where none does."""
    if isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float):
        if kind.precision and kind.precision <= MAX_DECIMAL_PRECISION and kind.asdecimal:
            return pa.decimal128(kind.precision, kind.scale or 0)
        return pa.string()
    if isinstance(kind, sa.DateTime):
        return pa.timestamp("us", tz="UTC" if kind.timezone else None)
    for known, arrow in (
        (sa.Boolean, pa.bool_()),
        (sa.Integer, pa.int64()),
        (sa.Float, pa.float64()),
        (sa.Date, pa.date32()),
        (sa.Time, pa.time64("us")),
        (sa.LargeBinary, pa.binary()),
    ):
        if isinstance(kind, known):
            return arrow
    return pa.string()


def _column(name: str, kind: pa.DataType, values: list[Any], bad: dict[int, str]) -> pa.Array:
    """Build a column; a value that is not of its type marks its row as bad."""
    if pa.types.is_string(kind):
        return pa.array([_text(value) for value in values], kind)
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    kept: list[Any] = []
    for row, value in enumerate(values):
        try:
            pa.array([value], kind)
            kept.append(value)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            kept.append(None)
            bad.setdefault(row, f"{name}: the database holds a value that is no {kind}")
    return pa.array(kept, kind)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict | list):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def encode_cursor(value: Any) -> Any:
    """Write a cursor as JSON, with its type where JSON has none."""
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, UUID):
        return {"uuid": str(value)}
    raise SourceRejected(f"a cursor cannot be a {type(value).__name__}", "choose another column")


def decode_cursor(encoded: Any) -> Any:
    """Read what ``encode_cursor`` wrote."""
    if not isinstance(encoded, dict):
        return encoded
    ((kind, text),) = encoded.items()
    read: dict[str, Callable[[str], Any]] = {
        "datetime": datetime.fromisoformat,
        "date": date.fromisoformat,
        "decimal": Decimal,
        "uuid": UUID,
    }
    return read[kind](text)
