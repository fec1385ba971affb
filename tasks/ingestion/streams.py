"""Opens the bytes of one object: decompressed by content, transcoded, and watched on the way."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from typing import Any, BinaryIO, cast

import pyarrow as pa

from tasks.model.errors import SourceRejected

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
READ_BYTES = 1 << 20


class _CheckedGzip(io.RawIOBase):
    """A gzip stream whose damage is an error of ours that names the object and the byte."""

    def __init__(self, raw: BinaryIO, uri: str) -> None:
        self._counted = _Counted(raw)
        self._gzip = gzip.GzipFile(fileobj=cast(BinaryIO, io.BufferedReader(self._counted)))
        self._uri = uri

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            piece = self._gzip.read(len(buffer))
        except EOFError:
            raise SourceRejected(
                f"{self._uri}: gzip ends too early, after byte {self._counted.position}",
                "deliver the object again; nothing of it was loaded",
            ) from None
        except (gzip.BadGzipFile, zlib.error):
            raise SourceRejected(
                f"{self._uri}: not gzip any more before byte {self._counted.position}",
                "deliver the object again; nothing of it was loaded",
            ) from None
        buffer[: len(piece)] = piece
        return len(piece)


class _Counted(io.RawIOBase):
    """Knows how many bytes were taken from it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._raw.read(len(buffer))
        buffer[: len(piece)] = piece
        self.position += len(piece)
        return len(piece)


class _Transcoded(io.RawIOBase):
    """Turns text of another encoding into UTF-8."""

    def __init__(self, raw: BinaryIO, encoding: str, uri: str) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._encoding = encoding
        self._uri = uri
        self._position = 0
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            piece = self._raw.read(READ_BYTES)
            held = len(self._decoder.getstate()[0])  # the beginning of a character
            try:
                self._ready = self._decoder.decode(piece, final=not piece).encode()
            except UnicodeDecodeError as error:
                raise SourceRejected(
                    f"{self._uri}: not {self._encoding} at byte {self._position - held + error.start}",
                    "correct 'encoding' in the dataset file",
                ) from None
            self._position += len(piece)
            if not piece:
                break
        taken = self._ready[: len(buffer)]
        self._ready = self._ready[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


def open_stream(raw: BinaryIO, uri: str, encoding: str = "utf-8") -> BinaryIO:
    """Return the text of an object as UTF-8 bytes, without a byte order mark.

    Compression is recognised by its first bytes, never by the object's name. Errors while reading
    are ``SourceRejected`` and name the object.
    """
    buffered: io.BufferedReader[Any] = io.BufferedReader(_Counted(raw), READ_BYTES)
    magic = buffered.peek(4)[:4]
    if magic.startswith(GZIP_MAGIC):
        buffered = io.BufferedReader(_CheckedGzip(cast(BinaryIO, buffered), uri), READ_BYTES)
    elif magic.startswith(ZSTD_MAGIC):
        stream = pa.CompressedInputStream(pa.PythonFile(buffered, mode="r"), "zstd")
        buffered = io.BufferedReader(_Zstd(stream, uri), READ_BYTES)
    if codecs.lookup(encoding).name != "utf-8":
        buffered = io.BufferedReader(_Transcoded(cast(BinaryIO, buffered), encoding, uri))
    elif buffered.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise SourceRejected(
            f"{uri}: begins like UTF-16", "set 'encoding: utf-16' in the dataset file"
        )
    if buffered.peek(3)[:3] == codecs.BOM_UTF8:
        buffered.read(3)
    return cast(BinaryIO, buffered)


class _Zstd(io.RawIOBase):
    """A zstd stream whose damage is an error of ours."""

    def __init__(self, stream: pa.NativeFile, uri: str) -> None:
        self._stream = stream
        self._uri = uri

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            piece = self._stream.read(len(buffer))
        except OSError:
            raise SourceRejected(
                f"{self._uri}: damaged zstd", "deliver the object again; nothing of it was loaded"
            ) from None
        buffer[: len(piece)] = piece
        return len(piece)
