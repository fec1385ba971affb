"""Gates that are questions to the staged rows: uniqueness, references, freshness, queries.

They see the rows as the view ``staged``, in the types of the target, inside a savepoint that is read
only and is rolled back at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.evidence import EVIDENCE_ROWS, hidden_columns, shown
from tasks.loading.gate_query import StagedView, ask_query, refuse_query
from tasks.loading.listed import listed
from tasks.loading.schema import TargetColumn, staged_value, target
from tasks.loading.session import one_row
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.gates import FailedGate, Freshness, Gate, NoRows, References, UniqueRows
from tasks.model.lookup import span

ROWS = "_rows"
"""In evidence: in how many rows the values are."""
_VIEW = sql.Identifier("pg_temp", "staged")


class StagedRows:
    """The staged rows as gates see them.

    Args:
        cursor: In the transaction of the load.
        spec: The dataset.
        lookups: What it looks up, and the datasets that its gates refer to.
        columns: The staged columns.
        has_rows: Is there a staging table?
    """

    def __init__(
        self,
        cursor: Cursor,
        spec: DatasetSpec,
        lookups: Mapping[str, LookedUp],
        columns: Sequence[TargetColumn],
        *,
        has_rows: bool,
    ) -> None:
        self._cursor, self._spec, self._lookups = cursor, spec, lookups
        self._columns = columns
        names = [column.name for column in columns]
        self._view = StagedView(spec.name, 0, names, hidden_columns(spec, lookups, names))
        self._has_rows = has_rows

    def __enter__(self) -> StagedRows:
        if self._has_rows:
            values = [
                sql.SQL("{} AS {}").format(staged_value(column), sql.Identifier(column.name))
                for column in self._columns
            ]
            rows = sql.SQL("FROM {}").format(sql.Identifier("pg_temp", STAGING))
        else:
            values = [
                sql.SQL("NULL::{} AS {}").format(sql.SQL(column.type), sql.Identifier(column.name))
                for column in self._columns
            ]
            rows = sql.SQL("WHERE false").format()
        self._cursor.execute("SAVEPOINT gates")
        self._cursor.execute(
            sql.SQL("CREATE TEMPORARY VIEW {} AS SELECT {} {}").format(
                sql.Identifier("staged"), sql.SQL(", ").join(values), rows
            )
        )
        oid = self._one("SELECT 'pg_temp.staged'::regclass::oid")
        self._view = replace(self._view, oid=oid)
        self._cursor.execute("SET LOCAL transaction_read_only = on")
        return self

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        if raised is None:  # else the whole transaction is rolled back
            self._cursor.execute("ROLLBACK TO SAVEPOINT gates")
            self._cursor.execute("RELEASE SAVEPOINT gates")

    def failures(self, gate: Gate) -> Iterator[FailedGate]:
        """Ask one gate.

        Raises:
            ConfigError: Its query is none that can be asked.
        """
        if isinstance(gate, UniqueRows):
            yield from self._unique(gate)
        elif isinstance(gate, References):
            yield from self._references(gate)
        elif isinstance(gate, Freshness):
            yield from self._freshness(gate)
        elif isinstance(gate, NoRows) and (failed := ask_query(self._cursor, self._view, gate)):
            yield failed

    def with_evidence(self, failure: FailedGate) -> FailedGate:
        """Add the keys of some rows in which the column of a gate about NULL has none."""
        if failure.null_column is None or not (self._has_rows and self._spec.key):
            return failure
        self._cursor.execute(
            sql.SQL("SELECT {} FROM {} WHERE {} IS NULL ORDER BY {} LIMIT {}").format(
                _texts(self._spec.key),
                _VIEW,
                sql.Identifier(failure.null_column),
                listed(self._spec.key),
                sql.Literal(EVIDENCE_ROWS),
            )
        )
        return replace(
            failure, evidence=shown(self._spec.key, self._cursor.fetchall(), self._view.hidden)
        )

    def _unique(self, gate: UniqueRows) -> Iterator[FailedGate]:
        found, rows, evidence = self._groups(
            gate.unique, sql.SQL("true"), sql.SQL("HAVING count(*) > 1")
        )
        if found:
            yield FailedGate(
                gate.label, f"{found} values are in {rows} rows, allowed is one row each", evidence
            )

    def _references(self, gate: References) -> Iterator[FailedGate]:
        wanted = gate.references
        table, place = self._table_of(gate)
        self._cursor.execute("SELECT to_regclass(%s) IS NULL", (place,))
        if self._cursor.fetchone() == (True,):
            if self._has_rows:
                yield FailedGate(gate.label, f"there is no table {place} yet")
            return
        there = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("t", theirs), sql.Identifier("s", mine))
            for mine, theirs in wanted.columns.items()
        )
        missing = sql.SQL("NOT EXISTS (SELECT FROM {} AS t WHERE {})").format(table, there)
        names = tuple(wanted.columns)
        try:
            found, rows, evidence = self._groups(names, missing, sql.SQL(""))
        except psycopg2.Error as error:
            refuse_query(self._spec.name, gate, error)
            raise
        total = self._one(sql.SQL("SELECT count(*) FROM {}").format(_VIEW)) if found else 0
        if total and rows / total > wanted.missing:
            yield FailedGate(
                gate.label,
                f"{found} values in {rows} of {total} rows are not in {place}, "
                f"allowed are {wanted.missing:.1%} of the rows",
                evidence,
            )

    def _table_of(self, gate: References) -> tuple[sql.Identifier, str]:
        reference = gate.references
        if reference.table is not None:
            schema, name = reference.table.split(".")
            return sql.Identifier(schema, name), f'"{schema}"."{name}"'
        other = self._lookups[str(reference.dataset)]
        assert isinstance(other, DatasetSpec)
        return target(other), other.load.table

    def _groups(
        self, names: Sequence[str], where: sql.Composable, having: sql.Composable
    ) -> tuple[int, int, tuple[dict[str, Any], ...]]:
        """Return how many groups of equal values there are, in how many rows, and some of them."""
        given = sql.SQL(" AND ").join(
            sql.SQL("{} IS NOT NULL").format(sql.Identifier("s", name)) for name in names
        )
        self._cursor.execute(
            sql.SQL(
                "SELECT {texts}, count(*), count(*) OVER (), (sum(count(*)) OVER ())::bigint "
                "FROM {view} AS s WHERE {given} AND {where} GROUP BY {names} {having} "
                "ORDER BY count(*) DESC, {names} LIMIT {most}"
            ).format(
                texts=_texts(names),
                names=listed(names),
                view=_VIEW,
                given=given,
                where=where,
                having=having,
                most=sql.Literal(EVIDENCE_ROWS),
            )
        )
        groups = self._cursor.fetchall()
        if not groups:
            return 0, 0, ()
        evidence = shown([*names, ROWS], [row[:-2] for row in groups], self._view.hidden)
        return groups[0][-2], groups[0][-1], evidence

    def _freshness(self, gate: Freshness) -> Iterator[FailedGate]:
        name, allowed = gate.freshness.column, span(gate.freshness.max_age)
        self._cursor.execute(
            sql.SQL(
                "SELECT count(*), extract(epoch FROM now() - max({})::timestamptz)::float8 FROM {}"
            ).format(sql.Identifier(name), _VIEW)
        )
        rows, age = one_row(self._cursor)
        if rows and age is None:
            yield FailedGate(gate.label, f"none of {rows} rows has a value")
        elif rows and age > allowed.total_seconds():
            yield FailedGate(
                gate.label,
                f"the newest row is {_age(age)} old, allowed {_age(allowed.total_seconds())}",
            )

    def _one(self, statement: str | sql.Composable) -> Any:
        self._cursor.execute(statement)
        return one_row(self._cursor)[0]


def _texts(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)


def _age(seconds: float) -> str:
    """Return a span of time in its two largest units, e.g. ``3d 4h``."""
    left, words = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            words.append(f"{count}{unit}")
    return " ".join(words[:2]) or "0s"
