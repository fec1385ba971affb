"""Opens the bytes of one object: decompressed by content, transcoded, and watched on the way."""

from __future__ import annotations

import codecs
import io
from typing import Any, BinaryIO, cast

from tasks.ingestion.compression import Decompressed, codec_of
from tasks.ingestion.connector import PlanLimits
from tasks.model.errors import SourceRejected

READ_BYTES = 1 << 20
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class _Transcoded(io.RawIOBase):
    """Turns text of another encoding into UTF-8.

    What is no text in that encoding becomes bytes that are no UTF-8 either, so that it is refused
    with its record and not with the whole object.
    """

    def __init__(self, raw: BinaryIO, encoding: str, uri: str) -> None:
        self._raw = raw
        wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
        self._decoder = codecs.getincrementaldecoder(encoding)(
            "surrogatepass" if wide else "surrogateescape"
        )
        self._encoding = encoding
        self._uri = uri
        self._position = 0
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            piece = self._raw.read(READ_BYTES)
            held = len(self._decoder.getstate()[0])  # the beginning of a character
            try:
                text = self._decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                raise SourceRejected(
                    f"{self._uri}: not {self._encoding} at byte {self._position - held + error.start}",
                    "correct 'encoding' in the dataset file",
                ) from None
            self._ready = memoryview(text.encode(errors="surrogatepass"))
            self._position += len(piece)
            if not piece:
                break
        taken = self._ready[: len(buffer)]
        self._ready = self._ready[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


def open_stream(
    raw: BinaryIO, uri: str, encoding: str = "utf-8", limits: PlanLimits | None = None
) -> BinaryIO:
    """Return the text of an object as UTF-8 bytes, without a byte order mark.

    Compression is recognised by its first bytes, never by the object's name. Errors while reading
    are ``SourceRejected`` and name the object.
    """
    buffered = decompressed(raw, uri, limits)
    if codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig"):
        buffered = io.BufferedReader(
            _Transcoded(cast(BinaryIO, buffered), encoding, uri), READ_BYTES
        )
    elif wide := next((name for mark, name in _MARKS if _begins(buffered, mark)), None):
        raise SourceRejected(
            f"{uri}: begins like {wide.upper()}", f"set 'encoding: {wide}' in the dataset file"
        )
    if _begins(buffered, codecs.BOM_UTF8):
        buffered.read(3)
    return cast(BinaryIO, buffered)


def decompressed(
    raw: BinaryIO, uri: str, limits: PlanLimits | None = None
) -> io.BufferedReader[Any]:
    """Return the bytes of an object without the compression that its first bytes tell of."""
    buffered = io.BufferedReader(_Raw(raw), READ_BYTES)
    if codec := codec_of(buffered.peek(8)[:8]):
        content = Decompressed(cast(BinaryIO, buffered), uri, codec, limits or PlanLimits())
        return io.BufferedReader(content, READ_BYTES)
    return buffered


def _begins(stream: io.BufferedReader[Any], mark: bytes) -> bool:
    return stream.peek(len(mark))[: len(mark)] == mark


class _Raw(io.RawIOBase):
    """Bytes that someone else closes."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._into = getattr(raw, "readinto", None)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._into is not None:
            return int(self._into(buffer) or 0)
        piece = self._raw.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
