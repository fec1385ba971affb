"""Queries are shown without the values in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.loading.query_text import without_literals

SHOWN = [
    (
        "UPDATE t SET a = 'x''y', b = 12.5e-3 WHERE c1 = $1",
        "UPDATE t SET a = ?, b = ? WHERE c1 = $1",
    ),
    ('SELECT "it\'s 5" FROM t2 -- secret\n WHERE a>7', 'SELECT "it\'s 5" FROM t2 WHERE a>?'),
    ("SELECT E'a\\'secret'", "SELECT E'a …"),
    ("SELECT 'a\\'secret', 1", "SELECT 'a …"),
    ("DO $body$ secret $x$ $body$; SELECT $$more$$", "DO ?; SELECT ?"),
    ("SELECT U&'secret', N'secret', x'1F', 0x1F, 1_000", "SELECT ?, ?, ?, ?, ?"),
    ("INSERT INTO t VALUES ('cut off in the mid", "INSERT INTO t VALUES (?"),
    ("SELECT /* secret */ 1 /* secret", "SELECT ?"),
    ("SELECT $tag$ secret", "SELECT ?"),
    ("SELECT 'a' 'b' FROM t LIMIT 10", "SELECT ? ? FROM t LIMIT ?"),
    ("x" * 400, "x" * 300 + "…"),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_literals_and_comments_go_names_stay(text: str, shown: str) -> None:
    found = without_literals(text)
    if " …" not in shown:
        assert found == shown
    assert "secret" not in found and "mid" not in found


@given(st.text(alphabet="ab'\"\\$-*/ \n1", max_size=12), st.integers(0, 20))
def test_no_value_is_shown_however_it_is_written(value: str, cut: int) -> None:
    """A value that was quoted as a driver does it, wherever the text is cut off."""
    canary = f"{value}CANARY"
    for quoted in (
        "'" + canary.replace("'", "''") + "'",
        "E'" + canary.replace("\\", "\\\\").replace("'", "''") + "'",
    ):
        text = f"UPDATE t SET a = {quoted} WHERE b = {quoted}"
        assert "CANARY" not in without_literals(text)
        assert "CANARY" not in without_literals(text[: len(text) - cut])
