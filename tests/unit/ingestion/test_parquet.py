"""Parquet keeps its types and every digit; what is damaged is refused whole, and by name."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.parquet_format import read_parquet
from tasks.model.errors import ContractBroken, PipelineError, SourceRejected


def file(folder: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, folder / "a.parquet", **options)
    return folder / "a.parquet"


def read(path: Path, limits: PlanLimits | None = None) -> tuple[list[pa.RecordBatch], list[Reject]]:
    batches, rejects = [], []
    for raw in read_parquet(path, "u", limits or PlanLimits()):
        assert raw.batch is not None
        batches.append(raw.batch)
        rejects += raw.rejects
    return batches, rejects


def values(folder: Path, column: pa.Array, **options: Any) -> list[Any]:
    batches, rejects = read(file(folder, pa.table({"v": column}), **options))
    assert not rejects
    return [value for batch in batches for value in batch.column("v").to_pylist()]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([Decimal("1.10")], pa.decimal128(38, 2)), [Decimal("1.10")]),
        (pa.array([Decimal(10**40 + 1)], pa.decimal256(60, 2)), [f"{10**40 + 1}.00"]),
        (pa.array([None, None]), [None, None]),
        (pa.array(["é"], pa.large_string()), ["é"]),
        (pa.array([b"ab"], pa.binary(2)), [b"ab"]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([date(1, 1, 1), date(9999, 12, 31)]), [date(1, 1, 1), date(9999, 12, 31)]),
        (
            pa.array([{"a": Decimal("1.10"), "b": [1, None], "c": b"\x00"}]),
            ['{"a": 1.10, "b": [1, null], "c": "AA=="}'],
        ),
        (pa.array([[("k", 2**60)]], pa.map_(pa.string(), pa.int64())), [f'{{"k": {2**60}}}']),
    ],
)
def test_value_is_kept(tmp_path: Path, column: pa.Array, expected: list[Any]) -> None:
    assert values(tmp_path, column) == expected


def test_nanoseconds_stay_nanoseconds(tmp_path: Path) -> None:
    (batch,), _ = read(file(tmp_path, pa.table({"v": pa.array([1], pa.timestamp("ns", "UTC"))})))
    assert batch.schema.field("v").type == pa.timestamp("ns", "UTC")


def test_timestamps_of_96_bits_are_exact_or_refused(tmp_path: Path) -> None:
    far = [datetime(9999, 12, 31), datetime(1, 1, 1), datetime(2013, 1, 1, 0, 0, 0, 1), None]
    kept = values(tmp_path, pa.array(far, pa.timestamp("us")), use_deprecated_int96_timestamps=True)
    assert kept == far
    fine = pa.table({"v": pa.array([1000, 1001, -1, -1000], pa.timestamp("ns"))})
    (batch,), rejects = read(file(tmp_path, fine, use_deprecated_int96_timestamps=True))
    assert batch.column("_source_row").to_pylist() == [1, 4]
    assert [(r.source_row, r.rule, r.message) for r in rejects] == [
        (row, "value", "v has digits below the microsecond, which would be lost") for row in (2, 3)
    ]


def test_30_moment_beyond_the_years_is_refused_alone(tmp_path: Path) -> None:
    column = pa.array([0, 2**63 - 1, -(2**62), 1], pa.timestamp("us"))
    (batch,), rejects = read(file(tmp_path, pa.table({"v": column})))
    assert batch.column("_source_row").to_pylist() == [1, 4]
    assert [r.message for r in rejects] == ["v is not of the years 1 to 9999"] * 2
    assert json.loads(rejects[0].raw) == {"v": str(2**63 - 1)}


def test_10_nan_in_a_nested_value_is_refused_alone(tmp_path: Path) -> None:
    (batch,), (reject,) = read(file(tmp_path, pa.table({"v": [[1.0], [float("nan")]]})))
    assert batch.column("v").to_pylist() == ["[1.0]"]
    assert "NaN" in reject.message


def test_b05_value_that_is_too_long_is_refused_alone(tmp_path: Path) -> None:
    path = file(tmp_path, pa.table({"v": ["x" * 50, "y"]}))
    (batch,), (reject,) = read(path, PlanLimits(max_value_bytes=20))
    assert (batch.column("v").to_pylist(), reject.rule) == (["y"], "value_too_long")


def test_b16_no_row_groups_are_no_rows(tmp_path: Path) -> None:
    assert read(file(tmp_path, pa.table({"v": pa.array([], pa.int64())}))) == ([], [])
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema([("v", pa.int64())])):
        pass
    assert read(tmp_path / "a.parquet") == ([], [])


def test_wide_rows_come_in_small_batches(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        pa.table({"v": [f"{n}".rjust(1000) for n in range(1000)]}),
        compression="none",
        use_dictionary=False,
    )
    batches, _ = read(path, PlanLimits(batch_bytes=10_000))
    assert max(batch.num_rows for batch in batches) < 50
    assert sum(batch.num_rows for batch in batches) == 1000


def damaged(content: bytes, how: str) -> bytes:
    return {
        "truncated": content[: len(content) // 2],
        "garbage after": content + b"garbage",
        "encrypted": b"PARE" + content[4:-4] + b"PARE",
        "no parquet": b"id,text\n1,a\n",
        "empty": b"",
        "lying footer": content[:-8] + (2**31).to_bytes(4, "little") + b"PAR1",
        "damaged page": content[:20] + b"\xff" * 40 + content[60:],
    }[how]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "ends too early"),
        ("garbage after", "something follows its end"),
        ("encrypted", "is encrypted Parquet"),
        ("no parquet", "is not a Parquet file"),
        ("empty", "is not a Parquet file"),
        ("lying footer", "cannot be read as Parquet"),
        ("damaged page", "cannot be read as Parquet"),
    ],
)
def test_b16_49_damaged_file_is_refused_whole(tmp_path: Path, how: str, words: str) -> None:
    path = file(
        tmp_path, pa.table({"v": [f"text {n}" for n in range(1000)]}), write_page_checksum=True
    )
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(SourceRejected, match=words):
        read(path)


@pytest.mark.parametrize("names", [["a", "a"], ["_source_row"]])
def test_columns_that_cannot_be_told_apart_are_refused(tmp_path: Path, names: list[str]) -> None:
    table = pa.Table.from_arrays([pa.array([1])] * len(names), names)
    with pytest.raises(ContractBroken):
        read(file(tmp_path, table))


def test_errors_are_of_the_product(tmp_path: Path) -> None:
    """Whatever byte is flipped, no error of a library comes through."""
    good = file(tmp_path, pa.table({"v": [1, 2, 3], "w": ["a", "b", None]})).read_bytes()
    for position in range(4, len(good), 7):
        (tmp_path / "a.parquet").write_bytes(
            good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :]
        )
        try:
            read(tmp_path / "a.parquet")
        except PipelineError as refusal:
            assert str(refusal).startswith("u: ")
