"""The items of a load on their way from the lake into a staging table for each child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.encoding import check_columns, staged_schema
from tasks.loading.job import Load
from tasks.loading.schema import (
    TargetColumn,
    ensure_schema,
    postgres_type,
    staged_value,
    target,
    target_columns,
)
from tasks.loading.staged import clean_files
from tasks.loading.staging import (
    STAGING,
    analyze_staging,
    clean_batches,
    copy_into_staging,
    create_staging,
)
from tasks.model.child_dataset import VERSION, child_tables, version_column
from tasks.model.children import POSITION
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.manifest import ChildManifest


@dataclass(frozen=True, slots=True)
class StagedChild:
    """A child table, and the rows for it that are staged.

    Attributes:
        name: Name of the child.
        spec: The child as a dataset.
        manifest: Account of its rows.
        staging: Temporary table with the rows; None if there are none.
        link: Column of the child table → column of the parent's key.
        version: Column with the parent's cursor, which is staged but not in the table; only where
            items are replayed.
    """

    name: str
    spec: DatasetSpec
    manifest: ChildManifest
    staging: str | None
    link: Mapping[str, str]
    version: TargetColumn | None = None

    @property
    def columns(self) -> list[TargetColumn]:
        """Columns of the table that the rows fill."""
        types = {name: kind for name, kind in self.manifest.column_types.items() if name != VERSION}
        return target_columns(self.spec, {}, self.manifest.columns_added, types)

    @property
    def rows(self) -> sql.Identifier:
        """Quoted name of the staged rows, of which there must be some."""
        assert self.staging is not None
        return sql.Identifier("pg_temp", self.staging)

    def linked(self, values: Mapping[str, sql.Composable], alias: str = "p") -> sql.Composed:
        """Return the condition that links of an item lead to a row of the parents' columns.

        Args:
            values: SQL for the links, by their names.
            alias: Of the table with the parents' key.
        """
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(alias, theirs), values[mine])
            for mine, theirs in self.link.items()
        )

    def linked_row(self, alias: str) -> sql.Composed:
        """Return the condition that a row of the child table leads to the parent ``p``."""
        return self.linked({name: sql.Identifier(alias, name) for name in self.link})

    def linked_staged(self, columns: Sequence[TargetColumn], alias: str = "p") -> sql.Composed:
        """Return the condition that a staged item ``s`` leads to a parent.

        Args:
            columns: Columns of the child table, in the types that it has.
            alias: Of the table with the parents' key.
        """
        by_name = {column.name: column for column in columns}
        return self.linked({name: staged_value(by_name[name], "s") for name in self.link}, alias)


def child_files(lake: Lake, scratch: Path, load: Load) -> dict[str, list[Path]]:
    """Return the clean files of each child, each with the content that its manifest names."""
    return {
        name: clean_files(lake, scratch, manifest)
        for name, manifest in load.manifest.children.items()
    }


def ensure_child_schemas(engine: Engine, spec: DatasetSpec) -> None:
    """Create the schemas of the child tables, unless they are there."""
    for child in child_tables(spec).values():
        ensure_schema(engine, child)


def stage_children(
    cursor: Cursor, load: Load, files: Mapping[str, Sequence[Path]]
) -> list[StagedChild]:
    """Copy the clean items of each child into a staging table of its own.

    Raises:
        ContractBroken: The files are not those of the dataset file.
    """
    staged = []
    for number, (name, spec) in enumerate(child_tables(load.spec).items()):
        manifest = load.manifest.children.get(name, ChildManifest())
        paths = files.get(name, ())
        child = StagedChild(
            name,
            spec,
            manifest,
            f"{STAGING}_{number}" if paths else None,
            load.spec.children[name].links(load.spec.key),
            _version(load, manifest),
        )
        if child.staging:
            _stage(cursor, child, child.staging, paths)
        staged.append(child)
    return staged


def _version(load: Load, manifest: ChildManifest) -> TargetColumn | None:
    """Return the staged column that says of which version of their parents replayed items are."""
    if not load.replayed_child or version_column(load.spec) != VERSION:
        return None
    kind = manifest.column_types.get(VERSION) or load.spec.columns[str(load.spec.cursor)]
    return TargetColumn(VERSION, postgres_type(kind))


def drop_staged(cursor: Cursor, staged: Sequence[StagedChild]) -> None:
    """Drop the staging tables, so that those of another partition can take their names."""
    for child in staged:
        if child.staging:
            cursor.execute(sql.SQL("DROP TABLE {}").format(child.rows))


def _stage(cursor: Cursor, child: StagedChild, staging: str, paths: Sequence[Path]) -> None:
    schema = staged_schema(pq.read_schema(paths[0]), also=(POSITION, VERSION))
    beside = [child.version.name] if child.version else []
    check_columns(schema.names, [*(column.name for column in child.columns), *beside])
    create_staging(cursor, schema, staging)
    batches = clean_batches(paths, schema)
    rows = copy_into_staging(cursor, schema, batches, lambda: None, staging)
    if rows != child.manifest.rows:
        raise ContractBroken(
            f"{child.spec.name}: COPY took {rows} rows, the manifest has {child.manifest.rows}",
            "this must never happen; keep the lake files and report it",
        )
    analyze_staging(cursor, child.rows)


def orphans_condition(parent: DatasetSpec, child: StagedChild) -> sql.Composed:
    """Return the condition that a row ``c`` of the child table has no parent in its table."""
    return sql.SQL("NOT EXISTS (SELECT FROM {} AS p WHERE {})").format(
        target(parent), child.linked_row("c")
    )
