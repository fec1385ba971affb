"""Large objects are split into parts, and every record is in exactly one of them."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.item_reader import read_item
from tasks.ingestion.splitting import gaps, missing_parts
from tasks.model.errors import ConfigError, PipelineError, SourceRejected
from tasks.model.formats import CsvFormat, Format
from tasks.model.partition import Part, SourceItem
from tasks.model.request import SourceState

LIMITS = PlanLimits(batch_bytes=64, max_value_bytes=1000)
FORMAT: TypeAdapter[Any] = TypeAdapter(Format)


def declared(kind: str = "csv", **keys: Any) -> Format:
    made: Format = FORMAT.validate_python({"kind": kind, **keys})
    return made


class Object:
    """An object in memory."""

    def __init__(self, content: bytes, form: Format, columns: int = 2) -> None:
        self.content = content
        self.form = form
        self.columns = columns
        self.item = SourceItem(uri="in/x", version=f"v-{len(content)}", bytes=len(content))
        self.read_bytes = 0

    def open(self, _item: SourceItem, start: int, end: int) -> BinaryIO:
        self.read_bytes += end - start
        return io.BytesIO(self.content[start:end])

    def parts(self, size: int, done: list[SourceItem] | None = None) -> list[SourceItem]:
        state = SourceState(
            parts=frozenset((item.uri, item.version, str(item.part)) for item in done or [])
        )
        limits = dataclasses.replace(LIMITS, partition_bytes=size)
        return list(missing_parts([self.item], state, self.form, limits, self.open))

    def rows(self, items: list[SourceItem]) -> list[tuple[Any, ...]]:
        """Return what is read of items, refused records included, in the order of the object."""
        found: list[tuple[Any, ...]] = []
        for item in items:
            for raw in read_item(
                self.form,
                item,
                LIMITS,
                self.columns,
                open_range=lambda start, end: self.open(item, start, end),  # noqa: B023
                local_path=lambda: Path("x"),
                parquet=lambda: io.BytesIO(self.content),
            ):
                if raw.batch is not None:
                    rows = raw.batch.to_pylist()
                    found += [
                        (row.pop("_source_row"), row.pop("_source_uri"), repr(row)) for row in rows
                    ]
                found += [
                    (reject.source_row, reject.source_uri, reject.rule, reject.raw[:1000])
                    for reject in raw.rejects
                ]
        return sorted(found)


def assert_exact(thing: Object, size: int) -> int:
    whole = thing.rows([thing.item])
    parts = thing.parts(size)
    assert thing.rows(parts) == whole
    if parts[0].part is not None:
        assert sum(part.bytes for part in parts) == thing.item.bytes
    return len(parts)


CSV = {
    "LF": b"id,text\n" + b"".join(b"%d,x%d\n" % (n, n) for n in range(25)),
    "CRLF": b"id,text\r\n" + b"".join(b"%d,x%d\r\n" % (n, n) for n in range(25)),
    "CR": b"id,text\r" + b"".join(b"%d,x%d\r" % (n, n) for n in range(25)),
    "no newline at the end": b"id,text\n" + b"\n".join(b"%d,x" % n for n in range(25)),
    "quoted newlines": b"id,text\n" + b"".join(b'%d,"a\nb ""c"",\r\n"\n' % n for n in range(12)),
    "all quoted": b'"id","text"\r\n' + b"".join(b'"%d","a\r\n%d"\r\n' % (n, n) for n in range(16)),
    "quotes inside": b"id,text\n" + b"".join(b'%d,5" pipe\n%d,"x"y\n' % (n, n) for n in range(12)),
    "empty lines": b"\n\nid,text\n" + b"".join(b"\n%d,x\n\r\n\n" % n for n in range(12)),
    "byte order mark": b"\xef\xbb\xbfid,text\n"
    + b"".join(b"\xef\xbb\xbf%d,x\n" % n for n in range(16)),
    "ragged": b"id,text\n" + b"".join(b"%d,x\n1,2,3\n4\n" % n for n in range(12)),
    "not UTF-8": b"id,text\n" + b"".join(b"%d,x\n\xff,y\n\x1f\x8b,z\n" % n for n in range(12)),
    "too long": b"id,text\n" + b"".join(b"%d,%s\n" % (n, b"x" * (n * 100)) for n in range(13)),
}


@pytest.mark.parametrize("name", CSV)
def test_parts_of_delimited_text_are_the_whole_at_every_size(name: str) -> None:
    """The same rows with the same numbers, and the same records refused."""
    thing = Object(CSV[name], declared())
    sizes = range(1, len(thing.content) + 2, 1 if len(thing.content) < 1000 else 97)
    assert max(assert_exact(thing, size) for size in sizes) > 3


@pytest.mark.parametrize("name", ["LF", "CRLF", "no newline at the end", "ragged"])
def test_parts_without_line_ends_in_values_are_found_by_small_reads(name: str) -> None:
    """Nobody has counted the records before a part, so its rows say which part they are of."""
    thing = Object(CSV[name], declared(newlines_in_values=False))
    whole = [row[2:] for row in thing.rows([thing.item])]
    for size in range(40, len(thing.content), 3):
        parts = thing.parts(size)
        rows = thing.rows(parts)
        assert sorted(row[2:] for row in rows) == sorted(whole)
        assert len({row[:2] for row in rows}) == len(rows)


def test_single_column_counts_empty_lines() -> None:
    content = b"id\n" + b"a\n\n\nb\r\n\r\n" * 9
    for size in range(1, len(content)):
        assert_exact(Object(content, declared(), 1), size)


def test_text_without_a_header_line_is_split_too() -> None:
    content = b"".join(b"\xef\xbb\xbf%d,x\n" % n for n in range(1, 50))
    for size in range(10, len(content), 7):
        assert_exact(Object(content, declared(header=["id", "text"])), size)


FIELDS = st.text(alphabet='a",\n\r é', max_size=8)


@given(
    st.lists(st.tuples(FIELDS, FIELDS), max_size=30),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 200),
    st.booleans(),
)
@example([("", "")], "\n", 1, True)
def test_quoted_text_of_any_kind_is_split_exactly(
    rows: list[tuple[str, str]], end: str, size: int, ended: bool
) -> None:
    def quoted(field: str) -> str:
        return '"' + field.replace('"', '""') + '"'

    lines = ["id,text", *(f"{quoted(a)},{quoted(b)}" for a, b in rows)]
    text = end.join(lines) + (end if ended else "")
    assert_exact(Object(text.encode(), declared()), size)


@given(st.text(alphabet='a",\n\r', max_size=80), st.integers(1, 90))
def test_text_of_any_kind_is_split_exactly_or_refused_as_a_whole_one_is(
    text: str, size: int
) -> None:
    thing = Object(b"id,text\n" + text.encode(), declared())
    try:
        thing.rows([thing.item])
    except PipelineError as error:
        if "none of its" in str(error):
            return  # only who reads all of it can tell; of parts each row is refused
        with pytest.raises(PipelineError):
            thing.rows(thing.parts(size))
    else:
        assert_exact(thing, size)


LINES = {
    "LF": b"".join(b'{"id": %d}\n' % n for n in range(50)),
    "CRLF": b"".join(b'{"id": %d}\r\n' % n for n in range(50)),
    "no newline at the end": b"\n".join(b'{"id": %d}' % n for n in range(50)),
    "byte order mark": b"\xef\xbb\xbf" + b"".join(b'{"id": %d}\n\n{"a"\n' % n for n in range(30)),
    "separators": "\n".join('{"id": "a\u2028b\u0085"}' for _ in range(30)).encode(),
}


@pytest.mark.parametrize("name", LINES)
def test_parts_of_json_lines_are_the_whole_at_every_size(name: str) -> None:
    thing = Object(LINES[name], declared("jsonl"))
    whole = sorted(row[2:] for row in thing.rows([thing.item]))
    for size in range(1, len(thing.content) + 2):
        rows = thing.rows(thing.parts(size))
        assert sorted(row[2:] for row in rows) == whole
        assert len({row[:2] for row in rows}) == len(rows)


def test_parquet_is_split_by_row_group(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": range(100)}), path, row_group_size=7)
    thing = Object(path.read_bytes(), declared("parquet"))
    counts = {assert_rows_equal(thing, size) for size in range(1, len(thing.content), 50)}
    assert max(counts) == 15


def assert_rows_equal(thing: Object, size: int) -> int:
    parts = thing.parts(size)
    assert thing.rows(parts) == thing.rows([thing.item])
    return len(parts)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("again", [25, 90, 10_000])
def test_gaps_are_planned_whatever_the_size_of_partitions_is_now(
    kind: str, again: int, tmp_path: Path
) -> None:
    """What was committed is not read again, and what was not is read once."""
    content = CSV["quoted newlines"] if kind == "csv" else LINES["LF"]
    if kind == "parquet":
        pq.write_table(pa.table({"id": range(100)}), tmp_path / "x", row_group_size=7)
        content = (tmp_path / "x").read_bytes()
    thing = Object(content, declared(kind))
    first = thing.parts(40)
    assert len(first) > 3
    whole = thing.rows(first)
    for kept in ([first[0]], first[1:2], first[::2], first[1::2], first[:-1]):
        rest = thing.parts(again, kept)
        assert all(item.part is not None for item in rest)
        found = [row[2:] for row in thing.rows([*kept, *rest])]
        assert sorted(found) == sorted(row[2:] for row in whole)
    assert thing.parts(again, first) == []


def test_rows_keep_their_numbers_when_gaps_are_planned() -> None:
    thing = Object(CSV["quoted newlines"], declared())
    first = thing.parts(40)
    rest = thing.parts(30, first[1::2])
    assert thing.rows([*first[1::2], *rest]) == thing.rows([thing.item])


def test_other_format_for_the_rest_of_an_object_is_refused() -> None:
    thing = Object(CSV["LF"], declared())
    done = thing.parts(40)[:1]
    thing.form = declared("parquet")
    with pytest.raises(ConfigError, match="in/x: was loaded in part, in another format"):
        thing.parts(40, done)
    thing.form = declared(encoding="utf-16")
    with pytest.raises(ConfigError, match="in/x: was loaded in part, and cannot be split"):
        thing.parts(40, done)


def test_line_end_in_a_value_that_was_declared_away_is_refused() -> None:
    thing = Object(CSV["quoted newlines"], declared(newlines_in_values=False))
    parts = thing.parts(40)
    assert len(parts) > 3
    with pytest.raises(SourceRejected, match="in/x"):
        thing.rows(parts)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"\x1f\x8b" + b"x\n" * 99, declared()),  # gzip
        (b"\x28\xb5\x2f\xfd" + b"x\n" * 99, declared("jsonl")),  # zstd
        ("id,text\n1,2\n".encode("utf-16") * 20, declared(encoding="utf-16")),
        (b"no parquet" * 30, declared("parquet")),
        (b'id,text\n1,"' + b"x\n" * 99, declared()),  # a quote that is never closed
    ],
)
def test_what_cannot_be_split_is_planned_whole(content: bytes, form: Format) -> None:
    thing = Object(content, form)
    assert thing.parts(50) == [thing.item]


def test_small_reads_find_line_feeds() -> None:
    content = b"id,text\n" + b"1,x\n" * 500_000
    thing = Object(content, declared(newlines_in_values=False))
    assert len(thing.parts(400_000)) == 6
    assert thing.read_bytes < 3_000_000  # the header, and a little at each cut


def test_part_survives_the_ledger() -> None:
    for part in (
        Part(unit="bytes", start=1, end=5, of=9),
        Part(unit="row groups", start=0, end=2, of=2),
    ):
        assert Part.parse(str(part)) == part


def test_gaps_are_what_is_between() -> None:
    assert gaps([], 5) == [(0, 5)]
    assert gaps([(0, 5)], 5) == []
    assert gaps([(3, 4), (0, 1)], 5) == [(1, 3), (4, 5)]


def test_format_is_strict() -> None:
    assert CsvFormat(kind="csv").newlines_in_values
