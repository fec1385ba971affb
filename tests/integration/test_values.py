"""Two thousand generated rows of every type, through each kind of source into PostgreSQL and back.

Each value must be there as it was generated; none may be refused.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2.extras
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.ingestion.connector import Connector, PlanLimits
from tasks.ingestion.connectors.database import DatabaseConnector
from tasks.loading.session import session
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tests.integration.ingestion.database_support import dispose_readers, reader
from tests.pipeline import Pipeline

CASES = 2000
WORDS = ("", " ", "NULL", "null", "\\N", "NaN", "None", "0123", "1e5", "a ", " a", "é", "e\u0301", "😀",
         "\\.", '"', ",", "\n", "\r\n", "\u2028", "\u0085", "x" * 70_000)  # fmt: skip
TEXT = st.sampled_from(WORDS) | st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20
)
DECIMALS = st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal(f"{n}e-10"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
MOMENTS = st.datetimes() | st.sampled_from([datetime.min, datetime.max])


def _integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.sampled_from([low, high, 0, 1]) | st.integers(low, high)


Column = tuple[dict[str, Any], st.SearchStrategy[Any], pa.DataType, str]
# Each: what is declared, its values, its type in Parquet, its type in a database.
COLUMNS: dict[str, Column] = {
    "boolean": ({"type": "boolean"}, st.booleans(), pa.bool_(), "boolean"),
    "int8": ({"type": "int8"}, _integers(8, signed=True), pa.int8(), "smallint"),
    "int16": ({"type": "int16"}, _integers(16, signed=True), pa.int16(), "smallint"),
    "int32": ({"type": "int32"}, _integers(32, signed=True), pa.int32(), "integer"),
    "int64": ({"type": "int64"}, _integers(64, signed=True), pa.int64(), "bigint"),
    "uint8": ({"type": "uint8"}, _integers(8, signed=False), pa.uint8(), "smallint"),
    "uint16": ({"type": "uint16"}, _integers(16, signed=False), pa.uint16(), "integer"),
    "uint32": ({"type": "uint32"}, _integers(32, signed=False), pa.uint32(), "bigint"),
    "uint64": ({"type": "uint64"}, _integers(64, signed=False), pa.uint64(), "numeric(20,0)"),
    "float": (
        {"type": "float", "non_finite": "keep"},
        st.floats(allow_nan=True, allow_infinity=True),
        pa.float64(),
        "double precision",
    ),
    "decimal": ({"type": "decimal(38,10)"}, DECIMALS, pa.decimal128(38, 10), "numeric(38,10)"),
    "string": ({"type": "string"}, TEXT, pa.string(), "text"),
    "enum": (
        {"type": "enum", "values": ["", "a", "A", "NULL"]},
        st.sampled_from(["", "a", "A", "NULL"]),
        pa.dictionary(pa.int8(), pa.string()),
        "text",
    ),
    "bytes": ({"type": "bytes"}, TEXT.map(str.encode), pa.binary(), "bytea"),
    "date": ({"type": "date"}, st.dates(), pa.date32(), "date"),
    "time": ({"type": "time"}, st.times(), pa.time64("us"), "time"),
    "timestamp": ({"type": "timestamp"}, MOMENTS, pa.timestamp("us"), "timestamp"),
    "instant": (
        {"type": "timestamp", "timezone": "UTC"},
        MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
        pa.timestamp("us", tz="UTC"),
        "timestamptz",
    ),
    "duration": (
        {"type": "duration"},
        st.timedeltas(timedelta(days=-9000), timedelta(days=9000)),
        pa.duration("us"),
        "interval",
    ),
    "uuid": ({"type": "uuid"}, st.uuids(), pa.string(), "uuid"),
    "json": (
        {"type": "json"},
        st.dictionaries(TEXT, JSON, max_size=3) | st.lists(JSON, max_size=3),
        pa.string(),
        "jsonb",
    ),
    "integers": (
        {"type": "list(int64)"},
        st.lists(st.none() | _integers(64, signed=True), max_size=4),
        pa.list_(pa.int64()),
        "bigint[]",
    ),
    "strings": (
        {"type": "list(string)"},
        st.lists(st.none() | TEXT, max_size=4),
        pa.list_(pa.string()),
        "text[]",
    ),
}  # fmt: skip
Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found: list[Row] = []

    @settings(
        max_examples=CASES, phases=[Phase.generate], database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        st.fixed_dictionaries({name: st.none() | made for name, (_, made, *_) in COLUMNS.items()})
    )
    def collect(row: Row) -> None:
        found.append({"n": len(found), **{name: row[name] for name in COLUMNS}})

    collect()
    assert len(found) >= CASES
    return found


def _text(value: Any) -> str:
    """Write a value as a careful program would."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, timedelta):
        sign = "-" if value < timedelta(0) else ""
        seconds = Decimal(abs(value) // timedelta(microseconds=1)).scaleb(-6)
        return f"PT{sign}{seconds:f}S"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return repr(value) if isinstance(value, float) else str(value)


def write_csv(rows: list[Row], folder: Path) -> dict[str, Any]:
    def cell(value: Any) -> str:
        return "NULL" if value is None else '"' + _text(value).replace('"', '""') + '"'

    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(rows[0])
        for row in rows:
            file.write(",".join(map(cell, row.values())) + "\n")
    return {"kind": "csv", "null_values": ["NULL"]}


def write_jsonl(rows: list[Row], folder: Path) -> dict[str, Any]:
    def plain(value: Any) -> str:
        is_word = isinstance(value, float) and not math.isfinite(value)
        if value is None or (isinstance(value, list | dict | bool | int | float) and not is_word):
            return json.dumps(value)
        if isinstance(value, Decimal):
            return _text(value)
        return json.dumps(_text(value))

    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            fields = ", ".join(f"{json.dumps(name)}: {plain(v)}" for name, v in row.items())
            file.write("{" + fields + "}\n")
    return {"kind": "jsonl"}


def write_parquet(rows: list[Row], folder: Path) -> dict[str, Any]:
    arrays: dict[str, pa.Array] = {"n": pa.array([row["n"] for row in rows])}
    for name, (_, _, kind, _) in COLUMNS.items():
        values = [row[name] for row in rows]
        if name in ("uuid", "json"):
            values = [None if value is None else _text(value) for value in values]
        arrays[name] = pa.array(values, kind)
    pq.write_table(pa.table(arrays), folder / "rows.parquet")
    return {"kind": "parquet"}


class ValuesPipeline(Pipeline):
    def connector(self, spec: DatasetSpec) -> Connector:
        if isinstance(spec.source, DatabaseSource):
            return DatabaseConnector(spec.name, spec.source, reader(self.engine.url), PlanLimits())
        return super().connector(spec)


def write_database(rows: list[Row], engine: Engine) -> dict[str, Any]:
    def adapted(name: str, value: Any) -> Any:
        if name == "json" and value is not None:
            return _text(value)
        if name == "integers" and value is not None:  # as numbers, the smallest would overflow
            return [None if item is None else str(item) for item in value]
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return str(value) if isinstance(value, UUID) or is_number else value

    columns = ", ".join(f'"{name}" {kind}' for name, (_, _, _, kind) in COLUMNS.items())
    template = ", ".join(f"%s::{kind}" for _, _, _, kind in COLUMNS.values())
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
        connection.exec_driver_sql(f"CREATE TABLE public.given (n bigint PRIMARY KEY, {columns})")
        raw: Any = connection.connection.dbapi_connection
        with raw.cursor() as cursor:
            psycopg2.extras.execute_values(
                cursor,
                "INSERT INTO public.given VALUES %s",
                [[row["n"], *(adapted(name, row[name]) for name in COLUMNS)] for row in rows],
                f"(%s, {template})",
            )
    return {"kind": "database", "block": "b", "table": "public.given"}


def same(given_value: Any, found: Any) -> bool:
    if isinstance(given_value, float) and isinstance(found, float):
        if math.isnan(given_value):
            return math.isnan(found)
        return given_value == found and math.copysign(1, given_value) == math.copysign(1, found)
    if isinstance(found, memoryview):
        found = bytes(found)
    return (type(given_value) is type(found) and given_value == found) or (
        isinstance(given_value, int) and isinstance(found, Decimal) and given_value == found
    )


FILES: dict[str, Callable[[list[Row], Path], dict[str, Any]]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("kind", [*FILES, "database"])
def test_every_value_arrives_as_it_was(
    kind: str, rows: list[Row], engine: Engine, lake: Lake, scratch: Path, tmp_path: Path
) -> None:
    source: dict[str, Any]
    folder = tmp_path / "in"
    folder.mkdir()
    if kind == "database":
        source = write_database(rows, engine)
    else:
        source = {"kind": "files", "path": "rows.*", "format": FILES[kind](rows, folder)}
    spec = DatasetSpec.model_validate(
        {
            "name": "values", "description": "Values of every type", "source": source, "key": ["n"],
            "columns": {
                "n": {"type": "int64"},
                **{name: declared for name, (declared, *_) in COLUMNS.items()},
            },
            "load": {"table": "analytics.values_of_every_type", "mode": "merge"},
        }
    )  # fmt: skip
    receipts = ValuesPipeline(engine, lake, scratch, folder).run(spec)
    assert not [reason for receipt in receipts for reason in receipt.reasons]
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute("SET LOCAL TIME ZONE 'UTC'")
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        cursor.execute(f"SELECT {names} FROM analytics.values_of_every_type ORDER BY n")
        found = cursor.fetchall()
    dispose_readers()
    assert len(found) == len(rows)
    different = [
        (name, row[name], value)
        for row, values in zip(rows, found, strict=True)
        for name, value in zip(COLUMNS, values, strict=True)
        if not same(row[name], value)
    ]
    assert different == []
