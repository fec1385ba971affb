"""Checks that the table holds what the lake says, and words for each row that it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.canonical import ordered_type
from tasks.loading.checks import Check, LedgerRow, check
from tasks.loading.content import compare
from tasks.loading.content_verdicts import SAME, STATEMENT, verdicts
from tasks.loading.expected import LoadFiles, expected_content
from tasks.loading.layout import Layout, layout_of
from tasks.loading.past import is_folded
from tasks.loading.queries import query
from tasks.loading.replayed_checks import replayed_checks
from tasks.loading.row_names import named_rows
from tasks.loading.schema import existing_columns
from tasks.loading.table_checks import rows_retired
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.manifest import Manifest


@dataclass(frozen=True, slots=True)
class History:
    """What is known of the loads of a dataset.

    Attributes:
        layout: How its rows are compared.
        loads: The loads whose files are all there.
        unknown: Loads whose files are gone because they are older than the lake keeps them.
        refusal: Why the table cannot be compared; None if it can.
    """

    layout: Layout
    loads: tuple[LoadFiles, ...]
    unknown: tuple[int, ...]
    refusal: str | None = None


def history_of(
    cursor: Cursor,
    spec: DatasetSpec,
    rows: Sequence[LedgerRow],
    clean: Mapping[int, Manifest],
) -> History:
    """Return what the lake knows of the loads of a dataset.

    Args:
        cursor: In a session of the warehouse.
        spec: The dataset.
        rows: Its ledger.
        clean: The manifests of the loads whose clean files are all intact.
    """
    there = list(existing_columns(cursor, spec).values())
    cursor.execute(query("columns_added"), {"dataset": spec.name})
    filled = {*spec.columns, *spec.made_columns, *spec.taken_columns}
    filled.update(row[0] for row in cursor.fetchall())
    filled.update(name for manifest in clean.values() for name in manifest.columns_added)
    loads = tuple(
        LoadFiles(row.load_id, clean[row.load_id].files, row.deletes_up_to)
        for row in rows
        if row.load_id in clean
    )
    unknown = tuple(row.load_id for row in rows if row.load_id not in clean)
    refusal = _not_supported(spec, rows, [column.name for column in there])
    if refusal:
        return History(Layout(()), loads, unknown, refusal)
    layout = layout_of(spec, there, filled)
    return History(layout, loads, unknown, _not_ordered(cursor, layout))


def _not_supported(
    spec: DatasetSpec, rows: Sequence[LedgerRow], there: Sequence[str]
) -> str | None:
    missing = [name for name in spec.table_key if name not in there]
    if missing:
        return f"key column {missing[0]} is not in the table"
    if unsaid := [row.load_id for row in rows if row.deleted and row.deletes_up_to is None]:
        return f"the ledger does not say which rows load {unsaid[0]} deleted"
    return None


def _not_ordered(cursor: Cursor, layout: Layout) -> str | None:
    """Say why rows of one key cannot be put in order as PostgreSQL does it."""
    if layout.cursor is None:
        return None
    kind = layout.cursor.type
    if ordered_type(kind) is None:
        return f"cursor {layout.cursor.name} is {kind}"
    cursor.execute(query("database_collation"))
    row = cursor.fetchone()
    collation = str(row[0]) if row else ""
    if kind == "text" and collation.partition(".")[0] not in ("C", "POSIX"):
        return f"cursor {layout.cursor.name} is text, in the order of {collation}"
    return None


def content_checks(
    cursor: Cursor,
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    lookups: Mapping[str, LookedUp],
    rows: Sequence[LedgerRow],
    clean: Mapping[int, Manifest],
    retained: set[int],
) -> list[Check]:
    """Compare every row of the table with the lake.

    Args:
        cursor: In a snapshot of the warehouse.
        engine: The warehouse.
        lake: The lake.
        spec: The dataset.
        lookups: What it looks up.
        rows: Its ledger.
        clean: The manifests of the loads whose clean files are all intact.
        retained: Loads whose files must still be there.
    """
    if not rows or not existing_columns(cursor, spec):
        return []
    if not is_folded(spec, retired=bool(rows_retired(cursor, spec))):
        return replayed_checks(cursor, engine, lake, spec, lookups, rows, clean, retained)
    history = history_of(cursor, spec, rows, clean)
    lost = [load for load in history.unknown if load in retained]
    statement = STATEMENT
    if lost:
        found = f"not compared: files of load {lost[0]} are missing or damaged"
        return [check(spec, "I11", statement, SAME, found)]
    if history.refusal:
        return [check(spec, "I11", f"not compared: {history.refusal}", "–", "–")]
    if history.unknown:
        count = len(history.unknown)
        statement += f", but those of {count} loads past their retention"
    with expected_content(engine, lake, history.layout, history.loads) as expected:
        comparison = compare(cursor, spec, expected, history.unknown)
        names = named_rows(cursor, spec, expected, history.loads, comparison.listed)
    labels = {row.load_id: row.label for row in rows}
    return verdicts(spec, statement, comparison, names, labels)
