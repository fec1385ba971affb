"""Children of a dataset file: what they may say, and what they are as datasets."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.model.child_dataset import child_datasets, child_tables
from tasks.model.dataset import DatasetSpec

LINES: dict[str, Any] = {"table": "analytics.lines", "columns": {"part": {"type": "string"}}}


def spec_of(lines: dict[str, Any] = LINES, **more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "orders",
            "description": "Orders",
            "source": {"kind": "files", "path": "*", "format": {"kind": "jsonl"}},
            "key": ["id"],
            "columns": {"id": {"type": "int64", "pii": "token"}, "gone": {"type": "boolean"}},
            "children": {"lines": lines},
            "load": {"table": "analytics.orders", "mode": "merge"},
            **more,
        }
    )


SCD2: dict[str, Any] = {
    "columns": {"id": {"type": "int64"}, "v": {"type": "int64"}},
    "cursor": "v",
    "load": {"table": "a.b", "mode": "scd2"},
}
MISTAKES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"key": [], "load": {"table": "a.b", "mode": "append"}}, "declare the dataset's 'key'"),
    ({"table": "analytics.orders"}, {}, "is filled by the dataset too"),
    ({"table": "lines"}, {}, "write schema.table"),
    ({"path": "$[0]"}, {}, "begins with no name of the source"),
    ({"path": "$.a[*]"}, {}, "leads to several values"),
    ({"link": {"order": "gone"}}, {}, "link: leads to gone, the key is id"),
    ({"columns": {"id": {"type": "string"}}}, {}, r"rename it by link: \{parent_id: id\}"),
    ({"columns": {"_x": {"type": "string"}}}, {}, "no name for a column"),
    ({"columns": {"xmin": {"type": "string"}}}, {}, "has a hidden xmin"),
    ({"key": ["other"]}, {}, "no column 'other'; declared are part"),
    (
        {},
        {"load": {"table": "a.b", "mode": "replace_partition", "by": "gone"}},
        "add 'gone' to the dataset's 'key'",
    ),
    (
        {},
        {"load": {"table": "a.b", "mode": "merge",
                  "partition_by": {"column": "id", "every": 9, "retention": "9 rows"}}},
        "retention",
    ),
    ({"columns": {"is_current": {"type": "string"}}}, SCD2, "let its 'source' be is_current"),
    ({"link": {"valid_to": "id"}}, SCD2, "fills a column 'valid_to'"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "more", "words"), MISTAKES)
def test_mistakes_are_named(lines: dict[str, Any], more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec_of(LINES | lines, **more)


def test_two_children_do_not_share_a_table() -> None:
    with pytest.raises(ValidationError, match="filled by child 'lines' too"):
        spec_of(children={"lines": LINES, "others": LINES})


def test_a_child_is_a_dataset_with_the_parents_key() -> None:
    child = child_datasets(spec_of())["lines"]
    assert (child.name, child.key) == ("orders.lines", ("id", "_position"))
    assert list(child.columns) == ["id", "_position", "part"]
    assert child.columns["id"].pii == "token"
    assert child.children == {}


def test_an_item_with_a_key_of_its_own_has_no_place_in_its_table() -> None:
    spec = spec_of({**LINES, "key": ["part"], "link": {"order_id": "id"}})
    assert child_datasets(spec)["lines"].cursor == "_position"
    table = child_tables(spec)["lines"]
    assert (list(table.columns), table.cursor) == (["order_id", "part"], None)
    assert table.key == ("order_id", "part")


def test_items_of_versions_carry_the_cursor_of_theirs() -> None:
    """Where a row has one version at a time, it is for replays only; of ``scd2`` it is in the key."""
    spec = spec_of(
        columns={"id": {"type": "int64"}, "v": {"type": "timestamp", "timezone": "UTC"}}, cursor="v"
    )
    child = child_datasets(spec)["lines"]
    assert (child.columns["_version"].source, child.columns["_version"].nullable) == (
        "_parent.v",
        True,
    )
    assert "_version" not in child_tables(spec)["lines"].columns
    versions = spec_of(**SCD2)
    assert child_datasets(versions)["lines"].key == ("id", "valid_from", "_position")
    table = child_tables(versions)["lines"]
    assert (table.key, table.table_key) == (
        ("id", "_position"),
        ("id", "_position", "valid_from"),
    )


def test_deletions_compare_keys_of_the_parents_only() -> None:
    assert spec_of().keys_only().children == {}


def test_the_list_is_a_known_column_of_the_source() -> None:
    assert spec_of({**LINES, "path": "body.lines"}).source_columns == ("id", "gone", "body")
