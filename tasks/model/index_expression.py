"""Expressions that an index is made of: taken apart, checked, and written anew. Pure.

PostgreSQL's grammar is not needed for that: an expression of an index has no query and no state. What
is not in the small vocabulary below is refused, and what passes is put together again from its
tokens, each quoted, so no text can end the expression that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<text>'(?:[^'\\\x00]|'')*')"
    r"|(?P<mark>::|->>|->|#>>|\|\||<=|>=|<>|!=|[-+*/%<>=(),]))"
)
_WORDS = frozenset(["and", "or", "not", "is", "null", "in", "like", "true", "false", "between"])
_SYNTAX = frozenset(["coalesce", "nullif", "greatest", "least"])
"""What looks like a function and is none: quoted, PostgreSQL would not find it."""
_NUMBERS = ("bigint", "integer", "numeric", "smallint")
_TIMES = ("date", "interval", "time", "timestamp")
_TYPES = frozenset([*_NUMBERS, *_TIMES, "boolean", "bytea", "jsonb", "text", "uuid"])
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class IndexExpression:
    """An expression over columns of one row.

    Attributes:
        sql: SQL in which every name is quoted; without parentheses around it.
        columns: The columns that it reads.
        is_column: Is it nothing but a column?
    """

    sql: str
    columns: tuple[str, ...]
    is_column: bool


def read_expression(text: str, known: Collection[str]) -> IndexExpression:
    """Take an expression apart.

    Args:
        text: A column, or an expression such as ``lower(email)`` or ``data ->> 'kind'``.
        known: The columns of the table.

    Raises:
        ValueError: It is none, or reads what is no column.
    """
    tokens = list(_tokens(text))
    _check_parentheses(text, [token for _, token in tokens])
    written: list[str] = []
    columns: list[str] = []
    for position, (kind, token) in enumerate(tokens):
        if kind != "name":
            written.append(token)
            continue
        called = position + 1 < len(tokens) and tokens[position + 1][1] == "("
        after_cast = position > 0 and tokens[position - 1][1] == "::"
        written.append(_name(text, token, known, called=called, after_cast=after_cast))
        if token in known and not after_cast and not called:
            columns.append(token)
    if not columns:
        raise ValueError(f"{text!r} reads no column; declared are {', '.join(known)}")
    is_column = len(tokens) == 1
    return IndexExpression(" ".join(written), tuple(dict.fromkeys(columns)), is_column)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise ValueError(
                f"{text!r}: found {stripped[position:].strip()[:1]!r}; an index takes columns, "
                "numbers, texts in single quotes, functions, casts and operators"
            )
        kind = str(match.lastgroup)
        yield kind, match[kind]
        position = match.end()


def _check_parentheses(text: str, marks: list[str]) -> None:
    depth = 0
    for mark in marks:
        depth += (mark == "(") - (mark == ")")
        if depth < 0 or (mark == "," and not depth):
            break
    else:
        if not depth:
            return
    raise ValueError(f"{text!r} is not one expression with matching parentheses")


def _name(text: str, name: str, known: Collection[str], *, called: bool, after_cast: bool) -> str:
    if after_cast:
        if name.lower() not in _TYPES:
            raise ValueError(
                f"{text!r}: {name!r} is no type to cast to; known are {', '.join(sorted(_TYPES))}"
            )
        return name.lower()
    if called and name.lower() not in _WORDS:
        if name.lower() in _SYNTAX:
            return name.lower()
        if not _PLAIN.fullmatch(name):
            raise ValueError(f"{text!r}: write the function {name!r} in small letters")
        return f'"{name}"'
    if name in known:
        return f'"{name}"'
    if name.lower() in _WORDS:
        return name.upper()
    raise ValueError(f"{text!r}: no column {name!r}; declared are {', '.join(known)}")
