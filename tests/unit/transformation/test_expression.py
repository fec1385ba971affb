"""Expressions of dataset files: over one row, and the same for the same row."""

from __future__ import annotations

import pytest

from tasks.model.errors import ConfigError
from tasks.transformation.expression import check_expression

KNOWN = ("a", "b", "user")


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("a - b", {"a", "b"}),
        ("CASE WHEN a IN (1, 2) THEN upper(b) ELSE coalesce(b, 'x') END -- why", {"a", "b"}),
        ("nullif(split_part(b, '-', 1), '') || date_part('year', a)", {"a", "b"}),
        ("list_filter([1, 2], lambda x: x > a)", {"x", "a"}),
        ("a::DATE + INTERVAL 1 DAY < DATE '2020-01-01'", {"a"}),
        ("user", {"user"}),  # a column of that name, not who is logged in
    ],
)
def test_expression_over_a_row_is_taken(sql: str, columns: set[str]) -> None:
    assert check_expression("here", sql, KNOWN).columns == columns


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("(SELECT 1)", "a query inside an expression"),
        ("a IN (SELECT x FROM read_csv('/etc/passwd'))", "a query inside an expression"),
        ("sum(a) OVER ()", "a window over other rows"),
        ("sum(a)", "'sum' is no function of a row's values alone"),
        ("random()", "'random' is no function"),
        ("now()", "'now' is no function"),
        ("age(a)", "'age' is no function"),
        ("getenv('HOME')", "'getenv' is no function"),
        ("current_setting('memory_limit')", "'current_setting' is no function"),
        ("nextval('s')", "'nextval' is no function"),
        ("a > current_date", "current_date is another one the next time"),
        ("a; DROP TABLE x", "is no expression"),
        ("a FROM b", "is no expression"),
        ("a) , (b", "is no expression"),
        ("", "is no expression"),
        ("a +", "is no expression"),
        ("a, b", "is no expression"),
        ("*", "has no place in it"),
        ("?", "a parameter"),
    ],
)
def test_anything_else_is_refused_with_its_place_and_reason(sql: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_expression("things: derive: gain", sql, KNOWN)
    assert str(refused.value).startswith("things: derive: gain: ")
    assert reason in str(refused.value)
