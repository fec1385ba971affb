"""``source.deletes`` is refused where keys cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.model.dataset import DatasetSpec


def declared(**changes: Any) -> dict[str, Any]:
    return {
        "name": "people",
        "description": "People",
        "source": {"kind": "database", "block": "b", "table": "t", "deletes": {"detect": "keys"}},
        "key": ["id"],
        "columns": {"id": {"type": "int64"}, "age": {"type": "int32"}},
        "load": {"table": "analytics.people", "mode": "merge"},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load": {"table": "a.b", "mode": "append"}}, "needs a 'key' and load mode 'merge'"),
        ({"columns": {"id": {"type": "int64", "default": "0"}}}, "'id' has a default"),
        (
            {"source": {"kind": "database", "block": "b", "table": "t",
                        "deletes": {"detect": "keys", "max_share": 0}}},
            "greater than 0",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DatasetSpec.model_validate(declared(**changes))


def test_keys_are_made_as_those_of_the_rows() -> None:
    spec = DatasetSpec.model_validate(
        declared(cursor="age", rules=[{"name": "adult", "sql": "age > 17"}])
    )
    keys = spec.keys_only()
    assert keys.columns == {"id": spec.columns["id"]}
    assert (keys.rules, keys.cursor, keys.contract.unknown) == ((), None, "ignore")
