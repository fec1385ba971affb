"""Avro keeps its types and every digit; a file that is damaged or a bomb is refused whole."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingestion.avro_format import read_avro
from tasks.ingestion.connector import PlanLimits, Reject
from tasks.model.errors import ContractBroken, SourceRejected


def container(fields: list[dict[str, Any]], records: list[dict[str, Any]], **options: Any) -> bytes:
    out = io.BytesIO()
    fastavro.writer(out, {"type": "record", "name": "row", "fields": fields}, records, **options)
    return out.getvalue()


def field(kind: Any) -> list[dict[str, Any]]:
    return [{"name": "v", "type": kind}]


def read(content: bytes, **limits: Any) -> tuple[pa.Table, list[Reject]]:
    batches, rejects = [], []
    for raw in read_avro(io.BytesIO(content), "u", PlanLimits(**limits)):
        batches.append(raw.batch)
        rejects += raw.rejects
    return pa.Table.from_batches(batches), rejects


def column(kind: Any, *values: Any) -> tuple[pa.DataType, list[Any]]:
    table, rejects = read(container(field(kind), [{"v": value} for value in values]))
    assert not rejects
    return table.schema.field("v").type, table.column("v").to_pylist()


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.none() | st.text(max_size=5),
            st.binary(max_size=5),
            st.floats(allow_nan=False),
        ),
        min_size=1,
    )
)
def test_every_value_survives(rows: list[tuple[Any, ...]]) -> None:
    fields = [
        {"name": name, "type": kind}
        for name, kind in zip("abcd", ["long", ["null", "string"], "bytes", "double"], strict=True)
    ]
    records = [dict(zip("abcd", row, strict=True)) for row in rows]
    table, _ = read(container(fields, records))
    assert table.select(list("abcd")).to_pylist() == records
    assert table.column("_source_row").to_pylist() == list(range(1, len(rows) + 1))


@settings(max_examples=100)
@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=10, min_value=-(10**27), max_value=10**27
    )
)
def test_decimal_keeps_every_digit(number: Decimal) -> None:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10}
    assert column(kind, number) == (pa.decimal128(38, 10), [number])


def test_types_of_avro_are_types_of_columns() -> None:
    moment = datetime(2013, 1, 1, 5, 0, 0, 123456, tzinfo=UTC)
    logical = lambda kind, name, **more: {"type": kind, "logicalType": name, **more}  # noqa: E731
    micros = int(moment.timestamp()) * 10**6 + 123456
    assert column(logical("long", "timestamp-micros"), moment) == (
        pa.timestamp("us", "UTC"),
        [moment],
    )
    assert column(logical("int", "date"), date(1969, 7, 20)) == (pa.date32(), [date(1969, 7, 20)])
    assert column(logical("string", "uuid"), uuid.UUID(int=7)) == (
        pa.string(),
        [str(uuid.UUID(int=7))],
    )
    assert column({"type": "enum", "name": "e", "symbols": ["A", "B"]}, "B", "A") == (
        pa.string(),
        ["B", "A"],
    )
    assert column({"type": "fixed", "name": "f", "size": 2}, b"\x00\xff") == (
        pa.binary(),
        [b"\x00\xff"],
    )
    assert column(["null", "int"], None, 7) == (pa.int32(), [None, 7])
    assert column(["null", "string", "long"], "7", 7, None) == (pa.string(), ["7", "7", None])
    # fastavro writes this logical type as the long it is; read it must not lose a digit
    kind, _ = column(logical("long", "timestamp-nanos"), micros * 1000 + 789)
    assert kind == pa.timestamp("ns", "UTC")
    nanos, _ = read(
        container(field(logical("long", "timestamp-nanos")), [{"v": micros * 1000 + 789}])
    )
    assert nanos.column("v").cast(pa.int64()).to_pylist() == [micros * 1000 + 789]


def test_nested_values_are_json_with_every_digit() -> None:
    inner = {"type": "record", "name": "inner", "fields": [
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "tags", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "by", "type": {"type": "map", "values": "long"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}}]}  # fmt: skip
    value = {
        "amount": Decimal("1.10"),
        "tags": ["é", None],
        "by": {"k": 2**60},
        "day": date(2013, 1, 1),
    }
    kind, found = column(inner, value)
    assert kind == pa.string()
    assert found == [
        '{"amount": 1.10, "tags": ["é", null], "by": {"k": 1152921504606846976}, "day": "2013-01-01"}'
    ]


def test_value_that_its_type_cannot_hold_is_refused_alone() -> None:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1}
    plain = container(field("bytes"), [{"v": b"\x05"}, {"v": b"\x7f\xff\xff"}, {"v": b"\x06"}])
    declared = container(field(kind), [])
    # The header of one, the blocks of the other: a writer that breaks its own schema.
    sync_of, sync = plain[-16:], declared[-16:]
    blocks = plain[plain.index(sync_of) + 16 :].replace(sync_of, sync)
    table, (reject,) = read(declared + blocks)
    assert table.column("v").to_pylist() == [Decimal("0.5"), Decimal("0.6")]
    assert (reject.source_row, reject.rule, reject.message) == (
        2,
        "value",
        "v is no value of its Avro type",
    )


def test_text_that_is_no_utf8_is_refused_alone() -> None:
    content = container(field("string"), [{"v": "aa"}, {"v": "zz"}]).replace(b"zz", b"\xff\xfe")
    table, (reject,) = read(content)
    assert table.column("v").to_pylist() == ["aa"]
    assert reject.source_row == 2


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_every_codec_is_read(codec: str) -> None:
    table, _ = read(container(field("long"), [{"v": n} for n in range(50_000)], codec=codec))
    assert table.column("v").to_pylist() == list(range(50_000))


GOOD = container(field("long"), [{"v": n} for n in range(1000)], codec="deflate")


@pytest.mark.parametrize("cut", [5, 40, len(GOOD) - 1, len(GOOD) - 20, len(GOOD) - 200])
def test_truncated_file_is_refused_naming_the_byte(cut: int) -> None:
    with pytest.raises(SourceRejected, match=r"u: (ends too early|damaged Avro).* byte [0-9]+"):
        read(GOOD[:cut])


def test_garbage_after_the_last_block_is_refused() -> None:
    with pytest.raises(SourceRejected, match="byte"):
        read(GOOD + b"garbage of some length, surely")


def test_other_file_is_refused() -> None:
    with pytest.raises(SourceRejected, match="not"):
        read(b"id,text\n1,a\n")


def test_47_block_that_grows_too_much_is_refused() -> None:
    content = container(field("bytes"), [{"v": bytes(30 << 20)}], codec="deflate")
    with pytest.raises(SourceRejected, match="bomb"):
        read(content, ratio_from_bytes=1 << 20, decoded_ratio=100)


def test_records_without_bytes_are_no_endless_file() -> None:
    good = container(field("null"), [{"v": None}])
    sync = good[-16:]
    count = bytes([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10])
    with pytest.raises(SourceRejected, match="bomb"):
        read(good[: good.index(sync) + 16] + count + b"\x00" + sync)


def test_record_that_contains_itself_is_refused() -> None:
    node = [{"name": "next", "type": ["null", "row"]}]
    with pytest.raises(ContractBroken, match="contains itself"):
        read(container(node, [{"next": None}]))


def test_compressed_container_is_read_too() -> None:
    import gzip

    assert read(gzip.compress(GOOD))[0].num_rows == 1000
