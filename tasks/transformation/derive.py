"""Derived columns: an expression over the row, cast to its declared type or refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tasks.model.column_types import decimal_digits
from tasks.model.dataset import DatasetSpec
from tasks.model.derive import DerivedColumn
from tasks.model.errors import ConfigError
from tasks.transformation.expression import check_expression
from tasks.transformation.sql import duckdb_type, identifier
from tasks.transformation.validate import Rule, column_rules


def order_of_derived(spec: DatasetSpec) -> tuple[list[str], list[str]]:
    """Return the derived columns that lookups may use, and those that use what lookups take.

    Raises:
        ConfigError: An expression is none, or something is looked up by a column of the second kind.
    """
    taken = set(spec.taken_columns)
    known = {*spec.columns, *taken, *spec.derive}
    before: list[str] = []
    after: list[str] = []
    for name, column in spec.derive.items():
        uses = check_expression(f"{spec.name}: derive: {name}", column.sql, known).columns
        later = [other for other in list(spec.derive)[len(before) + len(after) :] if other in uses]
        if later:
            raise ConfigError(
                f"{spec.name}: derive: {name}: {later[0]} is derived after it",
                "put the columns into the order in which they are computed",
            )
        (after if uses & (taken | set(after)) else before).append(name)
    for lookup in spec.lookups:
        if wrong := [name for name in lookup.matched if name in after]:
            raise ConfigError(
                f"{spec.name}: {lookup.lookup} is looked up by {wrong[0]}, which is derived from what "
                "lookups take",
                "derive it from columns of the source",
            )
    return before, after


def derived_columns(spec: DatasetSpec, names: Sequence[str]) -> list[str]:
    """Return the select list that computes some columns; each may use those before it."""
    selected = []
    for name in names:
        column, whole = spec.derive[name], _whole(name)
        # An expression that fails gives NULL; one that gives NULL gives a struct with NULL in it.
        selected.append(f"TRY({{'v': ({column.sql}\n)}}) AS {whole}")
        selected.append(f"{_cast(_value(name), column)} AS {identifier(name)}")
    return selected


def derived_rules(name: str, column: DerivedColumn) -> Iterator[Rule]:
    """Yield the rules of a derived column."""
    whole, value = _whole(name), identifier(name)
    zone = " with a time zone" if column.timezone else ""
    yield Rule(
        "derive",
        name,
        f"its expression fails, or gives no {column.type}{zone} without a change",
        f"({whole} IS NULL OR ({_value(name)} IS NOT NULL AND {value} IS NULL))",
    )
    for rule in column_rules(name, column, required=not column.nullable, text=_value(name)):
        if rule.name == "required":
            nothing = f"({whole} IS NOT NULL AND {_value(name)} IS NULL)"
            yield replace(rule, message="its expression gives nothing", violated=nothing)
        elif rule.name != "type":
            yield rule


def _whole(name: str) -> str:
    """Name of an expression's value before the cast; the space keeps it apart from every real name."""
    return identifier(f"derived {name}")


def _value(name: str) -> str:
    return f"struct_extract({_whole(name)}, 'v')"


def _cast(value: str, column: DerivedColumn) -> str:
    kind = duckdb_type(column)
    digits = decimal_digits(column.type)
    if column.round and digits:
        return f"TRY_CAST(round_even({value}, {digits[1]}) AS {kind})"
    cast = f"TRY_CAST({value} AS {kind})"
    return f"CASE WHEN {cast} IS NOT DISTINCT FROM {value} THEN {cast} END"
