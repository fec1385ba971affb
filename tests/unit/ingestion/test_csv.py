"""Delimited text arrives as it is, and what is refused keeps its number."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.csv_format import read_csv
from tasks.ingestion.csv_small import read_small_csv
from tasks.model.errors import ContractBroken, SourceRejected
from tasks.model.formats import CsvFormat

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
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-4], SourceRejected, "gzip ends too early"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0) + b"junk", SourceRejected, "not gzip any more"),
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
        gzip.compress(text, mtime=0),
        gzip.compress(text[:4], mtime=0) + gzip.compress(text[4:], mtime=0),
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


def test_refused_rows_tell_their_line_and_their_record() -> None:
    """Lines are those of the file: comments, empty lines and line ends in fields count."""
    content = b'title\n#c\n\na,b\n1,"x\ny\r\nz"\n# "comment\n\n2\n3,"4" 5\n6,\xff7\n8,9,0\r\n10,11\n12,13,'
    found, rejects = read(content, comment="#", skip_lines=1)
    assert [(row["a"], row["_source_row"]) for row in found] == [("1", 1), ("10", 6)]
    assert [(r.source_row, r.rule, r.message, r.raw) for r in rejects] == [
        (2, "ragged_row", "line 10: expected 2 fields, found 1", "2"),
        (3, "quote", "line 11: a field goes on after its closing quote", '3,"4" 5'),
        (4, "encoding", "line 12: not text at its byte 2", "6,\\xff7"),
        (5, "ragged_row", "line 13: expected 2 fields, found 3", "8,9,0"),
        (7, "ragged_row", "line 15: expected 2 fields, found 3", "12,13,"),
    ]


@settings(max_examples=150)
@given(
    st.lists(
        st.sampled_from([b"x,y", b'"a\nb",y', b"1,2,3", b"1", b"", b"caf\xe9,y", b'"q"r,y']),
        max_size=25,
    ),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_20_line_told_is_the_line_of_the_text(records: list[bytes], end: bytes) -> None:
    """For every line end, and over blocks of a few records."""
    records = [b"x,y", *records]
    content = end.join([b"a,b", *records])
    _, rejects = read(content, limits=PlanLimits(batch_bytes=48))
    text = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for reject in rejects:
        line = int(reject.message.split(":")[0].removeprefix("line "))
        assert text[line - 1].decode(errors="backslashreplace") == reject.raw


def test_19_too_long_record_keeps_the_lines_behind_it_right() -> None:
    limits = PlanLimits(batch_bytes=64, max_value_bytes=128)
    content = b'a,b\n1,"' + b"x\n" * 1000 + b'"\n2,3,4\n5,6\n'
    found, rejects = read(content, limits=limits)
    assert [row["a"] for row in found] == ["5"]
    assert [(r.source_row, r.rule, r.message.split(":")[0]) for r in rejects] == [
        (1, "value_too_long", "line 2"),
        (2, "ragged_row", "line 1003"),
    ]


def test_15_file_of_which_no_row_fits_the_header_is_refused() -> None:
    with pytest.raises(ContractBroken, match="none of its 3 rows has the 2 fields of the header"):
        read(b"a,b\n1,2,3\n4,5,6\n7,8,9\n")


@settings(max_examples=200)
@given(st.lists(st.tuples(TEXT, TEXT).map(list), min_size=1, max_size=6))
def test_escaped_text_survives(rows: list[list[str]]) -> None:
    """As MySQL and PostgreSQL write text: an escape before everything that means something."""
    special = str.maketrans({c: "\\" + c for c in '\t\\"\n\r'})
    lines = [
        "\t".join(text.translate(special) or '""' for text in row) for row in [["a", "b"], *rows]
    ]
    found, rejects = read("\n".join(lines).encode(), delimiter="\t", escape="\\")
    assert [[row["a"], row["b"]] for row in found] == rows
    assert not rejects


def test_escaped_null_is_told_from_its_letter() -> None:
    content = b'a,b\n\\N,N\n"\\N",x\\N\n'
    found, _ = read(content, escape="\\", null_values=["\\N"])
    assert [(row["a"], row["b"]) for row in found] == [(None, "N"), ("N", "xN")]


def test_quotes_may_mean_nothing() -> None:
    found, _ = read(b'a,b\n"x,5" tall\n', quote=None)
    assert (found[0]["a"], found[0]["b"]) == ('"x', '5" tall')


def test_comments_are_lines_not_values() -> None:
    found, _ = read(b'a,b\n#1,2\n3,#4\n"#5",6\n"x\n#7",8\n# end', comment="#")
    assert [(row["a"], row["b"]) for row in found] == [("3", "#4"), ("#5", "6"), ("x\n#7", "8")]


def test_files_of_one_column_keep_their_empty_lines() -> None:
    found, _ = read(b"a\nx\n\ny\n", columns=1)
    assert [(row["a"], row["_source_row"]) for row in found] == [("x", 1), ("", 2), ("y", 3)]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"delimiter": "ab"}, "not one ASCII character"),
        ({"delimiter": '"'}, "different characters"),
        ({"comment": "\n"}, "not one ASCII character"),
        ({"encoding": "klingon"}, "not an encoding"),
        ({"encoding": "base64"}, "not an encoding of text"),
        ({"skip_lines": -1}, "greater than or equal"),
    ],
)
def test_format_that_cannot_be_is_refused(declared: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CsvFormat.model_validate({"kind": "csv", **declared})


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252", "shift_jis"]
)
def test_05_06_byte_order_mark_is_no_part_of_a_name(encoding: str) -> None:
    text = "a,b\nx,y\n"
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    found, _ = read((mark + text).encode(encoding), encoding=encoding)
    assert found[0]["a"] == "x"


_SMALL = st.lists(
    st.text(alphabet='ab,"\n\ré', max_size=12).map(lambda text: f"x,y\n{text}".encode()),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400)
@given(texts=_SMALL)
@example(texts=[b"x,y\na,b\n", b"x,y\n", b'x,y\n"a\n","b"""\nc,'])
def test_small_texts_together_are_what_each_of_them_is(texts: list[bytes]) -> None:
    declared, limits = CsvFormat(kind="csv"), PlanLimits()
    named = [(f"{number}.csv", text) for number, text in enumerate(texts)]
    together = read_small_csv(named, declared, limits, 2)
    if together is None:
        return
    assert together.batch is not None
    rows = []
    for name, text in named:
        for raw in read_csv(io.BytesIO(text), name, declared, limits, 2):
            assert not raw.rejects
            rows += raw.batch.to_pylist() if raw.batch else []
    assert together.batch.to_pylist() == rows


def test_plain_small_texts_are_parsed_together() -> None:
    declared, limits = CsvFormat(kind="csv"), PlanLimits()
    texts = [("a", b"x,y\r\n1,2\r\n3,4"), ("b", b"x,y\r\n"), ("c", b'x,y\r\n\r\n"5\n",6\r\n')]
    together = read_small_csv(texts, declared, limits, 2)
    assert together is not None
    assert together.batch is not None
    assert together.batch.to_pylist() == [
        {"x": "1", "y": "2", "_source_uri": "a", "_source_row": 1},
        {"x": "3", "y": "4", "_source_uri": "a", "_source_row": 2},
        {"x": "5\n", "y": "6", "_source_uri": "c", "_source_row": 1},
    ]


@pytest.mark.parametrize(
    "other",
    [b"y,x\n1,2\n", b"x,y\n1\n", b'x,y\n"1,2\n', b"\x1f\x8bnot gzip", b"x,y\n\xff,2\n", b""],
)
def test_a_small_text_that_needs_a_closer_look_is_not_parsed_with_others(other: bytes) -> None:
    declared, limits = CsvFormat(kind="csv"), PlanLimits()
    assert read_small_csv([("a", b"x,y\n1,2\n"), ("b", other)], declared, limits, 2) is None
