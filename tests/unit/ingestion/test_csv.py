"""Delimited text arrives as it is, and what is refused keeps its number."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.csv_format import read_csv
from tasks.model.errors import ContractBroken, SourceRejected
from tasks.model.source import CsvFormat

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


def read(
    content: bytes, columns: int = 2, limits: PlanLimits | None = None, **declared: Any
) -> tuple[list[dict[str, Any]], list[Reject]]:
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    declared_format = CsvFormat.model_validate({"kind": "csv", **declared})
    for raw in read_csv(io.BytesIO(content), "u", declared_format, limits or PlanLimits(), columns):
        rows += raw.batch.to_pylist() if raw.batch is not None else []
        rejects += raw.rejects
    return rows, rejects


def written(rows: list[list[str | None]]) -> bytes:
    """Write as RFC 4180 says: NULL bare as NA, every text quoted."""

    def cell(text: str | None) -> str:
        return "NA" if text is None else '"' + text.replace('"', '""') + '"'

    return "".join(",".join(map(cell, row)) + "\r\n" for row in [["a", "b"], *rows]).encode()


@settings(max_examples=300)
@given(st.lists(st.tuples(st.none() | TEXT, st.none() | TEXT).map(list), max_size=8))
def test_every_text_survives(rows: list[list[str | None]]) -> None:
    """Quotes, delimiters, line ends, '' beside NULL, and the word NA."""
    found, rejects = read(written(rows), null_values=["NA"])
    assert [[row["a"], row["b"]] for row in found] == rows
    assert not rejects


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["good", "long", "short", "latin"]), max_size=30))
def test_rows_keep_their_numbers_whatever_is_refused_between_them(kinds: list[str]) -> None:
    lines = {"good": b"x,y", "long": b"1,2,3", "short": b"1", "latin": b"caf\xe9,y"}
    kinds = ["good", *kinds]  # of a file without any, all would be refused together
    content = b"a,b\n" + b"".join(lines[kind] + b"\n" for kind in kinds)
    # Blocks of a few rows: numbers must go on over them.
    found, rejects = read(content, limits=PlanLimits(batch_bytes=64))
    wanted = [number for number, kind in enumerate(kinds, 1) if kind == "good"]
    assert [row["_source_row"] for row in found] == wanted
    assert sorted(r.source_row for r in rejects) == [
        number for number, kind in enumerate(kinds, 1) if kind != "good"
    ]


def test_refused_row_keeps_its_text_and_the_reason() -> None:
    _, (reject,) = read(b"a,b\n1,2,3\n")
    assert (reject.rule, reject.message, reject.raw) == (
        "ragged_row", "line 2: expected 2 fields, found 3", "1,2,3",
    )  # fmt: skip


def test_value_that_is_too_long_is_refused_alone() -> None:
    content = b"a,b\n1," + b"x" * 50 + b"\n2,y\n"
    found, (reject,) = read(content, limits=PlanLimits(max_value_bytes=20))
    assert ([row["a"] for row in found], reject.rule) == (["2"], "value_too_long")


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"a,A\n1,2\n", ContractBroken, "not different: a, A"),
        (b"a,\n1,2\n", ContractBroken, "column 2 of the header has no name"),
        (b"a;b\n1;2\n", ContractBroken, "is the delimiter ';'?"),
        (b'a,b\n1,"2\n3,4\n', SourceRejected, "never closed"),
        (b'a,b\n1,2\n3,"4', SourceRejected, "the record at byte 8 opens a quote"),
        (gzip.compress(b"a,b\n1,2\n")[:-4], SourceRejected, "gzip ends too early"),
        (gzip.compress(b"a,b\n1,2\n") + b"junk", SourceRejected, "not gzip any more"),
        ("a,b\n".encode("utf-16"), SourceRejected, "set 'encoding: utf-16'"),
        (b"\x28\xb5\x2f\xfdjunkjunkjunk", SourceRejected, "damaged zstd"),
    ],
)
def test_damaged_file_is_refused_whole(content: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as refusal:
        read(content)
    assert words in str(refusal.value)
    assert str(refusal.value).startswith("u: ")


@pytest.mark.parametrize(
    ("encoding", "text"), [("utf-16", "a,b\ncafé,x\n"), ("latin-1", "a,b\ncafé,x\n")]
)
def test_declared_encoding_is_read(encoding: str, text: str) -> None:
    found, _ = read(text.encode(encoding), encoding=encoding)
    assert found[0]["a"] == "café"


def test_04_row_that_is_not_of_the_declared_encoding_is_refused_alone() -> None:
    found, (reject,) = read("a,b\n1,2é\n3,4\n".encode(), encoding="ascii")
    assert [row["a"] for row in found] == ["3"]
    assert (reject.rule, reject.message) == ("encoding", "line 2: not text at its byte 3")


def test_06_utf16_that_ends_in_the_middle_of_a_character_is_refused() -> None:
    with pytest.raises(SourceRejected, match="not utf-16 at byte 14"):
        read("a,b\n1,2".encode("utf-16")[:-1], encoding="utf-16")


def test_compression_is_told_by_content() -> None:
    import pyarrow as pa

    text = b"a,b\n1,2\n"
    zstd = pa.compress(text, codec="zstd", asbytes=True)
    for content in (
        text,
        gzip.compress(text),
        gzip.compress(text[:4]) + gzip.compress(text[4:]),
        zstd,
    ):
        assert [row["b"] for row in read(content)[0]] == ["2"]


def test_files_without_rows_give_none() -> None:
    assert read(b"") == ([], [])
    assert read(b"a,b\n") == ([], [])


def test_header_can_be_declared() -> None:
    found, _ = read(b"1;2\n", header=["a", "b"], delimiter=";")
    assert (found[0]["a"], found[0]["_source_row"]) == ("1", 1)


def test_stream_is_read_in_pieces() -> None:
    """A batch is there before the file has been read to its end."""

    class Watched(io.RawIOBase):
        served = 0
        _left = b""

        def __init__(self, lines: Iterator[bytes]) -> None:
            self._lines = lines

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self._left = self._left or next(self._lines, b"")
            piece, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
            buffer[: len(piece)] = piece
            Watched.served += len(piece)
            return len(piece)

    lines = (b"a,b\n" if number == 0 else b"x,y\n" * 1000 for number in range(20_000))
    stream: Any = Watched(lines)
    batches = read_csv(stream, "u", CsvFormat(kind="csv"), PlanLimits(batch_bytes=1 << 16), 2)
    assert next(batches).batch is not None
    assert Watched.served < 16 << 20


def test_writer_of_python_is_understood() -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["a", "b"], ['x"y', "1\n2"], ["", ","]])
    found, _ = read(out.getvalue().encode())
    assert [(row["a"], row["b"]) for row in found] == [('x"y', "1\n2"), ("", ",")]
