"""Quoted names in a list, as SQL has them in many places."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql


def listed(names: Sequence[str]) -> sql.Composed:
    """Return quoted names, separated by commas."""
    return sql.SQL(", ").join(map(sql.Identifier, names))


def listed_of(alias: str, names: Sequence[str]) -> sql.Composed:
    """Return quoted names of a table's alias, separated by commas."""
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)
