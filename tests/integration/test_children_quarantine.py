"""Refused items of child tables: shown, corrected, replayed once, discarded; personal values stay hidden."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sqlalchemy import Engine

from blocks.lake import Lake
from blocks.privacy import Privacy
from cli.quarantine_view import refused_row
from tasks.ingestion.connector import PlanLimits
from tasks.loading.reconcile import reconcile
from tasks.loading.resolutions import quarantine_reasons, rows_read
from tasks.loading.session import session
from tasks.model.child_dataset import quarantined
from tasks.model.columns import Checks
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, LoadConflict
from tasks.model.replay import ReplayRequest, Selection
from tasks.model.report import LoadReceipt
from tasks.protection import UNPROTECTED, Protection, pii_columns
from tasks.replay.discard import discard_rows, rows_to_discard
from tasks.replay.export import write_export
from tasks.replay.select import SelectedRow, selected_rows
from tests.child_models import Doc, spec_of, write
from tests.pipeline import Pipeline

ITEMS = Selection(child="items")
SOME: list[Doc] = [
    {"id": 1, "v": 1, "op": "U", "day": 1, "items": [
        {"sku": "a", "price": 1}, {"sku": "b", "price": -2}, 5, {"sku": "d", "price": "x"},
    ]},
    {"id": 2, "v": 1, "op": "U", "day": 1, "items": [{"sku": "a", "price": 1}]},
]  # fmt: skip


@pytest.fixture
def pipeline(engine: Engine, lake: Lake, scratch: Path, tmp_path: Path) -> Pipeline:
    base = tmp_path / "project"
    base.mkdir()
    return Pipeline(engine, lake, scratch, base, limits=PlanLimits(partition_bytes=1))


def run(pipeline: Pipeline, spec: DatasetSpec, *rows: Doc, name: str = "a") -> LoadReceipt:
    write(pipeline.base, {name: rows})
    (receipt,) = pipeline.run(spec)
    return receipt


def refused(pipeline: Pipeline, selection: Selection = ITEMS) -> list[SelectedRow]:
    return list(selected_rows(pipeline.engine, pipeline.lake, "orders", selection))


def export(pipeline: Pipeline, spec: DatasetSpec) -> list[dict[str, str]]:
    file = io.StringIO(newline="")
    child = quarantined(spec, "items")
    write_export(file, child, lambda: iter(refused(pipeline)), UNPROTECTED, reveal=False)
    return list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))


def corrected(
    pipeline: Pipeline, table: Sequence[dict[str, str]], key: str = "corrections/x.csv"
) -> ReplayRequest:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, table[0].keys())
    writer.writeheader()
    writer.writerows(table)
    pipeline.lake.delete(key)
    assert pipeline.lake.put_new(key, out.getvalue().encode())
    return ReplayRequest(selection=ITEMS, corrections=key)


def query(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with session(pipeline.engine) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def items(pipeline: Pipeline, columns: str = "id, sku, price") -> list[tuple[Any, ...]]:
    return query(pipeline, f"SELECT {columns} FROM analytics.order_items ORDER BY 1, 2, 3")


def sound(pipeline: Pipeline, spec: DatasetSpec) -> None:
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    assert [check for check in checks if not check.holds] == []


MODES = ["append", "insert_only", "merge", "soft", "replace", "replace_partition", "scd2"]


@pytest.mark.parametrize("mode", MODES)
def test_corrected_items_are_added_once_in_every_mode(pipeline: Pipeline, mode: str) -> None:
    """One with a wrong value, one that was no object; the third is left where it is."""
    spec = spec_of(mode)
    assert run(pipeline, spec, *SOME).children["items"].quarantined == 3
    by_sku = {row["sku"]: row for row in export(pipeline, spec)}
    wrong, whole = by_sku["b"], by_sku[r"\N"]
    assert (wrong["_parent.id"], wrong["_position"], whole["_item"]) == ("1", "2", "5")
    wrong["price"] = "2"
    whole |= {"sku": "c", "price": "3"}
    request = corrected(pipeline, [wrong, whole])
    (receipt,) = pipeline.replay(spec, request)
    counts = receipt.children["items"]
    assert (receipt.counts.read, counts.read, counts.inserted) == (0, 2, 2)
    there = [(1, "a", 1), (1, "b", 2), (1, "c", 3), (2, "a", 1)]
    assert items(pipeline) == there
    assert pipeline.replay(spec, request) == []
    (left,) = refused(pipeline)
    assert left.kept.rule == "type"
    fates = [row.resolution.resolution for row in refused(pipeline, Selection(
        child="items", resolved_too=True)) if row.resolution]  # fmt: skip
    assert fates == ["replayed", "replayed"]
    sound(pipeline, spec)
    if mode == "scd2":
        run(pipeline, spec, {**SOME[0], "v": 2, "items": [{"sku": "c", "price": 3}]}, name="b")
        versions = items(pipeline, "id, sku, valid_from, valid_to")
        assert versions == [(1, "a", 1, 2), (1, "b", 1, 2), (1, "c", 1, None), (2, "a", 1, None)]
        sound(pipeline, spec)


def test_under_a_corrected_dataset_file_items_come_back_or_are_refused_anew(
    pipeline: Pipeline,
) -> None:
    """What is refused again has a new name, counts its replays, and the old entry is closed."""
    spec = spec_of("merge")
    first = run(pipeline, spec, *SOME).load_id
    lenient = spec.model_copy(deep=True)
    lenient.children["items"].columns["price"].__dict__["checks"] = Checks()
    (receipt,) = pipeline.replay(lenient, ReplayRequest(selection=ITEMS))
    counts = receipt.children["items"]
    assert (counts.read, counts.inserted, counts.quarantined) == (3, 1, 2)
    assert items(pipeline) == [(1, "a", 1), (1, "b", -2), (2, "a", 1)]
    again = refused(pipeline)
    assert {row.load.load_id for row in again} == {receipt.load_id} != {first}
    assert {(row.kept.rule, row.load.times_replayed) for row in again} == {
        ("not_an_object", 1), ("type", 1),
    }  # fmt: skip
    fixed = next(row for row in export(pipeline, lenient) if row["dpp:rule"] == "type")
    (third,) = pipeline.replay(lenient, corrected(pipeline, [fixed | {"price": "9"}]))
    assert third.children["items"].inserted == 1
    sound(pipeline, lenient)
    assert rows_read(pipeline.engine) == {"orders": 2, "orders.items": 5}


SUPERSEDED: list[tuple[str, Doc]] = [
    ("merge", {**SOME[0], "v": 2, "items": [{"sku": "z", "price": 1}]}),
    ("merge", {**SOME[0], "op": "V", "items": [{"sku": "z", "price": 1}]}),
    ("hard", {**SOME[0], "v": 2, "op": "D", "items": []}),
    ("soft", {**SOME[0], "v": 2, "op": "D", "items": []}),
    ("replace_partition", {**SOME[0], "items": [{"sku": "z", "price": 1}]}),
]


@pytest.mark.parametrize(("mode", "newer"), SUPERSEDED)
def test_an_item_of_a_version_that_is_gone_is_not_added(
    pipeline: Pipeline, mode: str, newer: Doc
) -> None:
    """It is resolved, and counts as unchanged: the version that is there has its own items."""
    spec = spec_of(mode)
    run(pipeline, spec, *SOME)
    name = "a" if mode == "replace_partition" else "b"
    run(pipeline, spec, newer, name=name)
    before = items(pipeline)
    wrong = next(row for row in export(pipeline, spec) if row["sku"] == "b")
    (receipt,) = pipeline.replay(spec, corrected(pipeline, [wrong | {"price": "2"}]))
    counts = receipt.children["items"]
    assert (counts.read, counts.unchanged) == (1, 1)
    assert items(pipeline) == before
    sound(pipeline, spec)


def test_an_item_of_a_row_that_came_too_late_is_not_added(pipeline: Pipeline) -> None:
    """Nor does one replace an item of its key that is there."""
    spec = spec_of("merge")
    run(pipeline, spec, {**SOME[0], "v": 5, "items": [{"sku": "a", "price": 1}]})
    run(pipeline, spec, SOME[0], name="late")
    twice = [{"sku": "b", "price": -1}, {"sku": "b", "price": 7}]
    run(pipeline, spec, {**SOME[0], "id": 3, "items": twice}, name="twice")
    table = [row | {"price": "2"} for row in export(pipeline, spec) if row["sku"] == "b"]
    receipts = pipeline.replay(spec, corrected(pipeline, table))
    assert [receipt.children["items"].unchanged for receipt in receipts] == [1, 1]
    assert items(pipeline) == [(1, "a", 1), (3, "b", 7)]


def test_an_item_is_not_moved_to_another_parent(pipeline: Pipeline) -> None:
    spec = spec_of("merge")
    run(pipeline, spec, *SOME)
    (row, *_) = export(pipeline, spec)
    with pytest.raises(ConfigError, match=r"in line 2: _parent\.id was changed"):
        pipeline.replay(spec, corrected(pipeline, [row | {"_parent.id": "2"}]))
    with pytest.raises(ConfigError, match=r"column 'colour' is not one of orders\.items"):
        pipeline.replay(spec, corrected(pipeline, [row | {"colour": "red"}]))


def test_discarded_items_are_not_replayed(pipeline: Pipeline) -> None:
    """Rows and items of one load have numbers of their own: one's fate is not the other's."""
    spec = spec_of("merge")
    run(pipeline, spec, *SOME, {"id": "x", "v": 1, "op": "U", "day": 1, "items": []})
    (wrong,) = rows_to_discard(
        pipeline.engine, pipeline.lake, "orders", Selection(child="items", rule="between")
    )
    discard_rows(pipeline.engine, [wrong], "test", "me", "items")
    with pytest.raises(LoadConflict):
        discard_rows(pipeline.engine, [wrong], "test", "me", "items")
    listed = {
        (reason.dataset, reason.rule): (reason.open, reason.discarded)
        for reason in quarantine_reasons(pipeline.engine, "orders")
    }
    assert listed == {
        ("orders", "type"): (1, 0),
        ("orders.items", "between"): (0, 1),
        ("orders.items", "not_an_object"): (1, 0),
        ("orders.items", "type"): (1, 0),
    }
    assert len(refused(pipeline, Selection())) == 1
    (receipt,) = pipeline.replay(spec, ReplayRequest(selection=ITEMS))
    assert receipt.children["items"].read == 2
    sound(pipeline, spec)


def test_reconcile_notices_a_replay_that_was_not_written_down(pipeline: Pipeline) -> None:
    spec = spec_of("merge")
    run(pipeline, spec, *SOME)
    pipeline.replay(spec, ReplayRequest(selection=ITEMS))
    query(pipeline, "UPDATE etl.quarantine_resolutions SET row_number = 9 WHERE row_number = 1")
    query(pipeline, "DELETE FROM etl.quarantine_resolutions WHERE row_number = 2")
    checks = reconcile(pipeline.engine, pipeline.lake, spec, 90)
    found = [(check.dataset, check.statement) for check in checks if not check.holds]
    assert found == [
        ("orders.items", "what is resolved was refused"),
        ("orders.items", "every replayed row was read once by its replay"),
    ]


KEYS: list[tuple[dict[str, Any], Any]] = [
    ({"type": "string"}, 'é "quoted"'),
    ({"type": "decimal(38,10)"}, 12345678901234567890),
    ({"type": "timestamp", "timezone": "Europe/Berlin"}, "2024-10-27T02:30:00.123456+01:00"),
    ({"type": "timestamp"}, "2024-10-27T02:30:00.5"),
    ({"type": "date"}, "0001-01-01"),
    ({"type": "uuid"}, "123e4567-e89b-12d3-a456-426614174000"),
    ({"type": "boolean"}, True),
    ({"type": "time"}, "23:59:59.000001"),
]


@pytest.mark.parametrize(("key", "value"), KEYS)
def test_the_parents_key_comes_back_as_it_was(
    pipeline: Pipeline, key: dict[str, Any], value: Any
) -> None:
    """Of whatever type; also where the item could not be taken apart."""
    given = spec_of("merge").model_dump(mode="json", by_alias=True, exclude_unset=True)
    spec = DatasetSpec.model_validate(
        {**given, "columns": {**given["columns"], "id": key, "v": {"type": "timestamp"}}}
    )
    doc = {
        "id": value,
        "v": "2024-01-01T00:00:00.000001",
        "op": "U",
        "items": [{"sku": "s", "price": -1}, 5],
    }
    assert run(pipeline, spec, doc).children["items"].quarantined == 2
    fixed = [row | {"sku": f"s{n}", "price": "1"} for n, row in enumerate(export(pipeline, spec))]
    (receipt,) = pipeline.replay(spec, corrected(pipeline, fixed))
    assert receipt.children["items"].inserted == 2
    sound(pipeline, spec)


def shown(spec: DatasetSpec, row: SelectedRow, raw: str | None) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(refused_row(quarantined(spec, "items"), row.kept, raw))
    return console.export_text()


def test_show_opens_the_item_with_its_parents_key_and_marks_the_cell(pipeline: Pipeline) -> None:
    spec = spec_of("merge")
    run(pipeline, spec, *SOME)
    by_rule = {row.kept.rule: row for row in refused(pipeline)}
    text = shown(spec, by_rule["between"], by_rule["between"].kept.raw).splitlines()
    cells = [" ".join(line.split()) for line in text if line.strip()]
    assert cells[:4] == ["_parent.id 1", "_parent.v 1", "_position 2", "sku b"]
    assert cells[4].startswith("price -2 ◄ ")
    whole = shown(spec, by_rule["not_an_object"], by_rule["not_an_object"].kept.raw)
    assert any(" ".join(line.split()).startswith("_item 5 ◄") for line in whole.splitlines())


PRIVATE = {
    "name": "orders", "description": "Orders",
    "source": {"kind": "files", "path": "*.jsonl", "format": {"kind": "jsonl"}},
    "key": ["id"], "contract": "ignore",
    "columns": {
        "id": {"type": "string", "pii": "token"},
        "mail": {"type": "string", "path": "customer.mail", "pii": "mask", "checks": {"pattern": ".*@.*"}},
        "n": {"type": "int32", "path": "customer.n"},
    },
    "children": {
        "items": {
            "table": "analytics.order_items", "key": ["sku"], "contract": "ignore",
            "columns": {
                "sku": {"type": "string"},
                "owner": {"type": "string", "path": "who.name", "pii": "mask",
                          "checks": {"pattern": ".*-ok"}},
                "phone": {"type": "string", "pii": "token"},
                "price": {"type": "int32"},
            },
        }
    },
    "load": {"table": "analytics.orders", "mode": "merge"},
}  # fmt: skip


def canary(place: str, **more: Any) -> Doc:
    """Return a document with values that must be seen nowhere but in the tables."""
    item = {
        "sku": "s",
        "who": {"name": f"canary-{place}-name-ok"},
        "phone": f"canary-{place}-phone",
    }
    return {
        "id": f"canary-{place}-id",
        "customer": {"mail": f"canary-{place}@mail", "n": 1},
        "items": [item | more.pop("item", {}), *more.pop("items", [])],
        **more,
    }


@pytest.mark.parametrize("refuse", ["child", "parent"])
def test_personal_values_of_paths_and_items_are_hidden_where_rows_are_refused(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: str
) -> None:
    """Quarantine files, reasons, show, export and corrections; a replay brings the values back."""
    spec = DatasetSpec.model_validate(PRIVATE)
    spec.children["items"].__dict__["refuse"] = refuse
    pipeline.protection = Protection(pii_columns(spec), Privacy(["k" * 32]))
    run(
        pipeline, spec,
        canary("value", item={"price": "x"}),
        canary("rule", item={"who": {"name": "canary-broken-name"}}),
        canary("object", items=["canary-text"]),
        canary("path", customer={"mail": "canary-path-mail", "n": "x"}),
        canary("list", items={}, item={}) | {"items": "canary-list-text"},
        canary("good"),
    )  # fmt: skip
    selection = ITEMS if refuse == "child" else Selection()
    rows = refused(pipeline, selection)
    assert len(rows) == (3 if refuse == "child" else 5)
    files = [*(tmp_path / "lake" / "quarantine").rglob("*.parquet")]
    assert files
    texts = [json.dumps(pq.read_table(path).to_pylist(), default=str) for path in files]
    texts += [shown(spec, row, row.kept.raw) for row in rows]
    texts += [str(query(pipeline, f"SELECT * FROM etl.{table}")) for table in ("quarantine", "child_quarantine")]  # fmt: skip
    texts.append(capsys.readouterr().out)
    if refuse == "child":
        table = export(pipeline, spec)
        texts.append(str(table))
        fix: Callable[[dict[str, str]], dict[str, str]] = lambda row: row | {"price": "1"}  # noqa: E731
        (receipt,) = pipeline.replay(
            spec, corrected(pipeline, [fix(row) for row in table if row["dpp:rule"] == "type"])
        )
        assert receipt.children["items"].inserted == 1
        corrections = [*(tmp_path / "lake" / "quarantine").rglob("*.parquet")]
        texts += [json.dumps(pq.read_table(path).to_pylist(), default=str) for path in corrections]
        found = query(pipeline, "SELECT owner, phone FROM analytics.order_items WHERE price = 1")
        assert found == [("canary-value-name-ok", "canary-value-phone")]
    assert not [text for text in texts if "canary" in text]
