"""What the table of a dataset is at present, as the catalog of PostgreSQL has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.queries import query
from tasks.loading.schema import TargetColumn, existing_columns, schema_exists
from tasks.model.dataset import DatasetSpec


@dataclass(frozen=True, slots=True)
class TableState:
    """A table that is there.

    Attributes:
        columns: Its columns; their descriptions are the comments.
        comment: Its comment.
        owner: The role that owns it.
        role: The role that we are.
        owned: May we do what its owner may?
        schema_owned: May we do what the owner of its schema may?
        partitioned_by: How it is partitioned, as PostgreSQL writes it; None if it is not.
        key: Columns of its primary key.
        indexes: Its indexes, and whether each can be used.
        grants: Role and privilege of everybody but the owner.
        rights: What we may do with its rows: select, insert, update, delete.
        unknown_roles: Roles of the dataset file that are not there.
        roles_without_schema: Roles of the dataset file that cannot reach the schema.
    """

    columns: Mapping[str, TargetColumn]
    comment: str | None
    owner: str
    role: str
    owned: bool
    schema_owned: bool
    partitioned_by: str | None
    key: tuple[str, ...]
    indexes: Mapping[str, bool]
    grants: frozenset[tuple[str, str]]
    rights: frozenset[str]
    unknown_roles: tuple[str, ...] = ()
    roles_without_schema: tuple[str, ...] = ()


def table_state(cursor: Cursor, spec: DatasetSpec) -> TableState | None:
    """Return what the dataset's table is, None if there is none."""
    columns = existing_columns(cursor, spec)
    if not columns:
        return None
    cursor.execute(query("table_state"), {"table": spec.load.table})
    row = cursor.fetchone()
    assert row is not None, "it has columns"
    unknown = unknown_roles(cursor, spec)
    return TableState(
        columns=columns,
        comment=row[0],
        owner=row[1],
        role=row[2],
        owned=row[3],
        schema_owned=row[4],
        partitioned_by=row[5],
        key=tuple(row[6]),
        indexes=row[7],
        grants=frozenset((str(role), str(privilege)) for role, privilege in row[8]),
        rights=frozenset(row[9]),
        unknown_roles=unknown,
        roles_without_schema=roles_without_schema(cursor, spec, unknown),
    )


def unknown_roles(cursor: Cursor, spec: DatasetSpec) -> tuple[str, ...]:
    """Return those of the dataset file's roles that are not there."""
    if not spec.load.grants:
        return ()
    cursor.execute(query("unknown_roles"), {"roles": list(spec.load.grants)})
    return tuple(str(row[0]) for row in cursor.fetchall())


def roles_without_schema(
    cursor: Cursor, spec: DatasetSpec, unknown: tuple[str, ...]
) -> tuple[str, ...]:
    """Return those of the dataset file's roles that cannot reach what is in the table's schema."""
    if not spec.load.grants:
        return ()
    roles = [role for role in spec.load.grants if role not in unknown]
    if not schema_exists(cursor, spec.schema_name):
        return tuple(roles)
    cursor.execute(query("roles_without_schema"), {"roles": roles, "schema": spec.schema_name})
    return tuple(str(row[0]) for row in cursor.fetchall())
