"""Enrichment: columns of another dataset's table, joined by its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.model.rules import Reference
from tasks.model.source import Lookup
from tasks.transformation.sql import identifier, literals
from tasks.transformation.validate import Rule


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A snapshot of another dataset's table, as a Parquet file on this machine."""

    path: str
    types: Mapping[str, str]
    """DuckDB type of each column of the snapshot."""


def lookup_alias(number: int) -> str:
    """Return the alias of the n-th lookup in the query."""
    return f"lookup_{number}"


def join_clause(number: int, lookup: Lookup, table: LookupTable) -> str:
    """Return the LEFT JOIN of one lookup; its key is unique, so no row is doubled."""
    alias = lookup_alias(number)
    condition = " AND ".join(
        f"typed.{identifier(mine)} = {alias}.{identifier(theirs)}"
        for mine, theirs in lookup.by.items()
    )
    return f"LEFT JOIN read_parquet([{literals([table.path])}]) AS {alias} ON {condition}"


def taken_columns(number: int, lookup: Lookup) -> Sequence[str]:
    """Return the select list of one lookup: what is taken, and whether anything was found."""
    alias = lookup_alias(number)
    any_key = next(iter(lookup.by.values()))
    taken = [
        f"{alias}.{identifier(theirs)} AS {identifier(mine)}"
        for mine, theirs in lookup.take.items()
    ]
    return [*taken, f"{alias}.{identifier(any_key)} IS NULL AS {_missing(number)}"]


def lookup_rule(number: int, lookup: Lookup) -> Rule | None:
    """Return the rule that refuses rows which find nothing, if that is declared."""
    if lookup.missing != "quarantine":
        return None
    keys = ", ".join(lookup.by)
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
