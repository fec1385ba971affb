"""The invariants of child tables: each has an account of its own, and every item has its parent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from blocks.lake import Lake
from tasks.lake import read_manifest
from tasks.loading.checks import Check, LedgerRow, check, shown
from tasks.loading.listed import listed
from tasks.loading.modes.scd2 import broken_versions_statement
from tasks.loading.queries import query
from tasks.loading.resolutions import resolution_checks
from tasks.loading.schema import LOAD_ID, existing_columns, target
from tasks.model.child_dataset import child_tables
from tasks.model.dataset import DatasetSpec
from tasks.model.load import DELETED_AT, MergeLoad, Scd2Load


@dataclass(frozen=True, slots=True)
class ChildRow:
    """The account of a child in one load, as the query ``child_loads`` gives it."""

    load_id: int
    read: int
    inserted: int
    updated: int
    unchanged: int
    deduplicated: int
    quarantined: int
    deleted: int
    restored: int
    reasons: int
    """Refused items according to the reasons of quarantine."""

    @property
    def written(self) -> int:
        """Rows of the table that this load wrote."""
        return self.inserted + self.updated + self.restored

    @property
    def accounted(self) -> int:
        """Items that are somewhere; as many as were read, or the ledger is wrong."""
        loaded = self.inserted + self.updated + self.unchanged
        return loaded + self.deduplicated + self.quarantined


def child_checks(cursor: Cursor, spec: DatasetSpec) -> Iterator[Check]:
    """Check ledger and warehouse of each child of a dataset."""
    for name, child in child_tables(spec).items():
        cursor.execute(query("child_loads"), {"dataset": spec.name, "child": name})
        rows = [ChildRow(*row) for row in cursor.fetchall()]
        yield from _ledger_checks(child, rows)
        yield from resolution_checks(cursor, child, name)
        if existing_columns(cursor, child):
            yield from _table_checks(cursor, spec, name, child, rows)
        elif rows:
            yield check(child, "I6", f"table {child.load.table} is there", True, False)


def _ledger_checks(child: DatasetSpec, rows: Sequence[ChildRow]) -> Iterator[Check]:
    unbalanced = [
        f"load {row.load_id}: {row.accounted} of {row.read}"
        for row in rows
        if row.read != row.accounted
    ]
    statement = "read = loaded + deduplicated + quarantined, of every load"
    yield check(child, "I1", statement, "none broken", shown(unbalanced))
    different = [
        f"load {row.load_id}: {row.reasons} instead of {row.quarantined}"
        for row in rows
        if row.reasons != row.quarantined
    ]
    statement = "reasons of quarantine add up to the ledger"
    yield check(child, "I5", statement, "none broken", shown(different))


def _table_checks(
    cursor: Cursor, spec: DatasetSpec, name: str, child: DatasetSpec, rows: Sequence[ChildRow]
) -> Iterator[Check]:
    table, load_id = target(child), sql.Identifier(LOAD_ID)
    count = _number(cursor, sql.SQL("SELECT count(*) FROM {}").format(table))
    there = sum(row.inserted + row.restored - row.deleted for row in rows)
    yield check(child, "I6", "rows inserted + restored - deleted = rows in the table", there, count)
    cursor.execute(sql.SQL("SELECT {0}, count(*) FROM {1} GROUP BY {0}").format(load_id, table))
    found = dict(cursor.fetchall())
    overfull = [
        f"load {row.load_id}: {found.get(row.load_id, 0)} rows, wrote {row.written}"
        for row in rows
        if found.get(row.load_id, 0) > row.written
    ]
    statement = "no load has more rows in the table than it wrote"
    yield check(child, "I6", statement, "none broken", shown(overfull))
    known = {row.load_id for row in rows}
    strangers = sum(number for load, number in found.items() if load not in known)
    yield check(child, "I7", "every row leads to its load", 0, strangers)
    links = spec.children[name].links(spec.key)
    same = sql.SQL(" AND ").join(
        sql.SQL("p.{} = c.{}").format(sql.Identifier(theirs), sql.Identifier(mine))
        for mine, theirs in links.items()
    )
    orphans = sql.SQL(
        "SELECT count(*) FROM {child} AS c WHERE NOT EXISTS (SELECT FROM {parent} AS p WHERE {same})"
    ).format(child=table, parent=target(spec), same=same)
    yield check(child, "I7", "every row has its parent", 0, _number(cursor, orphans))
    if child.table_key:
        keys = listed(child.table_key)
        distinct = sql.SQL(
            "SELECT count(*) FROM (SELECT DISTINCT {0} FROM {1} WHERE num_nulls({0}) = 0) d"
        ).format(keys, table)
        statement = "every key is there once, and whole"
        yield check(child, "I8", statement, count, _number(cursor, distinct))
    if isinstance(child.load, Scd2Load):
        broken = _number(cursor, broken_versions_statement(child, child.load))
        yield check(child, "I8", "versions of a key follow each other", 0, broken)
    if isinstance(child.load, MergeLoad) and child.load.delete:
        marks = sql.SQL(
            "SELECT count(*) FROM {child} AS c JOIN {parent} AS p ON {same} "
            "WHERE c.{mark} IS DISTINCT FROM p.{mark}"
        ).format(child=table, parent=target(spec), same=same, mark=sql.Identifier(DELETED_AT))
        yield check(child, "I8", "marked as deleted as its parent is", 0, _number(cursor, marks))


def child_manifest_checks(
    cursor: Cursor, lake: Lake, spec: DatasetSpec, loads: Sequence[LedgerRow]
) -> Iterator[Check]:
    """Check that the manifests of some loads say of each child what the ledger says."""
    manifests = {row.load_id: read_manifest(lake, row.manifest_key) for row in loads}
    for name, child in child_tables(spec).items():
        cursor.execute(query("child_loads"), {"dataset": spec.name, "child": name})
        different = []
        for row in (ChildRow(*found) for found in cursor.fetchall()):
            manifest = manifests.get(row.load_id)
            said = manifest.children.get(name) if manifest else None
            if said is None:
                continue  # a load of another configuration, or one whose manifest may be gone
            passed = row.inserted + row.updated + row.unchanged
            found = (said.rows_read, said.rows, said.rows_deduplicated, said.rows_quarantined)
            if found != (row.read, passed, row.deduplicated, row.quarantined):
                different.append(f"load {row.load_id}: {found}")
        statement = "items read, clean, deduplicated and quarantined: manifest = ledger"
        yield check(child, "I2", statement, "none broken", shown(different))


def _number(cursor: Cursor, statement: sql.Composed) -> int:
    cursor.execute(statement)
    row = cursor.fetchone()
    return int(row[0]) if row else 0
