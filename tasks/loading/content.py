"""Compares a table with what the lake says it must hold, and names the rows that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.expected import Expected, fetch_into
from tasks.loading.schema import LOAD_ID, target
from tasks.model.dataset import DatasetSpec

LISTED = 20
"""Rows that are named; the others are counted."""

What = Literal["missing", "not of the lake", "changed", "older", "under another load"]


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A row that is not as the lake says.

    Attributes:
        what: In which way.
        k: Hash of its key.
        h: Hash of the row, as it must be; of one that must not be there, as it is.
        expected_load: The load that it must carry; None if it must not be there.
        found_load: The load that it carries; None if it is not there.
    """

    what: What
    k: str
    h: int
    expected_load: int | None
    found_load: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is different.

    Attributes:
        loads: Loads whose rows are not as they must be: id → rows and checksum, expected and found.
        sums: The same of all loads.
        rows: Number of different rows, by what is wrong with them.
        listed: The first of them.
    """

    loads: Mapping[int, tuple[tuple[int, int], tuple[int, int]]]
    rows: Mapping[What, int]
    listed: tuple[RowDifference, ...]
    sums: Mapping[int, tuple[tuple[int, int], tuple[int, int]]]


def table_values(names: Sequence[str]) -> dict[str, sql.Composable]:
    """Return the columns of a table as values of a statement."""
    return {name: sql.Identifier("t", name) for name in names}


def table_sums(cursor: Cursor, spec: DatasetSpec, expected: Expected) -> dict[int, tuple[int, int]]:
    """Return the number of rows and their checksum, by load, as the table has them."""
    layout = expected.layout
    values = table_values([column.name for column in layout.columns])
    cursor.execute(
        sql.SQL("SELECT t.{0}, count(*), sum({1}) FROM {2} t GROUP BY t.{0}").format(
            sql.Identifier(LOAD_ID), layout.row_hash(values), target(spec)
        )
    )
    return {int(load): (int(rows), int(total)) for load, rows, total in cursor.fetchall()}


def fetch_actual(
    cursor: Cursor, spec: DatasetSpec, expected: Expected, loads: Sequence[int]
) -> None:
    """Put what the table has of some loads into the session's table ``actual``."""
    layout = expected.layout
    names = {column.name for column in (*layout.columns, *layout.key)}
    values = table_values(sorted(names))
    statement = sql.SQL("SELECT {}, {}, t.{}, {} FROM {} t WHERE t.{} = ANY({})").format(
        layout.key_hash(values),
        layout.order_of(values),
        sql.Identifier(LOAD_ID),
        layout.row_hash(values),
        target(spec),
        sql.Identifier(LOAD_ID),
        sql.Literal(list(loads)),
    )
    expected.connection.execute("DELETE FROM actual")
    fetch_into(cursor, statement, expected.connection, "actual", layout.order, expected.scratch)


def compare(
    cursor: Cursor, spec: DatasetSpec, expected: Expected, unknown: Sequence[int] = ()
) -> Comparison:
    """Compare a table with what it must hold.

    Args:
        cursor: In a snapshot of the warehouse.
        spec: The dataset.
        expected: What the table must hold.
        unknown: Loads whose files are gone by retention: their rows cannot be compared, and what they
            kept in the table does not have to be what later loads say.
    """
    if unknown:
        fetch_actual(cursor, spec, expected, unknown)
        expected.connection.execute("DELETE FROM expected WHERE k IN (SELECT k FROM actual)")
    found = table_sums(cursor, spec, expected)
    wanted = expected.sums()
    nothing = (0, 0)
    sums = {
        load: (wanted.get(load, nothing), found.get(load, nothing))
        for load in sorted({*wanted, *found}.difference(unknown))
    }
    different = {load: sides for load, sides in sums.items() if sides[0] != sides[1]}
    if not different:
        return Comparison({}, {}, (), sums)
    fetch_actual(cursor, spec, expected, list(different))
    connection = expected.connection
    connection.execute(
        "CREATE OR REPLACE TABLE differing AS SELECT unnest(?::BIGINT[]) AS load", [list(different)]
    )
    query = KEYED if expected.layout.key else _KEYLESS
    connection.execute(f"CREATE OR REPLACE TABLE differences AS {query}")
    counts = connection.execute(
        "SELECT what, count(*) FROM differences GROUP BY what ORDER BY what"
    ).fetchall()
    listed = connection.execute(
        "SELECT what, k::VARCHAR, h, expected_load, found_load FROM differences "
        f"ORDER BY coalesce(expected_load, found_load), what, k, h LIMIT {LISTED}"
    ).fetchall()
    rows = tuple(RowDifference(*row) for row in listed)
    return Comparison(different, dict(counts), rows, sums)


KEYED = """
WITH wanted AS (SELECT * FROM expected WHERE load IN (SELECT load FROM differing))
SELECT CASE WHEN a.k IS NULL THEN 'missing' WHEN w.k IS NULL THEN 'not of the lake'
            WHEN a.cur < w.cur OR (a.cur IS NULL AND w.cur IS NOT NULL) THEN 'older'
            WHEN a.h <> w.h THEN 'changed' ELSE 'under another load' END AS what,
       coalesce(w.k, a.k) AS k, coalesce(w.h, a.h) AS h,
       w.load AS expected_load, a.load AS found_load
FROM wanted w FULL JOIN actual a ON w.k = a.k
WHERE w.k IS NULL OR a.k IS NULL OR w.h <> a.h OR w.load <> a.load
"""
_KEYLESS = """
WITH wanted AS (SELECT load, h, count(*) AS n FROM expected
                WHERE load IN (SELECT load FROM differing) GROUP BY ALL),
     there AS (SELECT load, h, count(*) AS n FROM actual GROUP BY ALL),
     sides AS (SELECT load, h, coalesce(w.n, 0) - coalesce(t.n, 0) AS lacking
               FROM wanted w FULL JOIN there t USING (load, h))
SELECT CASE WHEN lacking > 0 THEN 'missing' ELSE 'not of the lake' END AS what, k, h,
       CASE WHEN lacking > 0 THEN load END AS expected_load,
       CASE WHEN lacking < 0 THEN load END AS found_load
FROM sides, (SELECT NULL::UUID AS k), range(abs(lacking)) WHERE lacking <> 0
"""
"""Rows without a key are told by their content: as many as are lacking, or too many, of each."""
