"""Companion tables: what a load mode must remember of keys beside the rows of the target table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.listed import listed
from tasks.loading.queries import query
from tasks.loading.schema import TargetColumn, column_definition
from tasks.model.columns import MAX_IDENTIFIER_BYTES
from tasks.model.dataset import DatasetSpec

SCHEMA = "etl"
_HASH_DIGITS = 8


def companion_name(kind: str, spec: DatasetSpec) -> str:
    """Return the name of a companion table of a dataset, without its schema."""
    name = f"{kind}_{spec.name}"
    if len(name) <= MAX_IDENTIFIER_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{name[: MAX_IDENTIFIER_BYTES - _HASH_DIGITS - 1]}_{digest}"


def companion(kind: str, spec: DatasetSpec) -> sql.Identifier:
    """Return the quoted name of a companion table."""
    return sql.Identifier(SCHEMA, companion_name(kind, spec))


def companion_exists(cursor: Cursor, kind: str, spec: DatasetSpec) -> bool:
    """Tell whether a dataset has the companion table."""
    return bool(_types(cursor, kind, spec))


@dataclass(frozen=True, slots=True)
class Companion:
    """A companion table.

    Attributes:
        kind: Begins its name.
        columns: Its columns, in the types that the target has.
        key: Those of its primary key.
        comment: What it is for.
    """

    kind: str
    columns: Sequence[TargetColumn]
    key: Sequence[str]
    comment: str


def companion_statements(made: Companion, spec: DatasetSpec) -> list[sql.Composed]:
    """Return the DDL of a companion table that is not there yet."""
    table = companion(made.kind, spec)
    definitions = [
        *map(column_definition, made.columns),
        sql.SQL("PRIMARY KEY ({})").format(listed(made.key)),
    ]
    return [
        sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(definitions)),
        sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(made.comment)),
    ]


def ensure_companion(cursor: Cursor, made: Companion, spec: DatasetSpec) -> None:
    """Create a companion table, or give the one that is there the types of these columns.

    It is done while it is our turn to publish, so no two do it at once.
    """
    table, there = companion(made.kind, spec), _types(cursor, made.kind, spec)
    if not there:
        for statement in companion_statements(made, spec):
            cursor.execute(statement)
        return
    for column in made.columns:
        if there[column.name] != column.type:  # the target was widened
            cursor.execute(
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}").format(
                    table, sql.Identifier(column.name), sql.SQL(column.type)
                )
            )


def drop_companion(cursor: Cursor, kind: str, spec: DatasetSpec) -> None:
    """Forget what is remembered of a table that is not there any more."""
    cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(companion(kind, spec)))


def _types(cursor: Cursor, kind: str, spec: DatasetSpec) -> dict[str, str]:
    name = f"{SCHEMA}.{companion_name(kind, spec)}"
    cursor.execute(query("existing_columns"), {"table": name})
    return {row[0]: row[1] for row in cursor.fetchall()}
