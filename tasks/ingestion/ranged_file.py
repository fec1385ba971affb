"""A file of which only the ranges are fetched that are read."""

from __future__ import annotations

import io
import os

from tasks.ingestion.record_ends import OpenRange


class RangedFile(io.RawIOBase):
    """A seekable file over an object.

    Args:
        open_range: Opens the object.
        size: Its bytes.
    """

    def __init__(self, open_range: OpenRange, size: int) -> None:
        self._open = open_range
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read in any order."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer from the place where it is."""
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        with self._open(self._at, end) as raw:
            piece = raw.read(end - self._at)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
