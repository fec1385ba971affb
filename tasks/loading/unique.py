"""Checks that what is declared unique is so in the whole table, once the staged rows are in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.listed import listed
from tasks.loading.schema import TargetColumn, same_values, target
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import GateFailed
from tasks.model.gates import FailedGate


def check_unique(cursor: Cursor, spec: DatasetSpec, columns: Mapping[str, TargetColumn]) -> None:
    """Refuse a load after which the table holds a value twice; only staged values are looked at.

    Raises:
        GateFailed: It would; the transaction must be rolled back.
    """
    for names in spec.unique:
        cursor.execute(_statement(spec, [columns[name] for name in names]))
        _refuse(cursor, spec, names)


def _refuse(cursor: Cursor, spec: DatasetSpec, names: Sequence[str]) -> None:
    row = cursor.fetchone()
    twice = int(row[0]) if row else 0
    if twice:
        found = f"{twice} values would be in more than one row of {spec.load.table}"
        error = GateFailed(
            f"{spec.name}: unique: {twice} values of ({', '.join(names)}) would be in more than "
            f"one row of {spec.load.table}",
            "nothing of the partition was published; correct the source, or remove 'unique'",
        )
        error.failed = (FailedGate(f"unique of the table ({', '.join(names)})", found),)
        raise error


def _statement(spec: DatasetSpec, columns: list[TargetColumn]) -> sql.Composed:
    names = listed([column.name for column in columns])
    return sql.SQL(
        "SELECT count(*) FROM (SELECT FROM {target} AS t WHERE EXISTS "
        "(SELECT FROM {staging} AS s WHERE {there}) GROUP BY {names} HAVING count(*) > 1) AS d"
    ).format(
        target=target(spec),
        staging=sql.Identifier("pg_temp", STAGING),
        there=same_values(columns),
        names=names,
    )


def check_unique_in_table(cursor: Cursor, spec: DatasetSpec) -> None:
    """Refuse a table that holds a value twice; all of it is looked at.

    Raises:
        GateFailed: It does; the transaction must be rolled back.
    """
    for names in spec.unique:
        cursor.execute(
            sql.SQL(
                "SELECT count(*) FROM (SELECT FROM {target} WHERE num_nulls({names}) = 0 "
                "GROUP BY {names} HAVING count(*) > 1) AS d"
            ).format(target=target(spec), names=listed(names))
        )
        _refuse(cursor, spec, names)
