"""What a source says of its rows without giving them: cursors, sizes, and where to cut.

No question here reads a whole table, if there is an index on the cursor: sizes and cuts come from
the statistics that the database keeps anyway.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from tasks.ingestion.database.cursors import even_cuts
from tasks.ingestion.database.ranges import MOST_PARTITIONS, Range
from tasks.ingestion.database.reflected import MYSQL
from tasks.ingestion.database.relation import ALIAS, Relation
from tasks.model.database_source import DatabaseSource

Condition = sa.ColumnElement[bool]


def edge(
    connection: sa.Connection, relation: Relation, name: str, *conditions: Condition, last: bool
) -> Any:
    """Return the largest or smallest value of a column, None if there is none."""
    column: sa.ColumnElement[Any] = sa.column(name)
    query = (
        sa.select(column)
        .select_from(relation.selectable)
        .where(column.is_not(None), *conditions)
        .order_by(column.desc() if last else column)
        .limit(1)
    )
    return connection.scalar(query)


def digest(
    connection: sa.Connection, relation: Relation, as_of: str | None, *conditions: Condition
) -> str | None:
    """Return a text that stands for some rows: it changes when they do. None if there are none.

    PostgreSQL sums up a hash of each row. Elsewhere it is the number of rows, and the time, if a
    change that leaves their number as it is must not go unnoticed.

    Args:
        connection: The source.
        relation: The table or query.
        as_of: The time; None if the number will do.
        conditions: Which rows.
    """
    number: list[sa.ColumnElement[Any]] = [sa.func.count()]
    if connection.dialect.name == "postgresql":
        row = sa.cast(sa.literal_column(ALIAS), sa.Text)
        number.append(sa.func.sum(sa.func.hashtextextended(row, 0)))
        as_of = None
    found = connection.execute(
        sa.select(*number).select_from(relation.selectable).where(*conditions)
    ).one()
    if not found[0]:
        return None
    return "/".join(str(part) for part in (*found, as_of) if part is not None)


def pieces(
    connection: sa.Connection,
    relation: Relation,
    source: DatabaseSource,
    whole: Range,
    target_bytes: int,
) -> list[Any]:
    """Return where to cut a range, so that each piece is about as large as a partition should be.

    Args:
        connection: The source.
        relation: The table or query.
        source: Its declaration.
        whole: The range; it has a column.
        target_bytes: Size of a partition.
    """
    assert whole.column is not None
    # Without an index each piece would read the whole table.
    if source.split_by is None and not _is_indexed(connection, source, whole.column):
        return []
    if connection.dialect.name == "postgresql":
        parts = _parts(_planned_bytes(connection, relation, whole), target_bytes)
        cuts = _histogram(connection, source, whole) if parts > 1 else []
        if len(cuts) >= parts - 1:
            return _thinned(cuts, parts)
    else:
        parts = _parts(_estimated_bytes(connection, relation, source, whole), target_bytes)
    if parts == 1:
        return []
    low, high = whole.low, whole.high
    if low is None:
        low = edge(connection, relation, whole.column, last=False)
    if high is None:
        high = edge(connection, relation, whole.column, last=True)
    cuts = even_cuts(low, high, parts) if low is not None else []
    return [cut for cut in cuts if encodable(cut)]


def encodable(value: Any) -> bool:
    """Tell whether a partition can be bounded by a value."""
    return isinstance(value, int | str | date | datetime | Decimal)


def _parts(size: int, target_bytes: int) -> int:
    return max(1, min(MOST_PARTITIONS, -(-size // target_bytes)))


def _planned_bytes(connection: sa.Connection, relation: Relation, whole: Range) -> int:
    """Return what PostgreSQL's planner expects of a range, from its statistics."""
    explained = _explain(connection, "EXPLAIN (FORMAT JSON)", relation.select(whole)).scalar_one()
    plan = (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]
    return int(plan["Plan Rows"]) * int(plan["Plan Width"])


def _estimated_bytes(
    connection: sa.Connection, relation: Relation, source: DatabaseSource, whole: Range
) -> int:
    """Return about how large a range is: MySQL estimates it from its index, SQLite counts there."""
    if source.table is None:
        return 0
    if connection.dialect.name in MYSQL:
        return _mysql_bytes(connection, relation, source.table, whole)
    if connection.dialect.name == "sqlite":
        count = sa.select(sa.func.count()).select_from(relation.selectable)
        all_rows = connection.scalar(count) or 1
        rows = connection.scalar(count.where(*relation.conditions(whole))) or 0
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        size = int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())
        return size * int(rows) // int(all_rows)
    return 0


def _mysql_bytes(connection: sa.Connection, relation: Relation, name: str, whole: Range) -> int:
    schema, _, table = name.rpartition(".")
    tables = sa.table(
        "tables",
        sa.column("avg_row_length"),
        sa.column("table_schema"),
        sa.column("table_name"),
        schema="information_schema",
    )
    row_bytes = connection.scalar(
        sa.select(tables.c.avg_row_length).where(
            tables.c.table_name == table, tables.c.table_schema == (schema or sa.func.database())
        )
    )
    explained = _explain(connection, "EXPLAIN", relation.select(whole)).mappings().first()
    rows = explained["rows"] if explained is not None else 0
    return int(row_bytes or 0) * int(rows or 0)


def _explain(connection: sa.Connection, verb: str, query: sa.Select[Any]) -> sa.CursorResult[Any]:
    compiled = query.compile(dialect=connection.dialect)
    return connection.exec_driver_sql(f"{verb} {compiled}", compiled.params)


def _is_indexed(connection: sa.Connection, source: DatabaseSource, column: str) -> bool:
    """Tell whether an index or key of the table begins with a column."""
    if source.table is None:
        return False
    schema, _, table = source.table.rpartition(".")
    inspector = sa.inspect(connection)
    key = inspector.get_pk_constraint(table, schema=schema or None)["constrained_columns"]
    indexes = inspector.get_indexes(table, schema=schema or None)
    firsts = [key[:1], *(list(index["column_names"])[:1] for index in indexes)]
    return [column] in firsts


def key_column(connection: sa.Connection, source: DatabaseSource) -> str | None:
    """Return the column by which a table without cursor is cut, None if there is none."""
    if source.split_by is not None or source.table is None:
        return source.split_by
    schema, _, table = source.table.rpartition(".")
    key = sa.inspect(connection).get_pk_constraint(table, schema=schema or None)
    return next(iter(key["constrained_columns"]), None)


def _histogram(connection: sa.Connection, source: DatabaseSource, whole: Range) -> list[Any]:
    """Return values of a column with about equally many rows between them, from ``pg_stats``."""
    if source.table is None:
        return []
    schema, _, table = source.table.rpartition(".")
    bounds = sa.cast(sa.cast(sa.column("histogram_bounds"), sa.Text), sa.ARRAY(sa.Text))
    texts = connection.scalar(
        sa.select(bounds)
        .select_from(sa.table("pg_stats", schema="pg_catalog"))
        .where(
            sa.column("tablename") == table,
            sa.column("attname") == whole.column,
            sa.column("schemaname") == (schema or sa.func.current_schema()),
        )
        .order_by(sa.column("inherited").desc())
        .limit(1)
    )
    sample = whole.high if whole.high is not None else whole.low
    values = [_parsed(text, sample) for text in texts or []]
    return [
        value
        for value in values
        if value is not None
        and (whole.low is None or value > whole.low)
        and (whole.high is None or value < whole.high)
    ]


def _parsed(text: str, sample: Any) -> Any:
    """Read a text as a value of the same type as another one; None if it is none."""
    try:
        if isinstance(sample, datetime):
            return datetime.fromisoformat(text)
        if isinstance(sample, date):
            return date.fromisoformat(text)
        return type(sample)(text)
    except (ValueError, ArithmeticError):
        return None


def _thinned(cuts: list[Any], parts: int) -> list[Any]:
    """Choose ``parts - 1`` cuts, evenly."""
    chosen = {cuts[len(cuts) * part // parts] for part in range(1, parts)}
    return sorted(chosen)
