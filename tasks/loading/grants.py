"""What roles may do with a table: the DDL of it. Pure."""

from __future__ import annotations

from psycopg2 import sql

from tasks.loading.schema import target
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.load import MergeLoad, ReplaceLoad, ReplacePartitionLoad, Scd2Load


def wanted_grants(spec: DatasetSpec) -> list[tuple[str, str]]:
    """Return role and privilege of ``load.grants``."""
    return [
        (role, privilege)
        for role, privileges in (spec.load.grants or {}).items()
        for privilege in dict.fromkeys(privileges)
    ]


def grant(spec: DatasetSpec, role: str, privilege: str) -> sql.Composed:
    """Return the DDL that lets a role do something with the dataset's table."""
    return sql.SQL("GRANT {} ON {} TO {}").format(
        sql.SQL(privilege.upper()), target(spec), sql.Identifier(role)
    )


def revoke(spec: DatasetSpec, role: str, privilege: str) -> sql.Composed:
    """Return the DDL that takes it away again."""
    return sql.SQL("REVOKE {} ON {} FROM {}").format(
        sql.SQL(privilege.upper()), target(spec), sql.Identifier(role)
    )


def grant_schema(spec: DatasetSpec, role: str) -> sql.Composed:
    """Return the DDL that lets a role reach what is in the table's schema."""
    return sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(
        sql.Identifier(spec.schema_name), sql.Identifier(role)
    )


def needed_rights(spec: DatasetSpec) -> list[str]:
    """Return what a load does with rows of the table: select, insert, update, delete."""
    load = spec.load
    needed = ["select", "insert"]
    if isinstance(load, MergeLoad | Scd2Load) or (isinstance(load, ReplaceLoad) and spec.key):
        needed.append("update")
    flagged = isinstance(load, MergeLoad) and load.delete and load.delete.kind == "hard"
    compared = isinstance(spec.source, DatabaseSource) and spec.source.deletes
    if flagged or compared or isinstance(load, ReplaceLoad | ReplacePartitionLoad | Scd2Load):
        needed.append("delete")
    return needed
