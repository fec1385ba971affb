"""Compression is told by content; what is damaged, or grows like a bomb, is refused before memory is full."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingestion.archives import members
from tasks.ingestion.compression import zstd
from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.formats import read_object
from tasks.ingestion.streams import open_stream
from tasks.model.errors import PipelineError, SourceRejected
from tasks.model.formats import CsvFormat

TEXT = b"id,text\n" + b"".join(b"%d,text of row %d\n" % (n, n * 7919) for n in range(5000))
CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
codecs = pytest.mark.parametrize("codec", CODECS)


def content_of(packed: bytes, **limits: Any) -> bytes:
    return open_stream(io.BytesIO(packed), "u", limits=PlanLimits(**limits)).read()


@codecs
@settings(max_examples=30)
@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=4))
def test_45_any_number_of_members_is_one_content(codec: str, parts: list[bytes]) -> None:
    first = b"x" + parts[0]  # so that the content itself begins like nothing else
    assert content_of(b"".join(map(CODECS[codec], [first, *parts[1:]]))) == first + b"".join(
        parts[1:]
    )


@codecs
def test_44_truncated_is_refused_naming_the_byte(codec: str) -> None:
    packed = CODECS[codec](TEXT)
    for cut in (1, 4, 9, len(packed) // 2):
        with pytest.raises(
            SourceRejected, match=f"u: {codec} ends too early, after byte {len(packed) - cut}"
        ):
            content_of(packed[:-cut])


@codecs
def test_b14_garbage_after_the_end_is_refused_naming_the_byte(codec: str) -> None:
    packed = CODECS[codec](TEXT)
    with pytest.raises(SourceRejected, match=f"not {codec} any more at byte {len(packed)}"):
        content_of(packed + b"garbage")


@codecs
def test_damage_in_the_middle_is_refused(codec: str) -> None:
    packed = bytearray(CODECS[codec](TEXT))
    packed[len(packed) // 2] ^= 0xFF
    if codec == "zstd":  # its checksum is optional: this one is without
        packed[6:12] = b"\xff" * 6
    with pytest.raises(SourceRejected, match=codec):
        content_of(bytes(packed))


def test_gzip_may_be_padded_with_zeros() -> None:
    assert content_of(gzip.compress(TEXT) + bytes(1000)) == TEXT


def bomb(codec: str, size: int) -> bytes:
    return CODECS[codec](bytes(1 << 20) * (size >> 20))


@codecs
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"decoded_bytes": 32 << 20}, "decompresses to more than 33554432 bytes"),
        ({"ratio_from_bytes": 32 << 20, "decoded_ratio": 100}, "like a decompression bomb"),
    ],
)
def test_47_bomb_is_refused_and_never_in_memory(
    codec: str, limits: dict[str, int], words: str
) -> None:
    packed = bomb(codec, 48 << 20)
    tracemalloc.start()
    try:
        stream = open_stream(io.BytesIO(packed), "u", limits=PlanLimits(**limits))
        with pytest.raises(SourceRejected, match=words):
            while stream.read(1 << 20):
                pass
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_small_text_of_zeros_is_no_bomb() -> None:
    assert len(content_of(bomb("gzip", 32 << 20))) == 32 << 20


# Names of members that would leave a folder, if they were paths: they are only names.
HOSTILE = [
    "../../x",
    "/etc/passwd",
    "..\\..\\x",
    "C:\\x",
    "a/../../x",
    "~/x",
    "con",
    "é\u202e.csv",
    "a\n.csv",
    "%2e%2e/x",
]


def archive(path: Path, parts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path / "a.zip", "w", method) as made:
        for name, content in parts.items():
            made.writestr(name, content)
    return path / "a.zip"


def rows_of(path: Path, member: str | None = None, **limits: int) -> list[tuple[Any, ...]]:
    found = []
    for raw in read_object(
        CsvFormat(kind="csv", member=member),
        "u",
        PlanLimits(**limits),
        1,
        open_binary=lambda: path.open("rb"),
        local_path=lambda: path,
    ):
        assert raw.batch is not None
        found += [tuple(row.values()) for row in raw.batch.to_pylist()]
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_48_name_of_a_member_is_only_a_name(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = archive(inside, {name: b"id\n1\n"})
    before = sorted(tmp_path.rglob("*"))
    ((value, uri, number),) = rows_of(path)
    assert (value, number) == ("1", 1)
    assert uri.startswith("u!")
    assert sorted(tmp_path.rglob("*")) == before


def test_members_are_chosen_by_their_names(tmp_path: Path) -> None:
    path = archive(
        tmp_path, {"b.csv": b"id\n2\n", "a.csv": gzip.compress(b"id\n1\n"), "readme": b"?"}
    )
    assert rows_of(path, "*.csv") == [("1", "u!a.csv", 1), ("2", "u!b.csv", 1)]
    with pytest.raises(SourceRejected, match=r"has 3 members.*set 'member'"):
        rows_of(path)
    with pytest.raises(SourceRejected, match=r"none of its 3 members matches '\*.tsv'"):
        rows_of(path, "*.tsv")


def test_zip_bomb_is_refused_by_what_it_states(tmp_path: Path) -> None:
    path = archive(tmp_path, {"a": bytes(40 << 20)})
    with pytest.raises(SourceRejected, match="bomb"):
        rows_of(path, ratio_from_bytes=1 << 20, decoded_ratio=100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[:-10], "damaged zip"),
        (lambda content: content + b"garbage", "not zip any more at byte"),
        (lambda content: content.replace(b"id\n1\n", b"id\n2\n", 1), "damaged zip after byte"),
    ],
)
def test_damaged_zip_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    path = archive(tmp_path, {"a": b"id\n1\n"}, zipfile.ZIP_STORED)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(PipelineError, match=words):
        rows_of(path)


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, {"a": b"id\n1\n"})
    content = bytearray(path.read_bytes())
    for signature, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flag] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SourceRejected, match="u!a: is encrypted"):
        list(members(path, "u", None, PlanLimits()))


def test_b14_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv.gz"
    path.write_bytes(b"id\n1\n")
    assert rows_of(path) == [("1", "u", 1)]
