"""Decompresses by content, never by name, and never more than was allowed.

gzip, zstd, bzip2 and xz have one decoder here: it takes any number of members one after the other,
names the byte where something else begins or the last member breaks off, and refuses what grows
beyond its limits, before it is anywhere but in one buffer.
"""

from __future__ import annotations

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from isal import igzip_lib

from tasks.ingestion.connector import PlanLimits
from tasks.model.errors import SourceRejected

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["AGAIN", "DAMAGE", "Codec", "Decompressed", "GrowthGuard", "codec_of", "zstd"]

READ_BYTES = 1 << 18
AGAIN = "deliver the object again; nothing of it was loaded"


class Decompressor(Protocol):
    """One member of a compressed stream, as in ``bz2``."""

    @property
    def eof(self) -> bool:
        """True after the member's end."""
        ...

    @property
    def needs_input(self) -> bool:
        """False while output is left that ``max_length`` held back."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What follows the member's end."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return at most ``max_length`` bytes."""
        ...


def _gzip() -> Decompressor:
    return cast(Decompressor, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


@dataclass(frozen=True, slots=True)
class Codec:
    """A way of compression, and the bytes that each of its members begins with."""

    name: str
    magic: bytes
    open: Callable[[], Decompressor]


CODECS = (
    Codec("gzip", b"\x1f\x8b", _gzip),
    Codec("zstd", b"\x28\xb5\x2f\xfd", lambda: cast(Decompressor, zstd.ZstdDecompressor())),
    Codec("bzip2", b"BZh", lambda: cast(Decompressor, bz2.BZ2Decompressor())),
    Codec("xz", b"\xfd7zXZ\x00", lambda: cast(Decompressor, lzma.LZMADecompressor())),
)
DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstd.ZstdError,
    cast(type[Exception], igzip_lib.error),
)


def codec_of(beginning: bytes) -> Codec | None:
    """Return the codec of a stream that begins like this, None if it is not compressed."""
    return next((codec for codec in CODECS if beginning.startswith(codec.magic)), None)


class GrowthGuard:
    """Refuses an object that decompresses to more than is allowed.

    Args:
        uri: Its name.
        limits: How much is allowed.
    """

    def __init__(self, uri: str, limits: PlanLimits) -> None:
        self._uri = uri
        self._limits = limits

    def check(self, compressed: int, decoded: int) -> None:
        """Refuse what has grown too much so far.

        Args:
            compressed: Bytes taken from the object.
            decoded: Bytes that they became.

        Raises:
            SourceRejected: It is beyond a limit.
        """
        limits = self._limits
        ratio = decoded // max(compressed, 1)
        if decoded > limits.decoded_bytes:
            raise SourceRejected(
                f"{self._uri}: decompresses to more than {limits.decoded_bytes} bytes "
                f"({ratio} times its size so far)",
                "split it, or raise decoded_bytes if it is what it should be",
            )
        if decoded > limits.ratio_from_bytes and ratio > limits.decoded_ratio:
            raise SourceRejected(
                f"{self._uri}: decompresses to {ratio} times its size, more than "
                f"{limits.decoded_ratio} times, like a decompression bomb",
                "look at the object; raise decoded_ratio if it is what it should be",
            )


class Decompressed(io.RawIOBase):
    """The content of a compressed stream.

    Args:
        raw: The stream.
        uri: Its name, for messages.
        codec: How it is compressed.
        limits: How much may come out of it.
        longest: Bytes of ``raw`` that belong to it, None for all.
    """

    def __init__(self, raw: BinaryIO, uri: str, codec: Codec, limits: PlanLimits) -> None:
        self._raw = raw
        self._uri = uri
        self._codec = codec
        self._growth = GrowthGuard(uri, limits)
        self._member = codec.open()
        self._waiting = b""
        self._taken = 0
        self._given = 0
        self._ended = False

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer."""
        while not self._ended:
            piece = self._next(len(buffer))
            if piece:
                self._given += len(piece)
                self._growth.check(self._taken, self._given)
                buffer[: len(piece)] = piece
                return len(piece)
        return 0

    def _next(self, most: int) -> bytes:
        """Return some bytes of the open member; none at its end, or where it needs more input."""
        if self._member.eof:
            self._open_next_member()
            return b""
        if self._member.needs_input and not self._waiting:
            self._waiting = self._read()
            if not self._waiting:
                raise SourceRejected(
                    f"{self._uri}: {self._codec.name} ends too early, after byte {self._taken}",
                    AGAIN,
                )
        given, self._waiting = self._waiting, b""
        try:
            return self._member.decompress(given, most)
        except DAMAGE:
            raise SourceRejected(
                f"{self._uri}: damaged {self._codec.name} before byte {self._taken}", AGAIN
            ) from None

    def _open_next_member(self) -> None:
        rest = self._member.unused_data
        magic = self._codec.magic
        while len(rest) < len(magic) and (more := self._read()):
            rest += more
        if self._codec.name == "gzip":  # padding of tapes and of block devices
            while rest and not rest.strip(b"\0"):
                rest = self._read()
        if not rest:
            self._ended = True
        elif rest.startswith(magic):
            self._member = self._codec.open()
            self._waiting = rest
        else:
            raise SourceRejected(
                f"{self._uri}: not {self._codec.name} any more at byte {self._taken - len(rest)}, "
                "where its last member has ended",
                AGAIN,
            )

    def _read(self) -> bytes:
        piece = self._raw.read(READ_BYTES)
        self._taken += len(piece)
        return piece
