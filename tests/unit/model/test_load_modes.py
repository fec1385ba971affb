"""What a dataset file may say under ``load:``, by mode."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.integration.loading.support import make_spec

FLAGGED = {
    "id": {"type": "int64"},
    "op": {"type": "string"},
    "gone": {"type": "boolean"},
    "state": {"type": "int8"},
    "seen": {"type": "int64"},
}

# What is declared of deletions, and a part of the refusal.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"column": "nope", "values": ["D"]}, "no column 'nope' is declared"),
    ({"column": "id", "values": [1]}, "part of the key"),
    ({"column": "op", "values": []}, "at least 1 item"),
    ({"column": "op", "values": [True]}, "'op' is string, and never True"),
    ({"column": "gone", "values": ["true"]}, "'gone' is boolean, and never 'true'"),
    ({"column": "state", "values": [True]}, "'state' is int8, and never True"),
    ({"column": "op", "values": ["D"], "kind": "gentle"}, "'hard' or 'soft'"),
]


@pytest.mark.parametrize(("delete", "message"), REFUSED)
def test_flag_of_deletions_must_fit_its_column(delete: dict[str, Any], message: str) -> None:
    """A flag that no row can have would delete nothing, without a word."""
    with pytest.raises(ValidationError, match=message):
        make_spec(FLAGGED, options={"delete": delete})


def test_flag_of_deletions_is_of_merge_only() -> None:
    """Other modes do not know the option, and say so."""
    with pytest.raises(ValidationError, match="Extra inputs"):
        make_spec(FLAGGED, mode="append", options={"delete": {"column": "op", "values": ["D"]}})


@pytest.mark.parametrize("mode", ["merge", "insert_only"])
def test_modes_that_compare_keys_need_one(mode: str) -> None:
    """Without a key they could not tell what is there already."""
    with pytest.raises(ValidationError, match=f"load mode '{mode}' needs a 'key'"):
        make_spec(mode=mode, key=())


# A column to replace by, and a part of the refusal.
UNFIT: list[tuple[str, str]] = [
    ("nope", "no column 'nope' is declared"),
    ("share", "'share' is float; rows are replaced by a date"),
    ("month", "declare the column 'month' nullable: false"),
]


@pytest.mark.parametrize(("by", "message"), UNFIT)
def test_rows_are_replaced_by_exact_values(by: str, message: str) -> None:
    """A value that may be missing, or is never quite equal, cannot say what is replaced."""
    with pytest.raises(ValidationError, match=message):
        make_spec(
            {"day": {"type": "date"}, "share": {"type": "float"}},
            mode="replace_partition",
            options={"by": by},
            key=(),
            cursor=None,
            derive={"month": {"type": "int64", "sql": "month(day)"}},
        )
