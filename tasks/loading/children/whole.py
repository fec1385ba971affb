"""Items of ``replace``: those of the rows that are left take the place of all that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.account import Changes, counts_of
from tasks.loading.children.publish import PublishedChild
from tasks.loading.children.staged import StagedChild, drop_staged, stage_children
from tasks.loading.evolution import prepare_target
from tasks.loading.job import Load
from tasks.loading.listed import listed
from tasks.loading.locks import patiently
from tasks.loading.modes.replace import (
    Pile,
    all_rows,
    delete_statement,
    insert_statement,
    pile_statement,
)
from tasks.loading.schema import LOAD_ID, TargetColumn
from tasks.model.dataset import DatasetSpec
from tasks.model.report import SchemaChange

WINNERS = "etl_winners"
"""Temporary table: of each key of the new rows the load that the row which is left came with."""


@dataclass(slots=True)
class _Pile:
    """The items of one child, of all partitions."""

    of_loads: dict[int, StagedChild] = field(default_factory=dict)
    piles: dict[tuple[TargetColumn, ...], Pile] = field(default_factory=dict)


class PiledChildren:
    """The items of all partitions of a run, gathered in temporary tables until there are all."""

    def __init__(self) -> None:
        self._children: dict[str, _Pile] = {}

    def add(
        self, cursor: Cursor, load: Load, load_id: int, files: Mapping[str, Sequence[Path]]
    ) -> None:
        """Stage the items of a partition, and put them on the piles.

        Raises:
            ContractBroken: The files are not those of the dataset file.
        """
        staged = stage_children(cursor, load, files)
        for number, child in enumerate(staged):
            mine = self._children.setdefault(child.name, _Pile())
            mine.of_loads[load_id] = child
            columns = child.columns
            name = f"etl_pile_of_{number}_{len(mine.piles)}"
            pile = mine.piles.setdefault(tuple(columns), Pile(name, columns))
            if child.staging:
                cursor.execute(pile_statement(pile, load_id, child.staging))
                pile.is_there = True
        drop_staged(cursor, staged)

    def publish(
        self, cursor: Cursor, parent: DatasetSpec, rows: sql.Composable | None, first: int
    ) -> dict[int, list[PublishedChild]]:
        """Replace the rows of the child tables; return what each load did.

        Args:
            cursor: In the transaction; the rows of the parents are in their table.
            parent: The parents' dataset.
            rows: The query for their new rows; None if there are none.
            first: The first load of the run: what is deleted is counted for it.
        """
        published: dict[int, list[PublishedChild]] = {}
        if self._children and rows is not None:
            _name_winners(cursor, parent, rows)
        for name, pile in self._children.items():
            spec = next(iter(pile.of_loads.values())).spec
            changes, altered = patiently(
                cursor,
                spec,
                lambda pile=pile: _replace(cursor, pile, first),  # type: ignore[misc]
            )
            for load_id, child in pile.of_loads.items():
                counts = counts_of(child.manifest, changes.get(load_id, Changes()))
                made = altered if load_id == first else ()
                published.setdefault(load_id, []).append(
                    PublishedChild(name, child.spec, counts, made)
                )
        return published


def _name_winners(cursor: Cursor, parent: DatasetSpec, rows: sql.Composable) -> None:
    newest: sql.Composable = sql.SQL("")
    if parent.cursor:
        newest = sql.SQL(", {} DESC NULLS LAST").format(sql.Identifier(parent.cursor))
    cursor.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE {winners} ON COMMIT DROP AS SELECT DISTINCT ON ({key}) {key}, "
            "{load_id} FROM ({rows}) AS r ORDER BY {key}{newest}, {load_id} DESC"
        ).format(
            winners=sql.Identifier(WINNERS),
            key=listed(parent.key),
            load_id=sql.Identifier(LOAD_ID),
            rows=rows,
            newest=newest,
        )
    )
    cursor.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pg_temp", WINNERS)))


def _replace(
    cursor: Cursor, pile: _Pile, first: int
) -> tuple[dict[int, Changes], tuple[SchemaChange, ...]]:
    """Replace the items of one child; return what each load did, and what was altered for it."""
    child = next(iter(pile.of_loads.values()))
    altered: tuple[SchemaChange, ...] = ()
    for one in pile.piles.values():
        altered += prepare_target(cursor, child.spec, one.columns).changes
    # Asked again, now that the table has its last types.
    filled = [
        (one, prepare_target(cursor, child.spec, one.columns).columns)
        for one in pile.piles.values()
        if one.is_there
    ]
    items = _of_winners(child, filled) if filled else None
    cursor.execute(delete_statement(child.spec, items))
    deleted = int(cursor.rowcount)
    written: dict[int, tuple[int, int]] = {}
    if items is not None:
        names = list(dict.fromkeys(column.name for _, columns in filled for column in columns))
        cursor.execute(insert_statement(child.spec, names, items))
        written = {row[0]: (row[1], row[2]) for row in cursor.fetchall()}
    changes = {
        load_id: Changes(*written.get(load_id, (0, 0)), deleted if load_id == first else 0)
        for load_id in pile.of_loads
    }
    return changes, altered


def _of_winners(
    child: StagedChild, filled: Sequence[tuple[Pile, Sequence[TargetColumn]]]
) -> sql.Composed:
    """Return the query for the items of the rows that are left."""
    return sql.SQL(
        "SELECT i.* FROM ({items}) AS i JOIN {winners} AS w ON {linked} AND w.{load_id} = i.{load_id}"
    ).format(
        items=all_rows(filled),
        winners=sql.Identifier("pg_temp", WINNERS),
        linked=child.linked({name: sql.Identifier("i", name) for name in child.link}, "w"),
        load_id=sql.Identifier(LOAD_ID),
    )
