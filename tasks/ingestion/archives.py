"""Zip archives: members are read where they are, and their names are only ever names."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, cast

from tasks.ingestion.compression import AGAIN, GrowthGuard
from tasks.ingestion.connector import PlanLimits
from tasks.model.errors import SourceRejected

ZIP_MAGIC = b"PK\x03\x04"
EMPTY_ZIP = b"PK\x05\x06"
_END_BYTES = 22
_LONGEST_COMMENT = 1 << 16


class _Member:
    """Reads one member, and refuses what grows too much or is damaged."""

    def __init__(self, file: BinaryIO, uri: str, compressed: int, limits: PlanLimits) -> None:
        self._file = file
        self._uri = uri
        self._compressed = compressed
        self._growth = GrowthGuard(uri, limits)
        self._given = 0

    def read(self, size: int = -1) -> bytes:
        try:
            piece = self._file.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise SourceRejected(
                f"{self._uri}: damaged zip after byte {self._given} of the member: "
                f"{type(error).__name__}",
                AGAIN,
            ) from None
        self._given += len(piece)
        self._growth.check(self._compressed, self._given)
        return piece


@contextmanager
def open_archive(path: Path, uri: str) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive.

    Raises:
        SourceRejected: It is truncated or damaged, or something follows it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_end(path, uri)
            yield archive
    except zipfile.BadZipFile:
        size = path.stat().st_size
        raise SourceRejected(
            f"{uri}: damaged zip: its directory is not at its end, byte {size}", AGAIN
        ) from None


def _check_end(path: Path, uri: str) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END_BYTES - _LONGEST_COMMENT))
        before, tail = file.tell(), file.read()
    found = tail.rfind(EMPTY_ZIP)
    end = found + _END_BYTES + int.from_bytes(tail[found + 20 : found + 22], "little")
    if before + end < size:
        raise SourceRejected(f"{uri}: not zip any more at byte {before + end}", AGAIN)


def members(
    path: Path, uri: str, pattern: str | None, limits: PlanLimits
) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the members of an archive whose names match, in the order of their names.

    Args:
        path: The archive.
        uri: Its name.
        pattern: Glob pattern of names; None takes the only member there is.
        limits: How much may come out of them together.

    Yields:
        ``archive!member`` as the member's own uri, and its bytes.

    Raises:
        SourceRejected: No member matches, or one is encrypted, damaged or too large.
    """
    with open_archive(path, uri) as archive:
        listed = [info for info in archive.infolist() if not info.is_dir()]
        chosen = [info for info in listed if pattern is None or fnmatchcase(info.filename, pattern)]
        if pattern is None and len(chosen) > 1:
            raise SourceRejected(
                f"{uri}: has {len(chosen)} members, the first are "
                f"{', '.join(repr(info.filename) for info in chosen[:3])}",
                "set 'member' of the format to a pattern, '*' for all",
            )
        if not chosen:
            raise SourceRejected(f"{uri}: none of its {len(listed)} members matches {pattern!r}")
        check_growth(chosen, uri, limits)
        for info in sorted(chosen, key=lambda info: info.filename):
            name = f"{uri}!{info.filename}"
            try:
                file = archive.open(info)
            except RuntimeError:
                raise SourceRejected(
                    f"{name}: is encrypted", "deliver it without a password"
                ) from None
            except NotImplementedError:
                raise SourceRejected(
                    f"{name}: compressed in a way that cannot be read", "use deflate"
                ) from None
            with file:
                member = _Member(cast(BinaryIO, file), name, info.compress_size, limits)
                yield name, cast(BinaryIO, member)


def check_growth(infos: list[zipfile.ZipInfo], uri: str, limits: PlanLimits) -> None:
    """Refuse an archive by the sizes that it states; reading holds it to them."""
    GrowthGuard(uri, limits).check(
        sum(info.compress_size for info in infos), sum(info.file_size for info in infos)
    )
