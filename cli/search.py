"""``dpp search`` and ``dpp index``: rows found by their texts, and the index that finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Engine

from cli.console import console, stderr
from tasks.loading.index import build_search_index
from tasks.loading.schema import existing_columns
from tasks.loading.search import RANK
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError

SHOWN_CHARACTERS = 60


def show_found(spec: DatasetSpec, text: str, found: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that were found: their key, and the columns that are searched."""
    assert spec.load.index is not None, "without an index nothing is found"
    if not found:
        console.print(
            f"no row of {spec.name} matches '{escape(text)}'; every word must be there, or be similar",
            highlight=False,
        )
        return
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"{spec.load.table} · {text}"))
    table.add_column("rank", justify="right")
    shown = list(dict.fromkeys([*spec.key, *spec.load.index.columns]))
    for name in shown:
        table.add_column(name, overflow="fold")
    for row in found:
        table.add_row(f"{row[RANK]:.2f}", *(_cell(row.get(name)) for name in shown))
    console.print(table)
    console.print(
        "[dim]rank: from 2 a whole value, from 1 the words, below 1 similar ones; "
        "--json has every column[/]",
        highlight=False,
    )


def build_index(engine: Engine, spec: DatasetSpec, *, rebuild: bool) -> None:
    """Make an index as declared, and say what was built.

    Raises:
        ConfigError: The dataset declares none, or has no table yet.
    """
    if spec.load.index is None:
        raise ConfigError(f"{spec.name}: no search index", "declare load.index.search")
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        if not existing_columns(cursor, spec):
            raise ConfigError(
                f"{spec.name}: there is no table {spec.load.table} yet", f"dpp run {spec.name}"
            )
    with stderr.status(f"building the search index of {spec.load.table} …"):
        built = build_search_index(engine, spec, rebuild=rebuild)
    if built:
        console.print(f"built {', '.join(built)}", highlight=False)
    else:
        console.print(f"the search index of {spec.name} is as declared", highlight=False)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    return escape(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")
