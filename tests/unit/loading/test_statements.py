"""The SQL that is composed, and the decisions that need no server."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2 import sql

from tasks.loading.encoding import check_columns, encodable, staged_schema, staging_types
from tasks.loading.gates import counted_failures, null_rate_columns, refuse
from tasks.loading.modes.publication import statements_of
from tasks.loading.queries import ledger_schema, query
from tasks.loading.schema import TargetColumn, create_table, target_columns
from tasks.model.column_types import SIMPLE_TYPES
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, GateFailed
from tests.integration.loading.support import make_spec

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)


def render(part: Any) -> str:
    """Return the text of composed SQL, quoted as PostgreSQL quotes."""
    if isinstance(part, sql.Composed):
        return "".join(render(inner) for inner in part.seq)
    if isinstance(part, sql.Identifier):
        return ".".join('"' + name.replace('"', '""') + '"' for name in part.strings)
    if isinstance(part, sql.SQL):
        return part.string
    assert isinstance(part, sql.Literal)
    return repr(part.wrapped)


def columns_of(spec: DatasetSpec) -> list[TargetColumn]:
    return target_columns(spec, {}, ())


def published(spec: DatasetSpec) -> str:
    """Return the statements that publish a load of the dataset."""
    return ";\n".join(
        render(statement.sql) for statement in statements_of(spec, columns_of(spec), 7)
    )


def test_append_has_no_conflict() -> None:
    """Append inserts every row, in no particular order."""
    spec = make_spec(mode="append", key=(), cursor=None)
    text = published(spec)
    assert "ON CONFLICT" not in text and "ORDER BY" not in text
    assert 'INSERT INTO "analytics"."things" AS t ("id", "name", "seen", "_load_id")' in text


def test_append_sorts_for_an_index_that_begins_with_the_key() -> None:
    """Without such an index the rows of a key are added as they come."""
    orders = {
        columns: "ORDER BY" in published(make_spec(mode="append", cursor=None, options=options))
        for columns in (("id", "name"), ("name",))
        for options in [{"indexes": [{"columns": list(columns)}]}]
    }
    assert orders == {("id", "name"): True, ("name",): False}


def test_merge_sorts_compares_and_casts() -> None:
    """Merge works in key order, compares all but key and load, and takes the newer."""
    spec = make_spec()
    text = published(spec)
    assert 'ORDER BY "id" ON CONFLICT ("id") DO UPDATE SET' in text
    assert '"id"::bigint, "name"::text, "seen"::bigint, 7 FROM "pg_temp"."etl_staging"' in text
    assert (
        '("t"."name", "t"."seen") IS DISTINCT FROM ("excluded"."name", "excluded"."seen")' in text
    )
    compared = text.split("IS DISTINCT FROM")[1].split("RETURNING")[0]
    assert "_load_id" not in compared


@settings(deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=6, unique=True), data=st.data())
def test_any_name_is_quoted(names: list[str], data: st.DataObject) -> None:
    """Whatever the columns are called, each name appears quoted only."""
    key = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    kinds = st.sampled_from([kind for kind in SIMPLE_TYPES if kind != "enum"])
    columns = {name: {"type": data.draw(kinds)} for name in names}
    spec = make_spec(columns, key=key, cursor=None)
    text = published(spec)
    ddl = render(create_table(spec, columns_of(spec)))
    for name in names:
        assert f'"{name}"' in text
        assert f'"{name}" ' in ddl


# Declared type, and PostgreSQL's name for it as format_type() writes it.
TYPES = [
    ({"type": "int16"}, "smallint"),
    ({"type": "decimal(6,1)"}, "numeric(6,1)"),
    ({"type": "timestamp"}, "timestamp without time zone"),
    ({"type": "timestamp", "timezone": "Europe/Berlin"}, "timestamp with time zone"),
    ({"type": "json"}, "jsonb"),
    ({"type": "float"}, "double precision"),
]


@pytest.mark.parametrize(("declared", "expected"), TYPES)
def test_declared_type_has_one_postgres_type(declared: dict[str, str], expected: str) -> None:
    """Types are named as the catalog names them, so that tables can be compared."""
    spec = make_spec({"id": {"type": "int64"}, "value": declared}, cursor=None)
    assert columns_of(spec)[1].type == expected


def test_key_columns_are_required() -> None:
    """A column of the key is NOT NULL whatever it says of itself; an added one never is."""
    columns = target_columns(make_spec(), {}, ("extra",))
    assert [column.required for column in columns] == [True, False, False, False]
    assert columns[-1].type == "text"


ARROW_TYPES = [
    pa.bool_(),
    pa.int8(),
    pa.int64(),
    pa.uint64(),
    pa.float32(),
    pa.decimal128(38, 4),
    pa.string(),
    pa.large_string(),
    pa.large_binary(),
    pa.date64(),
    pa.time32("ms"),
    pa.timestamp("ns"),
    pa.timestamp("ms", tz="Asia/Tokyo"),
    pa.null(),
    pa.dictionary(pa.int8(), pa.string()),
]


@settings(deadline=None)
@given(kinds=st.lists(st.sampled_from(ARROW_TYPES), min_size=1, max_size=6))
def test_staged_schema_is_a_fixed_point(kinds: list[pa.DataType]) -> None:
    """What can be staged is staged in types that are not cast again, and each has a name."""
    schema = staged_schema(pa.schema([(f"c{n}", kind) for n, kind in enumerate(kinds)]))
    assert staged_schema(schema) == schema
    assert len(staging_types(schema)) == len(kinds)
    empty = pa.record_batch([pa.array([None], kind) for kind in kinds], names=schema.names)
    assert encodable(empty, schema).schema == schema


def test_provenance_is_left_out() -> None:
    """Columns with a leading underscore are not staged."""
    assert staged_schema(pa.schema([("_row", pa.int64()), ("a", pa.int64())])).names == ["a"]


@pytest.mark.parametrize("kind", [pa.struct([("a", pa.int32())]), pa.map_(pa.string(), pa.int8())])
def test_nested_column_is_refused(kind: pa.DataType) -> None:
    """What the encoder cannot write is refused by name."""
    with pytest.raises(ContractBroken, match="nested"):
        staged_schema(pa.schema([("nested", kind)]))


def test_every_differing_column_is_named() -> None:
    """Columns that only one side has are named, with the side."""
    with pytest.raises(ContractBroken, match=r"b is not in the clean files; column c is in no"):
        check_columns(["a", "c"], ["a", "b"])


def test_every_failed_gate_is_named() -> None:
    """All gates are checked, not only up to the first that fails."""
    from datetime import UTC, datetime

    from tasks.model.manifest import Manifest

    gates = [{"rows_between": [5, 9]}, {"null_rate": {"name": 0}}, {"quarantine_rate": 0}]
    spec = make_spec(quality={"gates": gates})
    manifest = Manifest(
        stage="transformation",
        dataset="things",
        fingerprint="f",
        config_hash="c",
        files=({"key": "k", "rows": 2, "bytes": 1, "sha256": "s"},),
        quarantine=(),
        rows_read=2,
        rows_deduplicated=0,
        rows_quarantined=0,
        created_at=datetime.now(UTC),
        seconds=0,
    )
    assert null_rate_columns(spec) == ["name"]
    with pytest.raises(GateFailed) as raised:
        refuse(spec, list(counted_failures(spec, manifest, {"name": 1})))
    assert "rows_between" in raised.value.message and "null_rate" in raised.value.message
    assert "quarantine_rate" not in raised.value.message


def test_named_queries_are_described() -> None:
    """Every query has a name, a comment of its own, and no trailing semicolon."""
    from pathlib import Path

    text = Path("tasks/loading/sql/queries.sql").read_text()
    for block in text.split("-- name: ")[1:]:
        name, comment = block.splitlines()[:2]
        assert comment.startswith("-- ")
        assert not query(name).endswith(";")
    assert "every_row_is_accounted_for" in ledger_schema()


@settings(deadline=None)
@given(
    chunks=st.lists(st.binary(max_size=20), max_size=12),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
)
def test_stream_gives_every_byte_and_ends_once(chunks: list[bytes], sizes: list[int]) -> None:
    """Whatever the encoder gives and COPY asks for, empty bytes come at the end only."""
    from tasks.loading.staging import _EncodedStream

    stream = _EncodedStream(
        pa.schema([("a", pa.int64())]), iter([None] * len(chunks)), lambda: None
    )
    encoded = iter(chunks)

    class Encoder:
        write_header = staticmethod(lambda: b"head")
        write_batch = staticmethod(lambda _batch: next(encoded))
        finish = staticmethod(lambda: b"end")

    stream._encoder = Encoder()
    read = io.BytesIO()
    with stream:
        position = 0
        while piece := stream.read(sizes[position % len(sizes)]):
            read.write(piece)
            position += 1
        assert stream.read(10) == b""
    assert read.getvalue() == b"head" + b"".join(chunks) + b"end"
