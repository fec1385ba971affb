"""What differs between a table and its dataset beside its columns. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from psycopg2 import sql

from tasks.loading.difference import NOTHING, Difference
from tasks.loading.grants import grant, grant_schema, needed_rights, revoke, wanted_grants
from tasks.loading.indexes import declared_indexes, was_declared
from tasks.loading.schema import TargetColumn, comment_on_column, comment_on_table
from tasks.loading.state import TableState
from tasks.model.dataset import DatasetSpec


def of_rights(spec: DatasetSpec, state: TableState) -> Iterator[Difference]:
    """Yield the rights to the table that its loads need and lack."""
    for right in needed_rights(spec):
        if right not in state.rights:
            yield Difference(
                f"right to {right}",
                NOTHING,
                state.role,
                f"role {state.role} may not {right} in the table",
                ddl=grant(spec, state.role, right),
                when="hand",
                why=f"only the table's owner {state.owner} may grant it",
            )


def of_comments(
    spec: DatasetSpec, columns: Sequence[TargetColumn], state: TableState
) -> Iterator[Difference]:
    """Yield the comments that are others than declared."""
    if state.comment != spec.description:
        yield Difference(
            "comment", state.comment or NOTHING, spec.description, ddl=comment_on_table(spec)
        )
    for column in columns:
        there = state.columns.get(column.name)
        if column.description and (there is None or there.description != column.description):
            has = (there and there.description) or NOTHING
            about = f"comment of {column.name}"
            yield Difference(about, has, column.description, ddl=comment_on_column(spec, column))


def of_indexes(spec: DatasetSpec, state: TableState) -> Iterator[Difference]:
    """Yield the indexes that are declared and not there, or there and not declared any more."""
    table = (spec.schema_name, spec.table_name)
    partitioned = state.partitioned_by is not None
    wanted = declared_indexes(spec)
    for index in wanted:
        if not state.indexes.get(index.name, False):
            has = "unfinished" if index.name in state.indexes else NOTHING
            yield Difference(
                f"index {index.name}",
                has,
                "unique" if index.unique else "index",
                # Of a partitioned table it is built partition by partition, which is as gentle.
                ddl=index.create(table, concurrently=not partitioned),
                when="after",
            )
    names = {index.name for index in wanted}
    for name in state.indexes:
        if name not in names and was_declared(name):
            gently = "" if partitioned else "CONCURRENTLY "
            yield Difference(
                f"index {name}",
                "index",
                NOTHING,
                ddl=sql.SQL(f"DROP INDEX {gently}{{}}").format(
                    sql.Identifier(spec.schema_name, name)
                ),
                when="hand",
                why="it is not declared any more, and nothing is dropped by itself",
            )


def of_grants(spec: DatasetSpec, state: TableState) -> Iterator[Difference]:
    """Yield the grants that are declared and not there, or there and not declared."""
    if spec.load.grants is None:
        return  # others look after them
    for role in state.unknown_roles:
        text = f"role {role} of load.grants is not there"
        yield Difference(f"role {role}", NOTHING, "role", text)
    for role in state.roles_without_schema:
        found = Difference(
            f"schema {spec.schema_name}", NOTHING, f"usage: {role}", ddl=grant_schema(spec, role)
        )
        why = f"role {state.role} does not own the schema"
        yield found if state.schema_owned else replace(found, when="hand", why=why)
    wanted = wanted_grants(spec)
    for role, privilege in wanted:
        if role not in state.unknown_roles and (role, privilege) not in state.grants:
            about, ddl = f"grant to {role}", grant(spec, role, privilege)
            yield Difference(about, NOTHING, privilege, ddl=ddl)
    for role, privilege in sorted(state.grants - set(wanted)):
        yield Difference(
            f"grant to {role}",
            privilege,
            NOTHING,
            ddl=revoke(spec, role, privilege),
            when="hand",
            why="it is not declared, and nothing is taken away by itself",
        )
