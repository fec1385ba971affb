"""Gates that are questions to the staged rows: uniqueness, references, freshness, SQL of the user's.

They see the rows as the view ``staged``, in the types of the target, inside a savepoint that is read
only and is rolled back at the end. A query of the user's is opened as a cursor by the server, which
takes one SELECT and nothing else; so neither a second statement nor a function can change anything
that a transaction can undo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from psycopg2.extensions import new_type, register_type

from tasks.loading.queries import query
from tasks.loading.schema import TargetColumn, staged_value, target
from tasks.loading.staging import STAGING
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import ConfigError
from tasks.model.gates import FailedGate, Freshness, Gate, NoRows, References, UniqueRows
from tasks.model.lookup import span
from tasks.protection import MASK

EVIDENCE_ROWS = 20
"""Most rows of one gate that are kept as evidence."""
EVIDENCE_CHARACTERS = 200
ROWS = "_rows"
"""In evidence: in how many rows the values are."""
_VIEW = sql.Identifier("pg_temp", "staged")
_REFUSED_BEFORE_READING = ("0A", "25", "3F", "42")
"""SQLSTATE classes of a query that can never be asked: no SELECT, a write, an unknown name."""


def hidden_columns(
    spec: DatasetSpec, lookups: Mapping[str, LookedUp], names: Sequence[str]
) -> frozenset[str]:
    """Return the columns whose values are not kept as evidence.

    Those marked ``pii``, those taken from such, and where there are any, those that may have been
    computed of them: all that are not declared columns themselves.
    """
    taken = {
        mine: (lookup.lookup, theirs)
        for lookup in spec.enrich
        for mine, theirs in lookup.take.items()
    }
    personal = {name for name, column in spec.columns.items() if column.pii != "none"}
    personal |= {
        mine
        for mine, (other, theirs) in taken.items()
        if other in lookups and lookups[other].columns[theirs].pii != "none"
    }
    if not personal:
        return frozenset()
    plain = {*spec.columns, *taken} - personal
    return frozenset(names) - plain


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
        self._names = [column.name for column in columns]
        self._hidden = hidden_columns(spec, lookups, self._names)
        self._has_rows = has_rows
        self._view_oid = 0

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
        self._view_oid = self._one("SELECT 'pg_temp.staged'::regclass::oid")
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
        elif isinstance(gate, NoRows):
            yield from self._no_rows(gate)

    def with_evidence(self, failure: FailedGate) -> FailedGate:
        """Add the keys of some rows in which the column of a gate about NULL has none."""
        if failure.null_column is None or not (self._has_rows and self._spec.key):
            return failure
        self._cursor.execute(
            sql.SQL("SELECT {} FROM {} WHERE {} IS NULL ORDER BY {} LIMIT {}").format(
                _texts(self._spec.key),
                _VIEW,
                sql.Identifier(failure.null_column),
                _list(self._spec.key),
                sql.Literal(EVIDENCE_ROWS),
            )
        )
        return replace(failure, evidence=self._shown(self._spec.key, self._cursor.fetchall()))

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
            self._raise_config_error(gate, error)
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
                names=_list(names),
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
        evidence = self._shown([*names, ROWS], [row[:-2] for row in groups])
        return groups[0][-2], groups[0][-1], evidence

    def _freshness(self, gate: Freshness) -> Iterator[FailedGate]:
        name, allowed = gate.freshness.column, span(gate.freshness.max_age)
        self._cursor.execute(
            sql.SQL(
                "SELECT count(*), extract(epoch FROM now() - max({})::timestamptz)::float8 FROM {}"
            ).format(sql.Identifier(name), _VIEW)
        )
        row = self._cursor.fetchone()
        assert row is not None
        rows, age = row
        if rows and age is None:
            yield FailedGate(gate.label, f"none of {rows} rows has a value")
        elif rows and age > allowed.total_seconds():
            yield FailedGate(
                gate.label,
                f"the newest row is {_age(age)} old, allowed {_age(allowed.total_seconds())}",
            )

    def _no_rows(self, gate: NoRows) -> Iterator[FailedGate]:
        milliseconds = round(span(gate.timeout).total_seconds() * 1000)
        # A cursor of its own: how it gives values is changed below.
        with self._cursor.connection.cursor() as cursor:
            cursor.execute("SAVEPOINT gate")
            cursor.execute("SET LOCAL statement_timeout = %s", (milliseconds,))
            try:
                _open(cursor, gate.sql)
                names, shown = self._described(cursor)
                cursor.execute(query("fetch_from_gate"), {"most": EVIDENCE_ROWS + 1})
                rows = cursor.fetchall()
            except psycopg2.Error as error:
                found = self._query_failure(gate, error)
                cursor.execute("ROLLBACK TO SAVEPOINT gate")
                yield FailedGate(gate.label, found)
                return
            cursor.execute("ROLLBACK TO SAVEPOINT gate")
        if rows:
            number = f"more than {EVIDENCE_ROWS}" if len(rows) > EVIDENCE_ROWS else str(len(rows))
            evidence = tuple(
                {
                    name: _short(value) if show else MASK
                    for name, value, show in zip(names, row, shown, strict=True)
                }
                for row in rows[:EVIDENCE_ROWS]
            )
            yield FailedGate(
                gate.label, f"its query gives {number} rows, allowed is none", evidence
            )

    def _described(self, cursor: Cursor) -> tuple[list[str], list[bool]]:
        """Return the result's columns, and which may be kept; values will come as their texts.

        Where a column is personal only columns of the staged rows are, unchanged: of anything that
        is computed nobody knows what is in it.
        """
        cursor.execute(query("describe_gate"))
        described = cursor.description or ()
        kinds = tuple({column.type_code for column in described})
        register_type(new_type(kinds, "TEXT", lambda value, _: value), cursor)
        return [column.name for column in described], [
            not self._hidden
            or (
                column.table_oid == self._view_oid
                and bool(column.table_column)
                and self._names[column.table_column - 1] not in self._hidden
            )
            for column in described
        ]

    def _query_failure(self, gate: NoRows, error: psycopg2.Error) -> str:
        """Say what an error of the user's query means; what is none of it is raised."""
        self._raise_config_error(gate, error)
        if isinstance(error, psycopg2.errors.QueryCanceled):
            return f"its query gave no answer within {gate.timeout}"
        if isinstance(error, psycopg2.DataError):
            return f"its query ended with {type(error).__name__}"
        raise error

    def _raise_config_error(self, gate: Gate, error: psycopg2.Error) -> None:
        if (error.pgcode or "").startswith(_REFUSED_BEFORE_READING):
            raise ConfigError(
                f"{self._spec.name}: quality.gates: {gate.label}: "
                f"{classify(error).message.removeprefix('warehouse: ')}",
                "a gate is one SELECT that changes nothing; it knows the columns of 'staged', and "
                "tables by schema.table",
            ) from None

    def _shown(
        self, names: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> tuple[dict[str, Any], ...]:
        return tuple(
            {
                name: MASK if name in self._hidden else _short(value)
                for name, value in zip(names, row, strict=True)
            }
            for row in rows
        )

    def _one(self, statement: str | sql.Composable) -> Any:
        self._cursor.execute(statement)
        row = self._cursor.fetchone()
        assert row is not None, "the query always gives a row"
        return row[0]


def _open(cursor: Cursor, text: str) -> None:
    """Open the cursor ``gate`` for a query.

    By the server's own OPEN … FOR EXECUTE: it refuses a text of two statements, and whatever is no
    query.
    """
    body = sql.SQL(
        "DECLARE c refcursor := 'gate'; BEGIN OPEN c NO SCROLL FOR EXECUTE {}; END"
    ).format(sql.Literal(text))
    cursor.execute(sql.SQL("DO {}").format(sql.Literal(body.as_string(cursor))))


def _texts(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)


def _list(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _short(value: Any) -> Any:
    """Return a value as evidence keeps it: text of a bounded length."""
    if isinstance(value, str) and len(value) > EVIDENCE_CHARACTERS:
        return f"{value[:EVIDENCE_CHARACTERS]}…"
    return value


def _age(seconds: float) -> str:
    """Return a span of time in its two largest units, e.g. ``3d 4h``."""
    left, words = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            words.append(f"{count}{unit}")
    return " ".join(words[:2]) or "0s"
