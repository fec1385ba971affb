"""Child tables, from the file to the warehouse: one transaction, one account each, no orphan."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.catalog import load_dataset
from tasks.environments import project_root
from tasks.loading.reconcile import reconcile
from tasks.loading.repair import repair
from tasks.loading.resolutions import quarantine_reasons, rows_read
from tasks.loading.session import session
from tasks.loading.unload import unload
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.replay import ReplayRequest
from tasks.model.report import LoadReceipt
from tasks.quarantine import read_refused
from tests.pipeline import Pipeline

ITEMS: dict[str, Any] = {
    "table": "analytics.order_items",
    "columns": {
        "sku": {"type": "string", "nullable": False},
        "price": {"type": "decimal(38,4)", "checks": {"between": [0, 1e20]}},
        "colour": {"type": "string", "path": "options.colour"},
    },
}


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "project"
    base.mkdir()
    return Pipeline(engine, lake, scratch, base)


def spec_of(items: Mapping[str, Any] = ITEMS, mode: str = "merge", **more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "orders", "description": "Orders",
            "source": {"kind": "files", "path": "*.jsonl", "format": {"kind": "jsonl"}},
            "key": ["id"], "cursor": "v",
            "columns": {"id": {"type": "int64"}, "v": {"type": "int32"}},
            "children": {"items": items},
            "load": {"table": "analytics.orders", "mode": mode},
            **more,
        }
    )  # fmt: skip


def write(pipeline: Pipeline, name: str, *rows: Any) -> None:
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (pipeline.base / f"{name}.jsonl").write_text("\n".join(texts) + "\n")


def load(pipeline: Pipeline, spec: DatasetSpec, name: str, *rows: Any) -> LoadReceipt:
    write(pipeline, name, *rows)
    (receipt,) = pipeline.run(spec)
    sound(pipeline, spec)
    assert all(counts.balanced for counts in receipt.children.values())
    return receipt


def sound(pipeline: Pipeline, spec: DatasetSpec) -> None:
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    assert [check for check in checks if not check.holds] == []


def query(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def items(pipeline: Pipeline, columns: str = "id, _position, sku, price") -> list[tuple[Any, ...]]:
    return query(pipeline, f"SELECT {columns} FROM analytics.order_items ORDER BY 1, 2")


def item(sku: str, price: Any = 1, **more: Any) -> dict[str, Any]:
    return {"sku": sku, "price": price, **more}


def test_items_become_rows_with_the_key_of_their_parent(pipeline: Pipeline) -> None:
    """Digits stay; a missing list, NULL and an empty one are no items."""
    receipt = load(
        pipeline, spec_of(), "a",
        '{"id": 1, "v": 1, "items": [{"sku": "a", "price": 9007199254740993.1000}, '
        '{"sku": "b", "options": {"colour": "red"}}]}',
        {"id": 2, "v": 1, "items": []},
        {"id": 3, "v": 1, "items": None},
        {"id": 4, "v": 1},
    )  # fmt: skip
    assert items(pipeline, "id, _position, sku, price, colour") == [
        (1, 1, "a", Decimal("9007199254740993.1000"), None),
        (1, 2, "b", None, "red"),
    ]
    counts = receipt.children["items"]
    assert (counts.read, counts.inserted, receipt.counts.inserted) == (2, 2, 4)


@pytest.mark.parametrize("wrong", [5, "text", {"sku": "a"}, '[{"sku": '])
def test_something_else_than_a_list_refuses_the_parent(pipeline: Pipeline, wrong: Any) -> None:
    receipt = load(
        pipeline, spec_of(), "a",
        {"id": 1, "v": 1, "items": wrong}, {"id": 2, "v": 1, "items": [item("a")]},
    )  # fmt: skip
    assert [(r.rule, r.column, r.message) for r in receipt.reasons] == [
        ("list", "items", "has no list at items")
    ]
    assert [row[0] for row in items(pipeline)] == [2]


def test_a_newer_parent_replaces_its_set_and_writes_only_what_differs(pipeline: Pipeline) -> None:
    """Own key: what is gone is deleted, what is unchanged keeps its version, others are not touched."""
    spec = spec_of({**ITEMS, "key": ["sku"]})
    load(
        pipeline, spec, "a",
        {"id": 1, "v": 1, "items": [item("a"), item("b"), item("c")]},
        {"id": 2, "v": 1, "items": [item("a")]},
    )  # fmt: skip
    before = dict(items(pipeline, "id || sku, xmin::text"))
    receipt = load(
        pipeline, spec, "b", {"id": 1, "v": 2, "items": [item("c"), item("b", 5), item("d")]}
    )
    counts = receipt.children["items"]
    assert (counts.read, counts.inserted, counts.updated, counts.unchanged) == (3, 1, 1, 1)
    assert counts.deleted == 1
    after = dict(items(pipeline, "id || sku, xmin::text"))
    assert items(pipeline, "id, sku, price::int") == [
        (1, "b", 5), (1, "c", 1), (1, "d", 1), (2, "a", 1),
    ]  # fmt: skip
    assert {name for name in after if after[name] == before.get(name)} == {"1c", "2a"}


def test_an_older_parent_brings_no_children(pipeline: Pipeline) -> None:
    spec = spec_of()
    load(pipeline, spec, "a", {"id": 1, "v": 5, "items": [item("new")]})
    receipt = load(
        pipeline, spec, "b",
        {"id": 1, "v": 4, "items": [item("old"), item("older")]}, {"id": 2, "v": 1, "items": []},
    )  # fmt: skip
    assert [row[2] for row in items(pipeline)] == ["new"]
    counts = receipt.children["items"]
    assert (counts.read, counts.unchanged, counts.deleted) == (2, 2, 0)


def test_an_unchanged_parent_with_other_children_is_a_change(pipeline: Pipeline) -> None:
    spec = spec_of()
    load(pipeline, spec, "a", {"id": 1, "v": 1, "items": [item("a"), item("b")]})
    receipt = load(pipeline, spec, "b", {"id": 1, "v": 1, "items": [item("b")]})
    assert receipt.counts.unchanged == 1
    assert [(row[1], row[2]) for row in items(pipeline)] == [(1, "b")]
    (receipt,) = [load(pipeline, spec, "c", {"v": 1, "id": 1})]
    assert (items(pipeline), receipt.children["items"].deleted) == ([], 1)


def test_without_a_cursor_what_comes_later_counts(pipeline: Pipeline) -> None:
    spec = spec_of(cursor=None)
    load(pipeline, spec, "a", {"id": 1, "v": 5, "items": [item("a")]})
    load(pipeline, spec, "b", {"id": 1, "v": 4, "items": [item("b")]})
    assert [row[2] for row in items(pipeline)] == ["b"]


def test_of_one_key_in_one_list_the_last_item_counts(pipeline: Pipeline) -> None:
    spec = spec_of({**ITEMS, "key": ["sku"]})
    receipt = load(
        pipeline, spec, "a", {"id": 1, "v": 1, "items": [item("a"), item("b"), item("a", 7)]}
    )
    assert items(pipeline, "id, sku, price::int") == [(1, "a", 7), (1, "b", 1)]
    assert receipt.children["items"].deduplicated == 1


def test_only_children_of_the_version_that_is_kept_are_read(pipeline: Pipeline) -> None:
    """The items of a row that gave way to another version are in no account, and in no table."""
    receipt = load(
        pipeline, spec_of(), "a",
        {"id": 1, "v": 2, "items": [item("new")]},
        {"id": 1, "v": 1, "items": [item("old"), item("old")]},
        {"id": "x", "v": 1, "items": [item("of a refused row")]},
    )  # fmt: skip
    assert (receipt.counts.deduplicated, receipt.counts.quarantined) == (1, 1)
    assert receipt.children["items"].read == 1
    assert [row[2] for row in items(pipeline)] == ["new"]


def test_append_adds_children_of_every_version(pipeline: Pipeline) -> None:
    spec = spec_of(mode="append")
    load(pipeline, spec, "a", {"id": 1, "v": 1, "items": [item("a")]})
    load(pipeline, spec, "b", {"id": 1, "v": 2, "items": [item("a"), item("b")]})
    assert [(row[0], row[2]) for row in items(pipeline)] == [(1, "a"), (1, "a"), (1, "b")]


BAD = {"id": 1, "v": 1, "items": [item("a"), item("b", -1), item("c", "x"), {"price": 2}, 5]}


def test_a_bad_item_goes_to_quarantine_alone(pipeline: Pipeline) -> None:
    receipt = load(pipeline, spec_of(), "a", BAD)
    counts = receipt.children["items"]
    assert (counts.read, counts.inserted, counts.quarantined) == (5, 1, 4)
    assert receipt.counts.quarantined == 0
    reasons = query(
        pipeline,
        "SELECT child, rule, column_name, rows, source_row FROM etl.child_quarantine ORDER BY 2",
    )
    assert reasons == [
        ("items", "between", "price", 1, 1),
        ("items", "not_an_object", None, 1, 1),
        ("items", "required", "sku", 1, 1),
        ("items", "type", "price", 1, 1),
    ]


def test_or_takes_its_parent_with_it_and_a_replay_brings_both_back(pipeline: Pipeline) -> None:
    strict = spec_of({**ITEMS, "refuse": "parent"})
    receipt = load(pipeline, strict, "a", BAD, {"id": 2, "v": 1, "items": [item("good")]})
    assert (receipt.counts.inserted, receipt.counts.quarantined) == (1, 1)
    assert [(r.rule, r.column) for r in receipt.reasons] == [("item", "items")]
    assert receipt.children["items"].quarantined == 0
    assert [row[0] for row in items(pipeline)] == [2]
    lenient = spec_of({**ITEMS, "refuse": "child"})
    (replayed,) = pipeline.replay(lenient, ReplayRequest())
    sound(pipeline, lenient)
    assert (replayed.counts.inserted, replayed.children["items"].inserted) == (1, 1)
    assert [(row[0], row[2]) for row in items(pipeline)] == [(1, "a"), (2, "good")]


def test_the_refused_parent_says_which_item_is_bad(pipeline: Pipeline, lake: Lake) -> None:
    strict = spec_of({**ITEMS, "refuse": "parent"})
    write(pipeline, "a", BAD)
    (partition,) = pipeline.plan(strict)
    key, _ = pipeline.transform(strict, partition)
    (row,) = read_refused(lake, [key], None, 10)
    assert row["failures"].endswith("items: item 5: a record must be a JSON object")
    assert json.loads(json.loads(row["raw"])["items"]) == BAD["items"]


def test_a_bad_item_does_not_displace_an_older_good_row(pipeline: Pipeline) -> None:
    """A row that is refused for an item is refused before versions are compared."""
    strict = spec_of({**ITEMS, "refuse": "parent"})
    receipt = load(
        pipeline, strict, "a",
        {"id": 1, "v": 1, "items": [item("good")]}, {"id": 1, "v": 2, "items": [item("bad", -1)]},
    )  # fmt: skip
    assert (receipt.counts.quarantined, receipt.counts.deduplicated) == (1, 0)
    assert [row[2] for row in items(pipeline)] == ["good"]


def test_refused_items_keep_their_parents_key_and_place(pipeline: Pipeline, lake: Lake) -> None:
    write(pipeline, "a", BAD)
    spec = spec_of()
    (partition,) = pipeline.plan(spec)
    _, manifest = pipeline.transform(spec, partition)
    (file,) = manifest.children["items"].quarantine
    rows = pq.read_table(lake.local_path(file.key, pipeline.scratch)).to_pylist()
    raw = {row["rule"]: row["raw"] for row in rows}
    assert json.loads(raw["between"]) == {
        "_parent.id": 1, "_parent.v": 1, "_position": 2, "sku": "b", "price": "-1"
    }  # fmt: skip
    assert json.loads(raw["not_an_object"]) == {
        "_parent.id": 1, "_parent.v": 1, "_position": 5, "_item": "5"
    }  # fmt: skip
    assert {(row["dataset"], row["source_row"]) for row in rows} == {("orders.items", 1)}


def test_unknown_keys_of_items_follow_the_contract(pipeline: Pipeline) -> None:
    evolving = spec_of({**ITEMS, "contract": {"unknown": "evolve"}})
    load(pipeline, evolving, "a", {"id": 1, "v": 1, "items": [item("a")]})
    load(pipeline, evolving, "b", {"id": 2, "v": 1, "items": [item("b", note="n")]})
    assert items(pipeline, "id, sku, note") == [(1, "a", None), (2, "b", "n")]
    assert query(pipeline, "SELECT dataset, column_name FROM etl.schema_changes") == [
        ("orders.items", "note")
    ]
    write(pipeline, "c", {"id": 3, "v": 1, "items": [item("c", other=1)]})
    with pytest.raises(ContractBroken, match=r"orders\.items: .*not declared: other"):
        pipeline.run(spec_of())
    refusing = spec_of({**ITEMS, "contract": {"unknown": "quarantine"}})
    (receipt,) = pipeline.run(refusing)
    assert receipt.children["items"].quarantined == 1


def test_lists_of_plain_values_and_whole_items(pipeline: Pipeline) -> None:
    spec = spec_of(
        {
            "table": "analytics.order_items",
            "path": "meta.tags",
            "link": {"order_id": "id"},
            "columns": {
                "tag": {"type": "string", "path": "$", "nullable": False},
                "whole": {"type": "json", "path": "$"},
            },
        }
    )
    receipt = load(
        pipeline, spec, "a", '{"id": 1, "v": 1, "meta": {"tags": ["a", 1.50, {"x": 1}, null, ""]}}'
    )
    found = items(pipeline, "order_id, _position, tag, whole::text")
    assert found == [(1, 1, "a", '"a"'), (1, 2, "1.50", "1.50"), (1, 5, "", '""')]
    assert receipt.children["items"].quarantined == 2  # an object is no single value, null is none


def test_a_partition_is_seen_with_its_children_or_not_at_all(pipeline: Pipeline) -> None:
    """An item that the table cannot take rolls its parents back."""
    spec = spec_of()
    load(pipeline, spec, "a", {"id": 1, "v": 1, "items": [item("a")]})
    query(pipeline, "ALTER TABLE analytics.order_items ADD CHECK (sku <> 'b')")
    write(pipeline, "b", {"id": 2, "v": 1, "items": [item("b")]})
    with pytest.raises(ContractBroken):
        pipeline.run(spec)
    assert query(pipeline, "SELECT id FROM analytics.orders") == [(1,)]
    assert query(pipeline, "SELECT count(*) FROM etl.child_loads") == [(1,)]


def test_an_item_that_is_not_accounted_for_cannot_be_committed(pipeline: Pipeline) -> None:
    load(pipeline, spec_of(), "a", {"id": 1, "v": 1, "items": [item("a")]})
    with pytest.raises(ContractBroken):
        query(pipeline, "UPDATE etl.child_loads SET rows_read = 2")


BREAKS = {
    "DELETE FROM analytics.order_items WHERE sku = 'a'": {"I6", "I11"},
    "INSERT INTO analytics.order_items VALUES (1, 9, 'z', 1, NULL, 99)": {"I6", "I7", "I11"},
    "UPDATE analytics.order_items SET id = 7 WHERE sku = 'a'": {"I7", "I11"},
    "DELETE FROM etl.child_quarantine": {"I5"},
    "ALTER TABLE etl.child_loads DROP CONSTRAINT every_item_is_accounted_for; "
    "UPDATE etl.child_loads SET rows_read = 9": {"I1", "I2"},
    "ALTER TABLE analytics.order_items DROP CONSTRAINT order_items_pkey; "
    "UPDATE analytics.order_items SET _position = 1": {"I8", "I11"},
    "DROP TABLE analytics.order_items": {"I6"},
}


@pytest.mark.parametrize(("statement", "broken"), BREAKS.items())
def test_reconcile_names_what_is_broken(
    pipeline: Pipeline, statement: str, broken: set[str]
) -> None:
    spec = spec_of()
    load(pipeline, spec, "a", {"id": 1, "v": 1, "items": [item("a"), item("b"), item("c", -1)]})
    query(pipeline, statement)
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    found = {(check.dataset, check.invariant) for check in checks if not check.holds}
    assert found == {("orders.items", invariant) for invariant in broken}


def test_reconcile_reads_the_files_of_children(pipeline: Pipeline, tmp_path: Path) -> None:
    spec = spec_of()
    load(pipeline, spec, "a", {"id": 1, "v": 1, "items": [item("a")]})
    (path,) = (tmp_path / "lake" / "clean" / "orders.items").glob("*.parquet")
    path.unlink()
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    assert [check.invariant for check in checks if not check.holds] == ["I2"]


def test_random_histories_of_strict_parents_agree_with_a_model(pipeline: Pipeline) -> None:
    """Versions of documents in any order, those with a bad item refused: tables are the model's."""
    rng = random.Random(2)
    spec = spec_of({**ITEMS, "key": ["sku"], "refuse": "parent"})
    table: dict[int, tuple[int, dict[str, int]]] = {}
    for number in range(4):
        rows = [random_row(rng) for _ in range(rng.randint(4, 10))]
        best: dict[int, tuple[int, dict[str, int]]] = {}
        for row in rows:
            children = row.get("items") or []
            if any(entry["price"] < 0 for entry in children):
                continue
            good = {entry["sku"]: entry["price"] for entry in children}
            if row["v"] >= best.get(row["id"], (-1, {}))[0]:
                best[row["id"]] = (row["v"], good)
        for key, version in best.items():
            if version[0] >= table.get(key, (-1, {}))[0]:
                table[key] = version
        load(pipeline, spec, f"part{number}", *rows)
        assert items(pipeline, "id, sku, price::int") == sorted(
            (key, sku, price)
            for key, (_, children) in table.items()
            for sku, price in children.items()
        )
        assert query(pipeline, "SELECT id, v FROM analytics.orders ORDER BY 1") == sorted(
            (key, version) for key, (version, _) in table.items()
        )


def random_row(rng: random.Random) -> dict[str, Any]:
    row: dict[str, Any] = {"id": rng.randint(1, 6), "v": rng.randint(1, 9)}
    kind = rng.random()
    if kind < 0.1:
        row["items"] = None
    elif kind < 0.9:
        prices = [-1, 1, 2, 3, 4, 5, 6, 7]
        row["items"] = [
            item(
                rng.choice("abcd"), rng.choice(prices), options={"colour": rng.choice(["r", None])}
            )
            for _ in range(rng.randint(0, 4))
        ]
    return row


def test_the_example_loads(pipeline: Pipeline) -> None:
    """``datasets/deliveries.yaml``: a version that is replaced, a bad line, two bad deliveries."""
    spec = load_dataset(project_root() / "datasets" / "deliveries.yaml")
    pipeline.base = project_root()
    (receipt,) = pipeline.run(spec)
    sound(pipeline, spec)
    assert (receipt.counts.inserted, receipt.counts.deduplicated) == (4, 1)
    assert {(r.rule, r.column): r.rows for r in receipt.reasons} == {
        ("path", "airport"): 1, ("list", "lines"): 1,
    }  # fmt: skip
    lines = receipt.children["lines"]
    assert (lines.read, lines.inserted, lines.quarantined) == (6, 5, 1)
    found = query(
        pipeline,
        "SELECT delivery_id, part, quantity, serials FROM analytics.delivery_lines "
        "WHERE delivery_id <= 7002 ORDER BY 1, 2",
    )
    assert found == [
        (7001, "HYD-201", 2, ["A1", "A2"]),
        (7001, "TYR-88", 4, None),
        (7002, "FLT-17", 1, None),
        (7002, "LGT-3", 10, None),
    ]


def test_refused_items_are_listed_with_their_share(pipeline: Pipeline) -> None:
    load(pipeline, spec_of(), "a", BAD)
    listed = {
        (reason.dataset, reason.rule): reason.open for reason in quarantine_reasons(pipeline.engine)
    }
    assert listed["orders.items", "between"] == 1
    assert len(listed) == 4
    assert rows_read(pipeline.engine) == {"orders": 1, "orders.items": 5}


def test_loads_with_children_are_repaired_and_taken_back(pipeline: Pipeline) -> None:
    """Parents and items are as if the load had never been, and so are both their accounts."""
    spec = spec_of()
    other = spec_of(
        {**ITEMS, "table": "analytics.other_items"},
        name="others",
        load={"table": "analytics.others", "mode": "merge"},
    )
    loads = [
        [
            {"id": 1, "v": 1, "items": [item("a"), item("b")]},
            {"id": 2, "v": 1, "items": [item("x")]},
        ],
        [{"id": 1, "v": 2, "items": [item("c")]}, {"id": 3, "v": 1, "items": [item("y")]}],
        [{"id": 1, "v": 3, "items": [item("c"), item("d")]}],
    ]
    for number, rows in enumerate(loads):
        load(pipeline, spec, f"p{number}", *rows)
    for number, rows in ((0, loads[0]), (2, loads[2])):
        for path in pipeline.base.iterdir():
            path.unlink()
        load(pipeline, other, f"p{number}", *rows)
    twins = {4: 1, 5: 3}
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE analytics.order_items SET sku = 'z' WHERE sku = 'd'")
        cursor.execute("DROP TABLE analytics.orders")
    done = repair(pipeline.engine, pipeline.lake, spec, 90, actor="me")
    assert (done.made, done.deleted, done.inserted) == (("analytics.orders",), 1, 4)
    sound(pipeline, spec)
    unload(pipeline.engine, pipeline.lake, spec, 2, actor="me", reason="wrong")
    sound(pipeline, spec)
    columns = "id, _position, sku, _load_id"
    expected = query(pipeline, f"SELECT {columns} FROM analytics.other_items ORDER BY 1, 2")
    assert items(pipeline, columns) == [(*row[:3], twins[row[3]]) for row in expected]
    counted = (
        "SELECT load_id, rows_inserted, rows_updated, rows_unchanged, rows_deleted "
        "FROM etl.child_loads ORDER BY 1"
    )
    counts = {row[0]: row[1:] for row in query(pipeline, counted)}
    assert {load_id: counts[load_id] for load_id in (1, 3)} == {
        twins[load_id]: counts[load_id] for load_id in twins
    }
    assert query(pipeline, "SELECT id, v, _load_id FROM analytics.orders ORDER BY 1") == [
        (1, 3, 3), (2, 1, 1),
    ]  # fmt: skip
