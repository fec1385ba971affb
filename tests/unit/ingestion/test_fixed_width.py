"""Lines of fixed width: fields by their characters, lines of another length refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.fixed_format import read_fixed_width
from tasks.model.formats import FixedWidthFormat

COLUMNS = [{"name": "id", "width": 3}, {"name": "name", "width": 5}]


def read(
    content: bytes, limits: PlanLimits | None = None, columns: Any = COLUMNS, **declared: Any
) -> tuple[list[dict[str, Any]], list[Reject]]:
    spec = FixedWidthFormat.model_validate({"kind": "fixed", "columns": columns, **declared})
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for raw in read_fixed_width(io.BytesIO(content), "u", spec, limits or PlanLimits()):
        assert raw.batch is not None
        rows += raw.batch.to_pylist()
        rejects += raw.rejects
    return rows, rejects


CHARACTERS = st.characters(codec="utf-8", exclude_characters="\r\n\x00", exclude_categories=("Cs",))
FIELD = st.text(CHARACTERS, min_size=3, max_size=3)


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_every_field_survives(rows: list[tuple[str, str]], end: str) -> None:
    """Widths are of characters, not of bytes."""
    content = "".join(a + b + end for a, b in rows).encode()
    columns = [{"name": "a", "width": 3}, {"name": "b", "width": 3}]
    found, rejects = read(content, PlanLimits(batch_bytes=64), columns, trim="none")
    assert not rejects
    assert [(row["a"], row["b"]) for row in found] == rows


def test_short_and_long_lines_are_refused_with_their_text() -> None:
    found, rejects = read(b"001anna \n002bob\n\n003claire\n004dora ")
    assert [(row["id"], row["name"], row["_source_row"]) for row in found] == [
        ("001", "anna", 1),
        ("004", "dora", 4),
    ]
    assert [(r.source_row, r.rule, r.message, r.raw) for r in rejects] == [
        (2, "line_length", "line 2: expected 8 characters, found 6", "002bob"),
        (3, "line_length", "line 4: expected 8 characters, found 9", "003claire"),
    ]


def test_fields_may_have_gaps_and_lines_a_rest() -> None:
    columns = [{"name": "a", "width": 2, "start": 3}, {"name": "b", "width": 1}]
    found, _ = read(b"xx12yzz\n", columns=columns, length=7)
    assert (found[0]["a"], found[0]["b"]) == ("12", "y")


def test_declared_encoding_counts_characters() -> None:
    found, _ = read("001Zoë  \n".encode("cp1252"), encoding="cp1252")
    assert found[0]["name"] == "Zoë"


def test_line_that_is_no_text_is_refused_alone() -> None:
    found, (reject,) = read(b"001ann\xff \n002bob  \n")
    assert [row["id"] for row in found] == ["002"]
    assert (reject.rule, reject.raw) == ("encoding", "001ann\\xff ")


def test_null_and_empty_are_kept_apart() -> None:
    found, _ = read(b"001     \n002NA   \n", null_values=["NA"])
    assert [row["name"] for row in found] == ["", None]


def test_skipped_lines_count_as_lines() -> None:
    _, (reject,) = read(b"title\nanother\n001x\n", skip_lines=2)
    assert (reject.source_row, reject.message[:7]) == (1, "line 3:")


def test_line_without_an_end_stays_in_memory_limits() -> None:
    limits = PlanLimits(batch_bytes=1 << 10, max_value_bytes=1 << 12)
    found, (reject,) = read(b"001anna \n" + b"x" * 200_000 + b"\n003carl \n", limits)
    assert [row["id"] for row in found] == ["001", "003"]
    assert (reject.rule, len(reject.raw)) == ("line_length", len(reject.raw))


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"length": 7}, "end after the line"),
        ({"columns": [*COLUMNS, {"name": "id", "width": 1}]}, "same name"),
        ({"encoding": "klingon"}, "not an encoding"),
    ],
)
def test_declaration_that_cannot_be_is_refused(declared: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FixedWidthFormat.model_validate({"kind": "fixed", "columns": COLUMNS, **declared})
