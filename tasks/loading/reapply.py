"""Loads of the past applied again, by the very statements of their mode, in the order of their ids.

Nothing is decided here: what is published is what the ledger says was, and each load must do what it
did then. The table is that of the dataset, or one beside it (``tasks/loading/shadow.py``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from blocks.lake import Lake
from tasks.loading.account import Changes, receipt_of
from tasks.loading.checks import LedgerRow
from tasks.loading.children.publish import publish_children
from tasks.loading.children.staged import child_files, stage_children
from tasks.loading.children.whole import PiledChildren
from tasks.loading.deletes import missing_statement
from tasks.loading.encoding import staged_schema
from tasks.loading.evolution import Prepared, prepare_target
from tasks.loading.job import Load
from tasks.loading.modes.prepare import prepare_mode
from tasks.loading.modes.publication import statements_of
from tasks.loading.modes.replace import Pile, pile_statement
from tasks.loading.partitions import prepare_partitions
from tasks.loading.publish import run_statements
from tasks.loading.queries import query
from tasks.loading.schema import TargetColumn, existing_columns, target
from tasks.loading.staged import clean_files
from tasks.loading.staging import STAGING, clean_batches, copy_into_staging, create_staging
from tasks.loading.whole import prepare_piles, replace_rows
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import ContractBroken
from tasks.model.load import DELETED_AT, MergeLoad, ReplaceLoad
from tasks.model.manifest import Manifest
from tasks.model.partition import Partition
from tasks.model.report import RowCounts

NO_LOOKUPS: Mapping[str, LookedUp] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PastLoad:
    """A load of the past, as its ledger row and its manifest tell it.

    Attributes:
        row: Its ledger row.
        manifest: Its clean rows.
        is_replay: Were its rows some that were refused before?
    """

    row: LedgerRow
    manifest: Manifest
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Retired:
    """Rows that retention took away.

    Attributes:
        after_load: The load that was the last one then.
        condition: Which rows, by the column of the partitions.
        rows: How many they were.
    """

    after_load: int
    condition: sql.Composed
    rows: int


@dataclass(frozen=True, slots=True)
class Done:
    """What a load did when it was applied again; ``children`` by their names."""

    counts: RowCounts
    children: Mapping[str, RowCounts] = field(default_factory=dict)


@dataclass
class Reapplied:
    """Applies loads again.

    Args:
        cursor: In a transaction.
        spec: The dataset, with the table that is filled.
        lookups: What it looks up; they give the types of columns.
        lake: Where the clean files are.
        added: Columns that the source had in loads before, beyond the dataset file.
    """

    cursor: Cursor
    spec: DatasetSpec
    lookups: Mapping[str, LookedUp]
    lake: Lake
    added: list[str] = field(default_factory=list)

    def apply(self, loads: Sequence[PastLoad]) -> dict[int, Done]:
        """Apply loads that were published together, one or all of a run; return what each did.

        Raises:
            ContractBroken: A file or the table does not fit the dataset file as it is now.
        """
        with tempfile.TemporaryDirectory(prefix="dpp-again-") as folder:
            if isinstance(self.spec.load, ReplaceLoad) and not loads[0].is_replay:
                return self._together(loads, Path(folder))
            return {load.row.load_id: self._one(load, Path(folder)) for load in loads}

    def retire(self, retired: Retired) -> None:
        """Take away what retention took away.

        Raises:
            ContractBroken: It was another number of rows then.
        """
        self.cursor.execute(
            sql.SQL("DELETE FROM {} WHERE {}").format(target(self.spec), retired.condition)
        )
        if self.cursor.rowcount != retired.rows:
            raise ContractBroken(
                f"{self.spec.load.table}: retention took {retired.rows} rows away after load "
                f"{retired.after_load}, and it would be {self.cursor.rowcount} now"
            )

    def _job(self, past: PastLoad) -> Load:
        row = past.row
        partition = Partition(
            dataset=self.spec.name,
            label=row.label,
            slice=row.slice or {},
            deletes_up_to=row.deletes_up_to,
            refresh=row.refresh,
        )
        return Load(
            self.spec, self.lookups, partition, past.manifest, row.manifest_key, row.run, 0, ""
        )

    def _stage(self, past: PastLoad, folder: Path) -> list[str]:
        """Copy the clean rows into the staging table; return their columns, none without rows."""
        self._unstage()
        paths = clean_files(self.lake, folder, past.manifest)
        if not paths:
            return []
        schema = staged_schema(pq.read_schema(paths[0]))
        create_staging(self.cursor, schema)
        rows = copy_into_staging(self.cursor, schema, clean_batches(paths, schema), lambda: None)
        if rows != past.manifest.rows:
            raise ContractBroken(
                f"load {past.row.load_id}: COPY took {rows} rows, its manifest has "
                f"{past.manifest.rows}"
            )
        self.cursor.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pg_temp", STAGING)))
        return list(schema.names)

    def _unstage(self) -> None:
        self.cursor.execute(
            sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("pg_temp", STAGING))
        )

    def _one(self, past: PastLoad, folder: Path) -> Done:
        load, load_id = self._job(past), past.row.load_id
        drop_temporary(self.cursor)
        staged = self._stage(past, folder)
        table = prepare_target(self.cursor, self.spec, load.columns)
        columns = self._filled(table, staged)
        prepare_mode(self.cursor, self.spec, table.columns, is_new=table.is_new)
        children = stage_children(self.cursor, load, child_files(self.lake, folder, load))
        changes = Changes()
        if load.compares_keys:
            changes = self._delete_missing(load, columns, has_rows=bool(staged))
        elif staged:
            prepare_partitions(self.cursor, self.spec, {STAGING: columns})
            changes = run_statements(
                self.cursor,
                statements_of(self.spec, columns, load_id, is_replay=past.is_replay),
            )
            self._date_deletions(past.row.loaded_at)
        published = publish_children(
            self.cursor, load, children, columns, load_id, has_rows=bool(staged)
        )
        self.added += [name for name in past.manifest.columns_added if name not in self.added]
        receipt = receipt_of(load, load_id, changes, findings=(), schema_changes=(), seconds=0)
        return Done(receipt.counts, {child.name: child.counts for child in published})

    def _filled(self, table: Prepared, staged: Sequence[str]) -> list[TargetColumn]:
        """Return the columns that a load fills: those of its files, and what the source lacks now.

        One that the dataset file declares and the files do not have was declared later.
        """
        found = [column for column in table.columns if column.name in staged and column.staged]
        if self.spec.contract.unknown != "evolve":
            return found
        there = existing_columns(self.cursor, self.spec)
        named = {column.name for column in found}
        return found + [
            TargetColumn(name, there[name].type, staged=False)
            for name in self.added
            if name in there and name not in named
        ]

    def _delete_missing(
        self, load: Load, columns: Sequence[TargetColumn], *, has_rows: bool
    ) -> Changes:
        up_to = load.partition.deletes_up_to
        if not has_rows or up_to is None:
            return Changes()
        key = [column for column in columns if column.name in self.spec.key]
        self.cursor.execute(missing_statement(self.spec, key, up_to))
        return Changes(deleted=int(self.cursor.rowcount))

    def _date_deletions(self, loaded_at: datetime) -> None:
        """Rows that are marked as deleted say when that was loaded: then, not now."""
        load = self.spec.load
        if isinstance(load, MergeLoad) and load.delete and load.delete.kind == "soft":
            self.cursor.execute(
                sql.SQL("UPDATE {} SET {mark} = %s WHERE {mark} = now()").format(
                    target(self.spec), mark=sql.Identifier(DELETED_AT)
                ),
                (loaded_at,),
            )

    def _together(self, loads: Sequence[PastLoad], folder: Path) -> dict[int, Done]:
        """Put the rows of all loads of a run in the place of those that are there."""
        piles: dict[tuple[TargetColumn, ...], Pile] = {}
        children = PiledChildren()
        for past in loads:
            staged = self._stage(past, folder)
            job = self._job(past)
            children.add(self.cursor, job, past.row.load_id, child_files(self.lake, folder, job))
            columns = [c for c in job.columns if not staged or c.name in staged]
            pile = piles.setdefault(tuple(columns), Pile(f"etl_pile_{len(piles)}", columns))
            if staged:
                self.cursor.execute(pile_statement(pile, past.row.load_id))
                pile.is_there = True
        ids = [past.row.load_id for past in loads]
        filled = list(piles.values())
        prepare_piles(self.cursor, self.spec, filled)
        changes, rows = replace_rows(self.cursor, self.spec, filled, ids)
        items = children.publish(self.cursor, self.spec, rows, ids[0])
        drop_temporary(self.cursor)
        return {
            past.row.load_id: Done(
                receipt_of(
                    self._job(past),
                    past.row.load_id,
                    changes[past.row.load_id],
                    findings=(),
                    schema_changes=(),
                    seconds=0,
                ).counts,
                {child.name: child.counts for child in items.get(past.row.load_id, ())},
            )
            for past in loads
        }


def published_together(spec: DatasetSpec, loads: Sequence[PastLoad]) -> list[list[PastLoad]]:
    """Return loads in groups that were published in one transaction each; in their order."""
    groups: list[list[PastLoad]] = []
    for load in loads:
        run = _run_of(load)
        if isinstance(spec.load, ReplaceLoad) and run and groups and _run_of(groups[-1][-1]) == run:
            groups[-1].append(load)
        else:
            groups.append([load])
    return groups


def _run_of(load: PastLoad) -> str | None:
    """Return what names the run whose partitions were published together; None of a replay."""
    return None if load.is_replay else load.row.source_state.get("generation") or load.row.refresh


def drop_temporary(cursor: Cursor) -> None:
    """Drop the temporary tables of a load, so that the same transaction can do another one."""
    cursor.execute(query("temporary_tables"))
    for (name,) in cursor.fetchall():
        cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("pg_temp", name)))


def outside_created(spec: DatasetSpec) -> DatasetSpec:
    """Return a dataset whose table takes rows that are past their retention: they were loaded once."""
    by = spec.load.partition_by
    if by is None or by.outside != "refuse":
        return spec
    load = spec.load.model_copy(
        update={"partition_by": by.model_copy(update={"outside": "create"})}
    )
    return spec.model_copy(update={"load": load})


def with_row(past: PastLoad, counts: RowCounts) -> PastLoad:
    """Return a load with the counts of what it did."""
    row = replace(
        past.row,
        inserted=counts.inserted,
        updated=counts.updated,
        unchanged=counts.unchanged,
        deleted=counts.deleted,
        restored=counts.restored,
    )
    return replace(past, row=row)
