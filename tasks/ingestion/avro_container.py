"""Avro's container files: a header with the schema, then blocks of records, each decompressed alone.

fastavro decodes the records. The blocks are taken apart here, because fastavro would decompress one
of any size at once, and cannot say at which byte a file breaks off.
"""

from __future__ import annotations

import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, cast

import pyarrow as pa
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import SchemaParseException

from tasks.ingestion.compression import AGAIN, DAMAGE, GrowthGuard, zstd
from tasks.ingestion.connector import PlanLimits
from tasks.model.errors import SourceRejected

MAGIC = b"Obj\x01"
MAX_BLOCK_BYTES = 256 << 20
MAX_EMPTY_RECORDS = 1_000_000
"""Records may take no bytes at all; more of them than this in a block are a bomb."""
_HEADER = parse_schema(
    {
        "type": "record",
        "name": "dpp.Header",
        "fields": [
            {"name": "magic", "type": {"type": "fixed", "name": "dpp.Magic", "size": 4}},
            {"name": "meta", "type": {"type": "map", "values": "bytes"}},
            {"name": "sync", "type": {"type": "fixed", "name": "dpp.Sync", "size": 16}},
        ],
    }
)


def _inflate(content: bytes, most: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, most)


def _snappy(content: bytes, most: int) -> bytes:
    size = shift = 0
    for byte in content[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            break
    if size > most:
        return b"\0" * most
    plain: bytes = pa.decompress(content[:-4], size, "snappy", asbytes=True)
    if zlib.crc32(plain) != int.from_bytes(content[-4:], "big"):
        raise ValueError
    return plain


CODECS: dict[str, Callable[[bytes, int], bytes]] = {
    "null": lambda content, _most: content,
    "deflate": _inflate,
    "bzip2": lambda content, most: bz2.BZ2Decompressor().decompress(content, most),
    "xz": lambda content, most: lzma.LZMADecompressor().decompress(content, most),
    "zstandard": lambda content, most: zstd.ZstdDecompressor().decompress(content, most),
    "snappy": _snappy,
}


@dataclass(frozen=True, slots=True)
class AvroBlock:
    """Some records, still encoded.

    Attributes:
        records: How many they are.
        content: They, decompressed.
        position: Where the block begins in the file.
    """

    records: int
    content: BytesIO
    position: int


class AvroContainer:
    """A container file that is read from its start to its end.

    Args:
        raw: Its bytes.
        uri: Its name.
        limits: How much may come out of it.

    Raises:
        SourceRejected: It is not Avro, or its schema or codec cannot be understood.
    """

    def __init__(self, raw: BinaryIO, uri: str, limits: PlanLimits) -> None:
        self._raw = _Counted(raw)
        self._uri = uri
        self._growth = GrowthGuard(uri, limits)
        self._decoded = 0
        header: Any = self._decode(_HEADER)
        if header["magic"] != MAGIC:
            raise SourceRejected(f"{uri}: is not an Avro file; it has not Avro's first bytes")
        self._sync: bytes = header["sync"]
        meta: dict[str, bytes] = header["meta"]
        codec = meta.get("avro.codec", b"null").decode(errors="backslashreplace")
        if codec not in CODECS:
            raise SourceRejected(f"{uri}: compressed with {codec!r}; known are {', '.join(CODECS)}")
        self._decompress = CODECS[codec]
        try:
            self.schema: Any = parse_schema(json.loads(meta["avro.schema"]))
        except (KeyError, ValueError, RecursionError, SchemaParseException):
            raise SourceRejected(f"{uri}: its Avro schema cannot be understood") from None

    def blocks(self) -> Iterator[AvroBlock]:
        """Yield the blocks one after the other.

        Raises:
            SourceRejected: The file is damaged, truncated, or a bomb.
        """
        while True:
            position = self._raw.position
            if not self._raw.peek():
                return
            records, size = self._decode("long"), self._decode("long")
            if records < 0 or not 0 <= size <= MAX_BLOCK_BYTES:
                raise self._damaged(position)
            packed, sync = self._raw.read(size), self._raw.read(len(self._sync))
            if len(sync) < len(self._sync):
                raise SourceRejected(
                    f"{self._uri}: ends too early, in the block at byte {position}", AGAIN
                )
            if sync != self._sync:
                raise self._damaged(position)
            yield AvroBlock(records, BytesIO(self._plain(packed, records, position)), position)

    def _plain(self, packed: bytes, records: int, position: int) -> bytes:
        try:
            content = self._decompress(packed, MAX_BLOCK_BYTES + 1)
        except (*DAMAGE, ValueError, pa.ArrowException):
            raise self._damaged(position) from None
        self._decoded += len(content)
        self._growth.check(self._raw.position, self._decoded)
        if len(content) > MAX_BLOCK_BYTES or records > max(len(content), MAX_EMPTY_RECORDS):
            raise SourceRejected(
                f"{self._uri}: the block at byte {position} has {records} records in more than "
                f"{MAX_BLOCK_BYTES} bytes or in none, like a decompression bomb",
                "write it in smaller blocks",
            )
        return content

    def _decode(self, schema: Any) -> Any:
        try:
            return schemaless_reader(cast(BinaryIO, self._raw), schema, None)
        except (EOFError, ValueError, OverflowError, MemoryError, IndexError):
            raise SourceRejected(
                f"{self._uri}: ends too early or is not Avro, before byte {self._raw.position}",
                AGAIN,
            ) from None

    def _damaged(self, position: int) -> SourceRejected:
        return SourceRejected(f"{self._uri}: damaged Avro in the block at byte {position}", AGAIN)


class _Counted:
    """Bytes, and how many of them were taken; one can be looked at before."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._ahead = b""
        self.position = 0

    def peek(self) -> bytes:
        """Return the next byte without taking it; nothing at the end."""
        self._ahead = self._ahead or self._raw.read(1)
        return self._ahead

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        if size > MAX_BLOCK_BYTES:  # a length that lies must not be allocated
            raise EOFError
        ahead, self._ahead = self._ahead[:size], self._ahead[size:]
        piece = ahead + self._raw.read(size - len(ahead))
        self.position += len(piece)
        return piece
