"""Enrichment: columns of other rows, joined by a key, or by a key and the latest time before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.lookup import Lookup, span
from tasks.model.rules import Reference
from tasks.transformation.sql import identifier, literal, literals
from tasks.transformation.validate import Rule

BASE = "base"
"""Alias of the rows that look something up."""


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A snapshot of what is looked up, as a Parquet file on this machine."""

    path: str
    types: Mapping[str, str]
    """DuckDB type of each column of the snapshot."""


def lookup_columns(lookup: str, looked_up: LookedUp, users: Sequence[DatasetSpec]) -> list[str]:
    """Return the columns that some datasets take from a lookup, its key first."""
    taken = {
        column
        for user in users
        for declared in user.lookups
        if declared.lookup == lookup
        for column in declared.take.values()
    }
    return [*looked_up.key, *sorted(taken - set(looked_up.key))]


def lookup_alias(number: int) -> str:
    """Return the alias of the n-th lookup in the query."""
    return f"lookup_{number}"


def join_clause(number: int, lookup: Lookup, table: LookupTable) -> str:
    """Return the LEFT JOIN of one lookup; its key is unique, so no row is doubled."""
    alias = lookup_alias(number)
    conditions = [
        f"{BASE}.{identifier(mine)} = {alias}.{identifier(theirs)}"
        for mine, theirs in lookup.by.items()
    ]
    for mine, theirs in (lookup.as_of or {}).items():
        conditions.append(f"{BASE}.{identifier(mine)} >= {alias}.{identifier(theirs)}")
    join = "ASOF LEFT JOIN" if lookup.as_of else "LEFT JOIN"
    rows = f"read_parquet([{literals([table.path])}])"
    return f"{join} {rows} AS {alias} ON {' AND '.join(conditions)}"


def taken_columns(number: int, lookup: Lookup, table: LookupTable) -> Iterator[str]:
    """Yield the select list of one lookup: what is taken, and whether nothing was found."""
    alias, found = lookup_alias(number), _found(number, lookup)
    defaults = lookup.missing if isinstance(lookup.missing, dict) else {}
    for mine, theirs in lookup.take.items():
        value = f"{alias}.{identifier(theirs)}"
        if mine in defaults:
            default = default_value(defaults[mine], table.types.get(theirs, "VARCHAR"))
            value = f"CASE WHEN {found} THEN {value} ELSE {default} END"
        elif lookup.within:
            value = f"CASE WHEN {found} THEN {value} END"
        yield f"{value} AS {identifier(mine)}"
    yield f"NOT ({found}) AS {_missing(number)}"


def default_value(value: object, kind: str) -> str:
    """Return SQL for a declared default in the type of its column."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"CAST({literal(text)} AS {kind})"


def _found(number: int, lookup: Lookup) -> str:
    alias = lookup_alias(number)
    found = f"{alias}.{identifier(lookup.key[0])} IS NOT NULL"
    if lookup.within and lookup.as_of:
        ((mine, theirs),) = lookup.as_of.items()
        seconds = int(span(lookup.within).total_seconds())
        age = (
            f"CAST({BASE}.{identifier(mine)} AS TIMESTAMP) "
            f"- CAST({alias}.{identifier(theirs)} AS TIMESTAMP)"
        )
        found = f"{found} AND {age} <= to_seconds({seconds})"
    return found


def lookup_rule(number: int, lookup: Lookup) -> Rule | None:
    """Return the rule that refuses rows which find nothing, if that is declared."""
    if lookup.missing != "quarantine":
        return None
    keys = ", ".join(lookup.matched)
    return Rule(
        "lookup", keys, f"{lookup.lookup} has no row for this {keys}", f"{_missing(number)}"
    )


def reference_rule(number: int, reference: Reference) -> Rule:
    """Return the rule that the values of some columns are a key of another dataset."""
    names = ", ".join(reference.columns)
    there = " AND ".join(f"{identifier(name)} IS NOT NULL" for name in reference.columns)
    message = f"{reference.dataset} has no row for this {names}"
    violated = f"{_missing(number)} AND {there}"
    return Rule("reference", names, message, violated, reference.severity)


def _missing(number: int) -> str:
    return identifier(f"lookup {number} missing")
