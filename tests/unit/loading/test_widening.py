"""Types of tables are widened, never narrowed, and never to what would lose a digit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.loading.widening import wider

# In the table, wanted by the dataset file, the result.
CASES = [
    ("smallint", "bigint", "bigint"),
    ("bigint", "smallint", "bigint"),
    ("numeric(10,2)", "numeric(8,4)", "numeric(12,4)"),
    ("bigint", "numeric(20,0)", "numeric(20,0)"),
    ("integer", "numeric(4,2)", "numeric(12,2)"),
    ("numeric(38,0)", "numeric(38,38)", None),
    ("numeric", "numeric(10,2)", "numeric"),
    ("real", "double precision", "double precision"),
    ("integer", "double precision", "double precision"),
    ("bigint", "double precision", None),  # 2^53 + 1
    ("character varying(10)", "text", "text"),
    ("character varying(10)", "character varying(20)", "character varying(20)"),
    ("text", "integer", None),
    ("integer", "text", "text"),  # the dataset file says string
    ("jsonb", "text", None),
    ("timestamp without time zone", "timestamp with time zone", None),
    ("date", "timestamp without time zone", None),
]


@pytest.mark.parametrize(("there", "wanted", "result"), CASES)
def test_the_narrowest_type_that_holds_both(there: str, wanted: str, result: str | None) -> None:
    assert wider(there, wanted) == result


digits = st.tuples(st.integers(0, 38), st.integers(0, 38)).filter(lambda d: 1 <= sum(d) <= 38)


@given(digits, digits)
def test_a_wider_decimal_holds_the_largest_and_the_finest_of_both(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    names = [f"numeric({whole + scale},{scale})" for whole, scale in (first, second)]
    result = wider(*names)
    assert result == wider(names[1], names[0])
    if result is None:
        assert max(first[0], second[0]) + max(first[1], second[1]) > 38
        return
    precision, scale = map(int, result.removeprefix("numeric(").removesuffix(")").split(","))
    for whole, fraction in (first, second):
        assert 10**whole - 1 < 10 ** (precision - scale)
        assert fraction <= scale
    assert all(wider(name, result) == result for name in names)
