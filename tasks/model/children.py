"""``children:`` of a dataset file: lists inside of rows that become rows of tables of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.model.columns import SYSTEM_COLUMNS, ColumnSpec, Identifier, PathToValue, Strict
from tasks.model.contract import Contract
from tasks.model.json_path import ITEM, ValuePath, parse_value_path
from tasks.model.load import LoadTarget, ReplacePartitionLoad, Scd2Load, check_table_name
from tasks.model.rules import RowRule

POSITION = "_position"
"""Column with the place of an item in its list, from 1; part of the key where items have none."""


class ChildTable(Strict):
    """A table with the items of a list that each row has."""

    table: Annotated[str, AfterValidator(check_table_name)] = Field(description="schema.table")
    description: str | None = Field(None, description="Becomes the comment of the table.")
    path: PathToValue | None = Field(
        None,
        description="Where the list is: the name of a field, or a path like order.lines; the child's "
        "own name without it.",
    )
    link: dict[Identifier, Identifier] = Field(
        default_factory=dict,
        description="Columns of the child table: columns of the parent's key. The same names without "
        "it.",
    )
    key: tuple[Identifier, ...] = Field(
        (),
        description="Columns that tell the items of one parent apart; without them it is their place "
        "in the list, column _position.",
    )
    columns: dict[Identifier, ColumnSpec] = Field(
        min_length=1,
        description="Columns of the items. Paths begin at the item; $ is the item itself.",
    )
    rules: tuple[RowRule, ...] = ()
    contract: Contract | None = Field(
        None, description="What to do about keys of items; that of the dataset without it."
    )
    refuse: Literal["child", "parent"] = Field(
        "child",
        description="What goes to quarantine if an item breaks a rule: the item alone, or the whole "
        "row that it belongs to.",
    )

    def links(self, parent_key: tuple[str, ...]) -> dict[str, str]:
        """Return column of the child table → column of the parent's key."""
        return self.link or {name: name for name in parent_key}

    def list_path(self, name: str) -> ValuePath:
        """Return where the list is; ``name`` is the child's own."""
        return parse_value_path(self.path) if self.path is not None else ValuePath(name, (name,))

    @property
    def needs_item(self) -> bool:
        """Does a column begin at the item itself?"""
        return any(column.source_column(name) == ITEM for name, column in self.columns.items())

    @property
    def needs_keys(self) -> bool:
        """Does a column begin at a key of the item, so that each item must be an object?"""
        return any(column.source_column(name) != ITEM for name, column in self.columns.items())


def child_mistakes(
    children: Mapping[str, ChildTable], parent_key: tuple[str, ...], load: LoadTarget
) -> Iterator[str]:
    """Yield what is wrong with the children of a dataset."""
    if not children:
        return
    first = next(iter(children))
    if not parent_key:
        yield f"children.{first}: links its rows to a key; declare the dataset's 'key'"
    yield from (f"children.{first}: {mistake}" for mistake in _mode_mistakes(load, parent_key))
    tables = {load.table: "the dataset"}
    for name, child in children.items():
        where = f"children.{name}"
        if other := tables.get(child.table):
            yield f"{where}.table: {child.table} is filled by {other} too"
        tables[child.table] = f"child {name!r}"
        own = load.own_columns if isinstance(load, Scd2Load) else ()
        yield from (f"{where}.{mistake}" for mistake in _mistakes(name, child, parent_key, own))


def _mode_mistakes(load: LoadTarget, parent_key: tuple[str, ...]) -> Iterator[str]:
    """Yield what keeps rows that are loaded in a mode from having children."""
    if isinstance(load, ReplacePartitionLoad) and load.by not in parent_key:
        yield (
            f"load mode 'replace_partition' replaces the items of a {load.by} with its rows, and they "
            f"are linked by the key; add {load.by!r} to the dataset's 'key', or load by another mode"
        )
    if load.partition_by is not None and load.partition_by.retention is not None:
        yield (
            "load.partition_by.retention drops rows and would leave their items behind; remove the "
            "retention, or load the items as a dataset of their own"
        )


def _mistakes(
    name: str, child: ChildTable, parent_key: tuple[str, ...], own: tuple[str, ...]
) -> Iterator[str]:
    if child.list_path(name).column == ITEM:
        yield f"path: {child.path!r} begins with no name of the source"
    links = child.links(parent_key)
    if sorted(links.values()) != sorted(parent_key):
        yield f"link: leads to {', '.join(links.values())}, the key is {', '.join(parent_key)}"
    for column in child.columns:
        if column in SYSTEM_COLUMNS:
            yield f"columns.{column}: every table of PostgreSQL has a hidden {column}"
        if column in links:
            yield (
                f"columns.{column}: the parent's key has this name in the child table; rename it by "
                f"link: {{parent_{column}: {links[column]}}}"
            )
    yield from _filled_by_mode(child, links, own)
    for column in child.key:
        if column not in child.columns:
            yield f"key: no column {column!r}; declared are {', '.join(child.columns)}"


def _filled_by_mode(
    child: ChildTable, links: Mapping[str, str], own: tuple[str, ...]
) -> Iterator[str]:
    """Yield which columns have the name of one that the load mode fills."""
    for column in own:
        if column in child.columns:
            yield (
                f"columns.{column}: load mode 'scd2' fills a column of this name; rename it, and let "
                f"its 'source' be {column}"
            )
        if column in links:
            yield f"link: load mode 'scd2' fills a column {column!r}; choose another name"
