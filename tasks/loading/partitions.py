"""The partitions of a dataset's table: made for the rows of a load, and ahead of the next ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.listed import listed
from tasks.loading.queries import query
from tasks.loading.ranges import (
    Point,
    Range,
    bounded,
    is_regular,
    missing_ranges,
    range_suffix,
    read_point,
)
from tasks.loading.schema import TargetColumn, postgres_type, staged_value, target
from tasks.loading.session import one_row
from tasks.model.column_types import is_integer
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, GateFailed
from tasks.model.names import named_within_limit
from tasks.model.table import PartitionBy

MAX_NEW = 500
"""Each takes several locks, and a server has a few thousand."""
DEFAULT = "pdefault"
SHOWN = 3

log = structlog.get_logger("dpp.loading")


@dataclass(frozen=True, slots=True)
class TablePartition:
    """A partition that is there.

    Attributes:
        schema: Its schema.
        name: Its name.
        range: What it holds; None of the default partition.
    """

    schema: str
    name: str
    range: Range | None


def prepare_partitions(
    cursor: Cursor, spec: DatasetSpec, staged: Mapping[str, Sequence[TargetColumn]]
) -> None:
    """Make the partitions that the staged rows need, and those that are made ahead.

    Call it when it is our turn to publish into the table.

    Args:
        cursor: In the transaction of the load.
        spec: The dataset; nothing happens if its table is not partitioned.
        staged: Temporary tables with rows, each with the columns of the target that its rows fill.

    Raises:
        GateFailed: Rows are outside of what the dataset file lets in.
        ContractBroken: There would be too many new ones, or the name of one is taken.
    """
    by = spec.load.partition_by
    if by is None:
        return
    points: set[Point] = set()
    for table, columns in staged.items():
        points |= _staged_points(cursor, spec, by, columns, table)
    make_partitions(cursor, spec, list(points))


def make_partitions(cursor: Cursor, spec: DatasetSpec, points: Sequence[Point] = ()) -> list[str]:
    """Make the partitions of some values, and those ahead, unless they are there; return names."""
    by = spec.load.partition_by
    assert by is not None
    there = partitions_of(cursor, spec)
    has_default = any(one.range is None for one in there)
    if by.outside == "default" and not has_default:
        _create_default(cursor, spec)
        has_default = True
    ranges = [one.range for one in there if one.range is not None]
    now = current_time(cursor, spec)
    needed = _regular(spec, by, points, ranges, now)
    missing = missing_ranges(by, needed, now, ranges)
    if len(missing) > MAX_NEW:
        raise ContractBroken(
            f"{spec.load.table}: {len(missing)} partitions would be made at once, {MAX_NEW} are "
            f"allowed; the rows have values of {by.column} from {min(needed)} to {max(needed)}",
            "choose a larger load.partition_by.every, or outside: default; or correct the values",
        )
    for one in missing:
        _create(cursor, spec, one, has_default=has_default)
    if missing:
        log.info("partitions.made", table=spec.load.table, partitions=len(missing))
    return [partition_name(spec, one) for one in missing]


def largest_points(cursor: Cursor, spec: DatasetSpec) -> list[Point]:
    """Return the largest number in the table, from where to look ahead; of times that is the clock."""
    by = spec.load.partition_by
    assert by is not None
    if not is_integer(_column(spec).type):
        return []
    cursor.execute(
        sql.SQL("SELECT max({})::text FROM {}").format(sql.Identifier(by.column), target(spec))
    )
    row = cursor.fetchone()
    return [read_point(row[0], numbers=True)] if row and row[0] is not None else []


def partitions_of(cursor: Cursor, spec: DatasetSpec) -> list[TablePartition]:
    """Return the partitions of the dataset's table; none if it has none or is not there."""
    by = spec.load.partition_by
    assert by is not None
    numbers = is_integer(_column(spec).type)
    cursor.execute(query("partitions"), {"table": spec.load.table})
    return [
        TablePartition(schema, name, bounded(bounds, numbers=numbers))
        for schema, name, bounds in cursor.fetchall()
    ]


def current_time(cursor: Cursor, spec: DatasetSpec) -> datetime | None:
    """Return the time of the server in UTC; None where partitions are ranges of numbers."""
    if is_integer(_column(spec).type):
        return None
    cursor.execute("SELECT now() AT TIME ZONE 'UTC'")
    found: datetime = one_row(cursor)[0]
    return found


def partition_name(spec: DatasetSpec, one: Range) -> str:
    """Return the name of the partition of a range."""
    by = spec.load.partition_by
    assert by is not None
    return named_within_limit(spec.table_name, range_suffix(one, by.every))


def partition_statements(spec: DatasetSpec, one: Range) -> list[sql.Composed]:
    """Return the DDL of a partition.

    It is made as a table and attached then, because CREATE … PARTITION OF would lock readers out.
    """
    name = sql.Identifier(spec.schema_name, partition_name(spec, one))
    return [
        _like(spec, name),
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            target(spec),
            name,
            _bound(spec, one.lower, "MINVALUE"),
            _bound(spec, one.upper, "MAXVALUE"),
        ),
    ]


def default_statements(spec: DatasetSpec) -> list[sql.Composed]:
    """Return the DDL of the default partition."""
    name = sql.Identifier(spec.schema_name, named_within_limit(spec.table_name, DEFAULT))
    return [
        _like(spec, name),
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} DEFAULT").format(target(spec), name),
    ]


def _like(spec: DatasetSpec, name: sql.Identifier) -> sql.Composed:
    # Its indexes are those of the whole table, and come with ATTACH.
    return sql.SQL(
        "CREATE TABLE {} (LIKE {} INCLUDING COMMENTS INCLUDING COMPRESSION INCLUDING CONSTRAINTS "
        "INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STATISTICS INCLUDING STORAGE)"
    ).format(name, target(spec))


def _column(spec: DatasetSpec) -> ColumnSpec:
    column = spec.partition_column
    assert column is not None, "the dataset file is validated"
    return column


def _bound(spec: DatasetSpec, point: Point | None, without: str) -> sql.Composable:
    if point is None:
        return sql.SQL(without)
    if isinstance(point, int):
        return sql.Literal(point)
    by = spec.load.partition_by
    assert by is not None
    kind = postgres_type(_column(spec))
    zone = "+00" if kind == "timestamp with time zone" else ""
    text = point.date().isoformat() if kind == "date" else f"{point.isoformat(sep=' ')}{zone}"
    return sql.Literal(text)


def _create(cursor: Cursor, spec: DatasetSpec, one: Range, *, has_default: bool) -> None:
    name = partition_name(spec, one)
    _check_name(cursor, spec, name)
    create, attach = partition_statements(spec, one)
    cursor.execute(create)
    if has_default:
        _move_from_default(cursor, spec, one, name)
    cursor.execute(attach)


def _check_name(cursor: Cursor, spec: DatasetSpec, name: str) -> None:
    cursor.execute(query("relation_exists"), {"name": f"{spec.schema_name}.{name}"})
    if cursor.fetchone() == (True,):
        raise ContractBroken(
            f"{spec.load.table}: its next partition would be called {name}, and {spec.schema_name} "
            "has something of that name",
            "rename that; if it was a partition of this table, attach it again or drop it",
        )


def _create_default(cursor: Cursor, spec: DatasetSpec) -> None:
    _check_name(cursor, spec, named_within_limit(spec.table_name, DEFAULT))
    for statement in default_statements(spec):
        cursor.execute(statement)


def _move_from_default(cursor: Cursor, spec: DatasetSpec, one: Range, name: str) -> None:
    """Move the rows of a range out of the default partition: both may not have them."""
    default = next(each for each in partitions_of(cursor, spec) if each.range is None)
    cursor.execute(query("plain_columns"), {"table": spec.load.table})
    columns = listed([row[0] for row in cursor.fetchall()])
    cursor.execute(
        sql.SQL(
            "WITH moved AS (DELETE FROM {} WHERE {} RETURNING {columns}) "
            "INSERT INTO {} ({columns}) SELECT {columns} FROM moved"
        ).format(
            sql.Identifier(default.schema, default.name),
            in_range(spec, one),
            sql.Identifier(spec.schema_name, name),
            columns=columns,
        )
    )


def in_range(spec: DatasetSpec, one: Range) -> sql.Composed:
    """Return the condition of the rows in a range."""
    by = spec.load.partition_by
    assert by is not None
    column, kind = sql.Identifier(by.column), sql.SQL(postgres_type(_column(spec)))
    conditions: list[sql.Composable] = [sql.SQL("{} IS NOT NULL").format(column)]
    for operator, point in ((">=", one.lower), ("<", one.upper)):
        if point is not None:
            conditions.append(
                sql.SQL("{} {} {}::{}").format(
                    column, sql.SQL(operator), _bound(spec, point, ""), kind
                )
            )
    return sql.SQL(" AND ").join(conditions)


def _staged_points(
    cursor: Cursor,
    spec: DatasetSpec,
    by: PartitionBy,
    columns: Sequence[TargetColumn],
    table: str,
) -> set[Point]:
    """Return the beginning of each period that there are staged rows for."""
    column = next(column for column in columns if column.name == spec.partition_source)
    statement = sql.SQL("SELECT DISTINCT ({})::text FROM {}").format(
        period_begin(by, staged_value(column), column.type), sql.Identifier("pg_temp", table)
    )
    cursor.execute(statement)
    numbers = is_integer(_column(spec).type)
    return {read_point(row[0], numbers=numbers) for row in cursor.fetchall()}


def period_begin(by: PartitionBy, value: sql.Composable, kind: str) -> sql.Composed:
    """Return SQL for the beginning of the period that a value is in."""
    if isinstance(by.every, int):
        # Division would round: a partition may have more numbers than a quotient has digits.
        return sql.SQL("{0}::numeric - mod(mod({0}::numeric, {1}) + {1}, {1})").format(
            sql.SQL("({})").format(value), sql.Literal(by.every)
        )
    zoned = kind == "timestamp with time zone"
    naive = "({}) AT TIME ZONE 'UTC'" if zoned else "({})::timestamp"
    return sql.SQL("date_trunc({}, {})").format(sql.Literal(by.every), sql.SQL(naive).format(value))


def _regular(
    spec: DatasetSpec,
    by: PartitionBy,
    points: Sequence[Point],
    there: Sequence[Range],
    now: datetime | None,
) -> list[Point]:
    """Return those of the values that get partitions, as the dataset file says.

    Raises:
        GateFailed: Some are outside, and are to be refused.
    """
    if by.outside == "create" or now is None:
        return list(points)
    regular: list[Point] = []
    outside: list[datetime] = []
    for point in points:
        assert isinstance(point, datetime)
        if is_regular(by, point, now) or any(one.covers(point) for one in there):
            regular.append(point)
        else:
            outside.append(point)
    if outside and by.outside == "refuse":
        named = ", ".join(f"{point:%Y-%m-%d}" for point in sorted(outside)[:SHOWN])
        raise GateFailed(
            f"{spec.name}: load.partition_by: there are rows of {len(outside)} periods that are older "
            f"than the retention or too far ahead, the first from {named} on",
            "nothing was published; correct them, or choose outside: create or default",
        )
    return regular
