"""What ``dpp new`` proposes loads its sample whole: every row, none in quarantine."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import fastavro
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.catalog import load_dataset
from tasks.connections import Connections
from tasks.inference.proof import proven
from tasks.inference.sample import draft_of
from tests.pipeline import Pipeline


def _latin() -> bytes:
    lines = ["Nr;Kunde;PLZ;Betrag;Datum;Bezahlt"]
    lines += [
        f"{n};Müller {n};{n:05d};{n}.234,50;{n + 10}.01.2024;{'' if n % 2 else '2024-02-01'}"
        for n in range(1, 9)
    ]
    return "\r\n".join(lines).encode("latin-1")


def _packed(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def _lines() -> bytes:
    records = [
        {"id": 2**53 + n, "price": 0.5, "tags": ["a"], "to": {"city": "Ä"}, "x": None}
        for n in range(5)
    ]
    return "\n".join(map(json.dumps, records)).encode()


def _document() -> bytes:
    return json.dumps({"errors": [], "data": {"items": [{"id": 1, "a": "x"}, {"id": 2}]}}).encode()


def _parquet() -> bytes:
    made = io.BytesIO()
    pq.write_table(
        pa.table({"Id": [1, 2], "amount": [Decimal("1.10"), None], "on": [date(2024, 1, 1)] * 2}),
        made,
    )
    return made.getvalue()


def _avro() -> bytes:
    made = io.BytesIO()
    fields = [{"name": "id", "type": "long"}, {"name": "s", "type": ["null", "string"]}]
    fastavro.writer(
        made,
        {"type": "record", "name": "r", "fields": fields},
        [{"id": 1, "s": "a"}, {"id": 2, "s": None}],
    )
    return made.getvalue()


def _workbook() -> bytes:
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in (["Report"], [], ["Order No", "Paid on"], [1, date(2024, 5, 1)], [2, None]):
        book.active.append(row)
    made = io.BytesIO()
    book.save(made)
    return made.getvalue()


def _fixed() -> bytes:
    return b"NUMBER  AMOUNT  NAME \n" + b"".join(
        b"%06d  %6d  Bob  \n" % (n, n * 10) for n in range(5)
    )


@pytest.mark.parametrize(
    ("file", "make", "rows", "first"),
    [
        ("a.csv", _latin, 8, {"nr": 1, "kunde": "Müller 1", "plz": "00001", "betrag": Decimal("1234.50"),
                              "datum": date(2024, 1, 11), "bezahlt": None}),
        ("a.zip", lambda: _packed("a.csv", _latin()), 8, {"betrag": Decimal("1234.50")}),
        ("a.jsonl", _lines, 5, {"id": 2**53, "price": Decimal("0.5"), "tags": ["a"], "to": {"city": "Ä"}}),
        ("a.json", _document, 2, {"id": 1, "a": "x"}),
        ("a.parquet", _parquet, 2, {"id": 1, "amount": Decimal("1.10"), "on": date(2024, 1, 1)}),
        ("a.avro", _avro, 2, {"id": 1, "s": "a"}),
        ("a.xlsx", _workbook, 2, {"order_no": 1}),
        ("a.txt", _fixed, 5, {"number": "000000", "amount": 0, "name": "Bob"}),
        ("b.csv", lambda: b"2024-01-01,5\n2024-01-02,6\n", 2, {"column_1": date(2024, 1, 1), "column_2": 5}),
        ("c.csv", lambda: b"id,at\n1,1.2.2024\n2,11.12.2024\n", 2, {"id": 1, "at": date(2024, 2, 1)}),
    ],
)  # fmt: skip
def test_inferred_dataset_loads_its_sample_whole(
    engine: Engine,
    lake: Lake,
    scratch: Path,
    tmp_path: Path,
    file: str,
    make: Callable[[], bytes],
    rows: int,
    first: dict[str, Any],
) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / file).write_bytes(make())
    proven(draft_of("things", file, None, 1000, cast(Connections, None), scratch, folder), scratch)
    spec = load_dataset(scratch / "things.yaml")
    pipeline = Pipeline(engine, lake, scratch, folder)
    (receipt,) = pipeline.run(spec)
    assert (receipt.counts.read, receipt.counts.loaded, receipt.counts.quarantined) == (
        rows,
        rows,
        0,
    )
    found = pipeline.rows(spec)[0]
    assert {name: found[name] for name in first} == first


def test_lists_of_objects_become_child_tables_that_load_whole(
    engine: Engine, lake: Lake, scratch: Path, tmp_path: Path
) -> None:
    """At the top and inside of an object; other lists stay what they are."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    records = [
        {
            "id": number,
            "lines": [{"id": f"L{n}", "qty": n, "lot-no": f"0{n}"} for n in range(number % 3)],
            "meta": {"notes.x": [{"text": "a", "at": "2024-01-01T00:00:00Z"}], "mixed": [1, {}]},
            "plain": [1, 2],
        }
        for number in range(1, 7)
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    text = proven(
        draft_of("things", "a.jsonl", None, 1000, cast(Connections, None), scratch, folder), scratch
    )
    spec = load_dataset(scratch / "things.yaml")
    assert {name: child.list_path(name).steps for name, child in spec.children.items()} == {
        "lines": ("lines",), "notes_x": ("meta", "notes.x"),
    }  # fmt: skip
    lines = spec.children["lines"]
    assert (lines.key, lines.link) == (("id",), {"things_id": "id"})
    assert {name: column.type for name, column in lines.columns.items()} == {
        "id": "string", "qty": "int64", "lot_no": "string",
    }  # fmt: skip
    assert list(spec.columns) == ["id", "meta", "plain"]
    assert "told by their place" in text
    (receipt,) = Pipeline(engine, lake, scratch, folder).run(spec)
    loaded = {name: (c.read, c.inserted) for name, c in receipt.children.items()}
    assert loaded == {"lines": (6, 6), "notes_x": (6, 6)}
    assert receipt.counts.quarantined == 0
