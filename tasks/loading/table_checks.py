"""The invariants that connect ledger and table: counts, keys, columns, and the search index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.checks import Check, LedgerRow, check, shown
from tasks.loading.companion import companion_exists
from tasks.loading.evolution import MAX_COLUMNS
from tasks.loading.listed import listed
from tasks.loading.modes.merge import TOMBSTONES, remembers_deletions, revived_statement
from tasks.loading.modes.scd2 import broken_versions_statement
from tasks.loading.queries import query
from tasks.loading.schema import LOAD_ID, existing_columns, target
from tasks.loading.search_sql import index_definitions
from tasks.model.dataset import DatasetSpec
from tasks.model.load import Scd2Load

ROOMY_COLUMNS = MAX_COLUMNS * 9 // 10
"""From here on a load that adds columns may soon be refused: a dropped one keeps its number."""


def table_checks(cursor: Cursor, spec: DatasetSpec, rows: list[LedgerRow]) -> Iterator[Check]:
    """Check the table of a dataset against its ledger.

    Args:
        cursor: In a snapshot of the warehouse.
        spec: The dataset.
        rows: Its ledger.
    """
    if not existing_columns(cursor, spec):
        if rows:
            yield check(spec, "I6", f"table {spec.load.table} is there", True, False)
        return
    table = target(spec)
    count = _number(cursor, sql.SQL("SELECT count(*) FROM {}").format(table))
    retired = rows_retired(cursor, spec)
    there = sum(row.inserted + row.restored - row.deleted for row in rows)
    there -= sum(retired.values())
    yield check(spec, "I6", "rows inserted + restored - deleted = rows in the table", there, count)
    strangers = _strangers(cursor, spec)
    statement = "every row leads to its load"
    yield check(spec, "I7", statement, "none broken", shown(strangers), strangers)
    overfull = _overfull(cursor, spec, rows, retired)
    statement = "no load has more rows in the table than it wrote"
    yield check(spec, "I6", statement, "none broken", shown(overfull), overfull)
    # An index can be broken where the rows are not: count by the rows themselves.
    if spec.table_key:
        keys = listed(spec.table_key)
        distinct = _number(
            cursor,
            sql.SQL(
                "SELECT count(*) FROM (SELECT DISTINCT {} FROM {} WHERE num_nulls({}) = 0) d"
            ).format(keys, table, keys),
        )
        yield check(spec, "I8", "every key is there once, and whole", count, distinct)
    if remembers_deletions(spec) and companion_exists(cursor, TOMBSTONES, spec):
        revived = _number(cursor, revived_statement(spec))
        yield check(spec, "I8", "no row is older than the deletion of its key", 0, revived)
    if isinstance(spec.load, Scd2Load):
        broken = _number(cursor, broken_versions_statement(spec, spec.load))
        yield check(spec, "I8", "versions of a key follow each other", 0, broken)
    yield from _column_checks(cursor, spec)
    if spec.load.index and rows:
        yield _index_check(cursor, spec, list(index_definitions(spec, spec.load.index)))


def _strangers(cursor: Cursor, spec: DatasetSpec) -> list[str]:
    """Name the ids of loads that rows carry and the ledger does not know."""
    cursor.execute(
        sql.SQL(
            "SELECT t.{0}, count(*) FROM {1} t WHERE NOT EXISTS ("
            "SELECT 1 FROM etl.loads l WHERE l.load_id = t.{0} AND l.dataset = %s) "
            "GROUP BY t.{0} ORDER BY t.{0}"
        ).format(sql.Identifier(LOAD_ID), target(spec)),
        (spec.name,),
    )
    return [f"{rows} rows of load {load_id}" for load_id, rows in cursor.fetchall()]


def _overfull(
    cursor: Cursor, spec: DatasetSpec, rows: list[LedgerRow], retired: dict[int, int]
) -> list[str]:
    """Name the loads whose rows in the table are more than they wrote; of append, or fewer.

    Merging takes rows from a load, when a later one changes them; nothing adds rows to one. What
    retention took away counts as if it were there.
    """
    cursor.execute(
        sql.SQL("SELECT {0}, count(*) FROM {1} GROUP BY {0}").format(
            sql.Identifier(LOAD_ID), target(spec)
        )
    )
    found: Counter[int] = Counter(dict(cursor.fetchall()))
    found.update(retired)
    return [
        f"load {row.load_id}: {found.get(row.load_id, 0)} rows, wrote {row.written}"
        for row in rows
        if found.get(row.load_id, 0) > row.written
        or (spec.load.mode == "append" and found.get(row.load_id, 0) != row.written)
    ]


def _column_checks(cursor: Cursor, spec: DatasetSpec) -> Iterator[Check]:
    there = existing_columns(cursor, spec)
    wanted = [*spec.columns, *spec.made_columns, *spec.taken_columns, LOAD_ID]
    missing = [f"column {name}" for name in wanted if name not in there]
    statement = "every declared column is in the table"
    yield check(spec, "I14", statement, "none broken", shown(missing), missing)
    used = _number(cursor, sql.SQL(query("column_slots")), {"table": spec.load.table})
    most = max(ROOMY_COLUMNS, len(there))
    statement = f"at most {most} of {MAX_COLUMNS} column numbers are used up"
    yield check(spec, "I14", statement, most, max(used, most))


def rows_retired(cursor: Cursor, spec: DatasetSpec) -> dict[int, int]:
    """Return how many rows of each load retention took away."""
    cursor.execute(query("rows_retired"), {"dataset": spec.name})
    return dict(cursor.fetchall())


def _index_check(cursor: Cursor, spec: DatasetSpec, names: list[str]) -> Check:
    cursor.execute(query("indexes"), {"table": spec.load.table})
    # One that is not there yet is built at the end of the run.
    invalid = {name for name, is_valid, _ in cursor.fetchall() if not is_valid}
    broken = [f"index {name} is not valid" for name in names if name in invalid]
    statement = "no search index is broken"
    return check(spec, "I12", statement, "none broken", shown(broken), broken)


def _number(
    cursor: Cursor, statement: sql.Composable, arguments: dict[str, str] | None = None
) -> int:
    cursor.execute(statement, arguments)
    row = cursor.fetchone()
    return int(row[0]) if row else 0
