"""SQL that a dataset file says: one expression over a row, which gives the same for the same row."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import duckdb

from tasks.model.errors import ConfigError

_REFUSED = {
    "SUBQUERY": "a query inside an expression",
    "WINDOW": "a window over other rows",
    "STAR": "*",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column by its position",
}
_OF_THE_MOMENT = frozenset(
    {
        "current_catalog",
        "current_database",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "localtime",
        "localtimestamp",
        "session_user",
        "user",
    }
)
_MACROS = frozenset(["date_add", "days_in_month", "fdiv", "fmod", "if", "nullif", "split_part"])
_MACRO_FAMILIES = ("array_", "list_", "map_")
_USES_THE_CLOCK = frozenset(["age", "ago"])


@dataclass(frozen=True, slots=True)
class Expression:
    """What a SQL expression refers to.

    Attributes:
        columns: Names of columns; those of lambda functions' parameters are among them.
        functions: Names of functions, operators included, in small letters.
    """

    columns: frozenset[str]
    functions: frozenset[str]


def check_expression(where: str, sql: str, known: Collection[str]) -> Expression:
    """Refuse what is no expression over the columns of one row, or not the same tomorrow.

    Args:
        where: Names the expression in messages, e.g. ``flights: derive: gain``.
        sql: The expression.
        known: Columns that it may use.

    Raises:
        ConfigError: Says why.
    """
    try:
        found = parse_expression(sql)
    except ValueError as error:
        raise ConfigError(f"{where}: {sql!r} is no expression: {error}") from None
    for name in sorted(found.functions):
        if name not in _row_functions():
            raise ConfigError(
                f"{where}: {sql!r}: {name!r} is no function of a row's values alone",
                "what is read, counted over other rows, drawn at random or taken from the clock "
                "would differ the next time",
            )
    for name in sorted(found.columns & _OF_THE_MOMENT):
        if name not in known:
            raise ConfigError(f"{where}: {sql!r}: {name} is another one the next time")
    return found


@lru_cache(maxsize=4096)
def parse_expression(sql: str) -> Expression:
    """Take a SQL expression apart.

    Raises:
        ValueError: It is none, or holds something that has no place in one over a row.
    """
    with duckdb.connect(":memory:") as connection:
        try:
            duckdb.SQLExpression(sql)
            query = f"SELECT (\n{sql}\n)"
            (text,) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0]
        except duckdb.Error as error:
            raise ValueError(str(error).splitlines()[0]) from None
    parsed: dict[str, Any] = json.loads(text)
    if parsed["error"] or len(parsed["statements"]) != 1:
        raise ValueError(parsed.get("error_message", "it is several statements"))
    columns, functions = set[str](), set[str]()
    for node in _nodes(parsed["statements"][0]["node"]["select_list"]):
        if reason := _REFUSED.get(node["class"]):
            raise ValueError(f"{reason} has no place in it")
        if node["class"] == "COLUMN_REF":
            columns.add(node["column_names"][-1])
        if node["class"] == "FUNCTION":
            functions.add(node["function_name"].lower())
    return Expression(frozenset(columns), frozenset(functions))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for branch in tree.values():
            yield from _nodes(branch)
    elif isinstance(tree, list):
        for branch in tree:
            yield from _nodes(branch)


@cache
def _row_functions() -> frozenset[str]:
    """Return the functions whose result depends on their arguments and on nothing else."""
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(
            "SELECT function_name, function_type, stability FROM duckdb_functions()"
        ).fetchall()
    scalar, other = set[str](), set[str]()
    for name, kind, stability in rows:
        family = name in _MACROS or name.startswith(_MACRO_FAMILIES)
        if (kind == "scalar" and stability == "CONSISTENT") or (kind == "macro" and family):
            scalar.add(name.lower())
        elif kind in ("aggregate", "scalar"):
            other.add(name.lower())
    return frozenset(scalar - other - _USES_THE_CLOCK)
